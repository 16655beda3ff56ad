"""The original's schema on the scratch server: tables, indexes, constraints, views, functions.

Read with ``pg_dump`` of the original's version. What it writes is run one statement at a time, by
an ordinary role, and only statements of the kinds listed here: a definition of the original is
somebody else's text. What acts by itself (triggers, rules, event triggers, subscriptions) and what
leads elsewhere (foreign servers and tables) is left out: recorded statements only read, here.
https://www.postgresql.org/docs/current/app-pgdump.html
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pglast.parser import ParseError, split
from psycopg2 import sql
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import URL

from backend.db_connector import DatabaseConnector, libpq_arguments
from backend.errors import PrivilegeError, ServerConnectionError, ServerError
from backend.printable import printable
from backend.sandbox.scratch_server import OWNER, SANDBOX_APPLICATION

_LOCK_TIMEOUT_MS = 500
_ROUNDS = 4
"""How often statements that failed are tried again: they may need what comes later."""
_SKIPPED_LINES = re.compile(r"^\\(?:un)?restrict .*$", re.MULTILINE)
_COMMENT_LINES = re.compile(r"\A(?:\s*--[^\n]*\n)+\s*")
_TAKEN = re.compile(
    r"""(?:CREATE\ (?:OR\ REPLACE\ )?(?:
            SCHEMA|SEQUENCE|TYPE|DOMAIN|FUNCTION|AGGREGATE|OPERATOR|CAST|COLLATION|STATISTICS
            |TEXT\ SEARCH|(?:RECURSIVE\ )?VIEW|MATERIALIZED\ VIEW|(?:UNLOGGED\ )?TABLE
            |(?:UNIQUE\ )?INDEX)
       |ALTER\ (?:SEQUENCE|TYPE|DOMAIN|TEXT\ SEARCH|STATISTICS|TABLE|INDEX|OPERATOR))\ """,
    re.VERBOSE,
)
_FOREIGN_KEY = re.compile(r"ADD CONSTRAINT .* FOREIGN KEY .*(?<!NOT VALID)\Z", re.DOTALL)
_EXTENSIONS = """
SELECT e.extname AS name, n.nspname AS schema
  FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname <> 'plpgsql' ORDER BY e.oid
"""
_UNREADABLE = """
SELECT n.nspname AS schema, c.relname AS name
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT has_table_privilege(c.oid, 'SELECT')
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schema:
    """A schema as SQL: what comes before the rows, and what after (keys, indexes)."""

    before_rows: tuple[str, ...]
    after_rows: tuple[str, ...]


def read_schema(source: DatabaseConnector, bin_dir: Path, *, timeout_s: float) -> Schema:
    """Read the schema of the source's database, without tables that our role may not read.

    Args:
        source: a connection to it.
        bin_dir: the folder of ``pg_dump`` and ``pg_restore``, of the source's major version.
        timeout_s: for all of it.

    Raises:
        ServerError: there are no such programs, or the source refuses.
    """
    unreadable = source.fetch(_UNREADABLE)
    left_out = [
        f"--exclude-table={_pattern(row['schema'])}.{_pattern(row['name'])}" for row in unreadable
    ]
    options = f"-c lock_timeout={_LOCK_TIMEOUT_MS}"
    if _may_stay_out_of_statistics(source):
        options += " -c pg_stat_statements.track=none"  # no statement of the application's
    address, secret = _address(source.url)
    archive = _run(
        [
            bin_dir / "pg_dump", "--format=custom", "--schema-only", "--no-owner",
            "--no-privileges", "--no-tablespaces", "--no-comments", "--no-security-labels",
            "--no-publications", "--no-subscriptions", f"--lock-wait-timeout={_LOCK_TIMEOUT_MS}",
            "--no-password", f"--dbname={address}", *left_out,
        ],
        environment={
            **secret,
            "PGAPPNAME": SANDBOX_APPLICATION,
            "PGCONNECT_TIMEOUT": "5",
            "PGOPTIONS": options,
        },
        timeout_s=timeout_s,
    )  # fmt: skip
    sections = [
        _run(
            [bin_dir / "pg_restore", f"--section={section}", "--no-owner", "--file=-"],
            stdin=archive,
            timeout_s=timeout_s,
        ).decode("utf-8")
        for section in ("pre-data", "post-data")
    ]
    before, after = (tuple(_statements(text)) for text in sections)
    return Schema(before, after)


def _may_stay_out_of_statistics(source: DatabaseConnector) -> bool:
    """Whether our role may set what the printed grants let the explorer set from version 15 on."""
    try:
        source.fetch("SELECT pg_catalog.set_config('pg_stat_statements.track', 'none', true)")
    except PrivilegeError:
        return False
    return True


def read_extensions(source: DatabaseConnector) -> list[tuple[str, str]]:
    """The source's extensions, each with the schema it lies in, in the order they were made."""
    return [(row["name"], row["schema"]) for row in source.fetch(_EXTENSIONS)]


def make_extensions(admin: DatabaseConnector, wanted: Collection[tuple[str, str]]) -> list[str]:
    """Make extensions as the superuser, as far as this machine has them; returns those it lacks."""
    lacking = []
    for name, schema in wanted:
        try:
            admin.execute(
                sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(
                    sql.Identifier(schema), sql.Identifier(OWNER)
                )
            )
            admin.execute(
                sql.SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {} CASCADE").format(
                    sql.Identifier(name), sql.Identifier(schema)
                )
            )
        except ServerConnectionError:
            raise
        except ServerError:
            lacking.append(name)
    return lacking


def run_all(
    owner: DatabaseConnector, statements: Collection[str], is_over: Callable[[], bool]
) -> int:
    """Run definitions, those that fail once more after the others; how many never ran.

    A foreign key that the sampled rows do not fulfil is made without looking at them: the planner
    uses it all the same.

    Raises:
        ServerConnectionError: the scratch server is gone.
    """
    waiting = list(statements)
    for _ in range(_ROUNDS):
        failed = []
        for statement in waiting:
            if is_over():
                return len(waiting)
            if not _runs(owner, statement):
                failed.append(statement)
        if not failed or len(failed) == len(waiting):
            return len(failed)
        waiting = failed
    return len(waiting)


def _runs(owner: DatabaseConnector, statement: str) -> bool:
    attempts = [statement]
    if _FOREIGN_KEY.search(statement):
        attempts.append(f"{statement} NOT VALID")
    for attempt in attempts:
        try:
            owner.execute(attempt)
            return True
        except ServerConnectionError:
            raise
        except ServerError as error:
            logger.debug("a definition failed in the sandbox: %s", error.message)
    return False


def _statements(text: str) -> Iterator[str]:
    """The statements of a dump that are taken over."""
    text = _SKIPPED_LINES.sub("", text)
    try:
        parts = split(text)
    except ParseError:  # a newer server's grammar: bodies of SQL functions may fall apart
        parts = split(text, with_parser=False)
    for part in parts:
        statement = _COMMENT_LINES.sub("", part).strip()
        if _TAKEN.match(statement):
            # An extension's schema is there already.
            yield re.sub(r"\ACREATE SCHEMA ", "CREATE SCHEMA IF NOT EXISTS ", statement)


def _pattern(name: str) -> str:
    """A name that pg_dump takes literally: quoted, with no wildcard left in it."""
    return '"' + name.replace('"', '""') + '"'


def _address(url: URL) -> tuple[str, dict[str, str]]:
    """A URL as libpq's text without the password, which is for the environment alone.

    All of it must arrive: without ``sslmode`` or ``require_auth`` the connection would be less
    safe than the one that was asked for.
    """
    arguments = libpq_arguments(url)
    password = arguments.pop("password", None)
    return make_dsn(**arguments), {"PGPASSWORD": str(password)} if password is not None else {}


def _run(
    argv: list[str | Path],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    environment: dict[str, str] | None = None,
) -> bytes:
    program = Path(argv[0]).name
    try:
        result = subprocess.run(
            [str(part) for part in argv],
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{program} did not end within {timeout_s:.0f} s") from error
    except OSError as error:
        raise ServerError(
            f"{program} cannot be run: {error}",
            remedy="install PostgreSQL's client programs of the server's version",
        ) from error
    if result.returncode != 0:
        said = " ".join(printable(result.stderr.decode(errors="replace")).split())
        raise ServerError(f"{program} failed: {said:.300}")
    return result.stdout
