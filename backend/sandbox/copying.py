"""Makes the copy: scratch server, schema, sample of rows, statistics."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy.engine import URL

from backend.db_connector import DatabaseConnector
from backend.errors import ServerConnectionError, ServerError, UnsupportedServerError
from backend.sandbox.row_copy import CopiedRows, RowCopy, read_tables
from backend.sandbox.row_plan import plan_rows
from backend.sandbox.schema_copy import make_extensions, read_extensions, read_schema, run_all
from backend.sandbox.scratch_server import SANDBOX_APPLICATION, ScratchServer
from backend.steering.running.trial_session import TrialSession

MAX_AGE_S = 24 * 3600.0
"""An older copy is made anew: data grow and change."""
_SCHEMA_TIMEOUT_S = 60.0
_DEFINITION_TIMEOUT_MS = 120_000
_SPARE_DISK_BYTES = 512 * 1024**2
_DISK_PER_BYTE = 4
"""Bytes of disk for a byte of rows: heap, indexes, log, temporary files."""
_LOCALE = """
SELECT pg_encoding_to_char(encoding) AS encoding, datcollate AS collate, datctype AS ctype
  FROM pg_database WHERE datname = current_database()
"""
_MATERIALIZED = """
SELECT format('REFRESH MATERIALIZED VIEW %I.%I', n.nspname, c.relname) AS refresh
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'm' ORDER BY c.oid
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CopyLimits:
    """What a copy may take.

    Args:
        rows, size_bytes: of the sample.
        seed: of the rows that are chosen.
    """

    rows: int
    size_bytes: int
    seed: int = 0


@dataclass(frozen=True)
class MadeCopy:
    """A copy that is ready.

    Args:
        server: it runs.
        rows: what was copied.
        lacking: definitions of the original that could not be made here, and ``extensions`` that
            this machine does not have.
        seconds: that it took; ``ready_s``: when it was ready, on the monotonic clock.
        relations: names of the tables and views whose rows matter.
    """

    server: ScratchServer
    relations: frozenset[str]
    rows: CopiedRows
    lacking: int
    extensions: tuple[str, ...]
    seconds: float
    ready_s: float

    def is_good_for(self, relations: Collection[str]) -> bool:
        """Whether it is young, and holds these tables."""
        is_young = time.monotonic() - self.ready_s < MAX_AGE_S
        return is_young and self.relations.issuperset(relations)

    def __str__(self) -> str:
        """For people."""
        told = (
            f"{self.rows.rows} rows of {self.rows.tables} tables ({self.rows.whole} whole) "
            f"in {self.seconds:.0f} s"
        )
        if self.lacking:
            told += f", without {self.lacking} definitions"
        if self.extensions:
            told += f", without the extensions {', '.join(self.extensions)}"
        return told


def make_copy(
    source_url: URL,
    data_dir: Path,
    relations: Collection[str],
    limits: CopyLimits,
    *,
    tell: Callable[[str], None],
    is_over: Callable[[], bool],
) -> MadeCopy:
    """Make a copy of the original on this machine.

    Args:
        source_url: the original; it is only read.
        data_dir: the product's data folder.
        relations: names of the tables and views whose rows matter.
        limits: what it may take.
        tell: is told what is being done.
        is_over: asked now and then: whether to give up.

    Raises:
        ServerError, EmbeddedServerError: no copy can be made, and why; nothing is left of it.
        InterruptedError: ``is_over`` said so.
    """

    def step(what: str) -> None:
        if is_over():
            raise InterruptedError("the time for making the copy is over")
        tell(what)

    began_s = time.monotonic()
    with closing(DatabaseConnector(source_url, application_name=SANDBOX_APPLICATION)) as source:
        _check_disk(data_dir, limits.size_bytes)
        server = ScratchServer(
            data_dir, source.server_version // 10000, _DISK_PER_BYTE * limits.size_bytes
        )
        step("makes a scratch server")
        server.create(source.fetch(_LOCALE)[0])
        try:
            step("copies the schema")
            schema = read_schema(source, server.bin_dir, timeout_s=_SCHEMA_TIMEOUT_S)
            with closing(_connector(server.copy_admin_url)) as admin:
                extensions = make_extensions(admin, read_extensions(source))
            with closing(_connector(server.owner_url)) as owner:
                lacking = run_all(owner, schema.before_rows, is_over)
                step("copies a sample of rows")
                rows = _copy_rows(source_url, server, relations, limits, is_over)
                step("builds indexes")
                for row in owner.fetch(_MATERIALIZED):
                    run_all(owner, [row["refresh"]], is_over)
                lacking += run_all(owner, schema.after_rows, is_over)
                step("gathers statistics")
                owner.execute("VACUUM (ANALYZE, SKIP_LOCKED)")
            step("has a copy")
        except BaseException:
            server.destroy()
            raise
    ready_s = time.monotonic()
    made = MadeCopy(
        server,
        frozenset(relations),
        rows,
        lacking,
        tuple(extensions),
        seconds=ready_s - began_s,
        ready_s=ready_s,
    )
    logger.info("a sandbox was made: %s", made)
    return made


def _connector(url: URL) -> DatabaseConnector:
    return DatabaseConnector(
        url,
        application_name=SANDBOX_APPLICATION,
        statement_timeout_ms=_DEFINITION_TIMEOUT_MS,
        session_settings={"check_function_bodies": "off", "client_min_messages": "error"},
    )


def _copy_rows(
    source_url: URL,
    server: ScratchServer,
    relations: Collection[str],
    limits: CopyLimits,
    is_over: Callable[[], bool],
) -> CopiedRows:
    source = TrialSession(source_url, search_path="pg_catalog")
    try:
        with closing(source), source.snapshot(), _loading(server.owner_url) as scratch:
            plans = plan_rows(
                read_tables(source, sorted(relations)), limits.rows, limits.size_bytes
            )
            copy = RowCopy(
                source, scratch, max_bytes=limits.size_bytes, seed=limits.seed, is_over=is_over
            )
            return copy.copy(plans)
    except psycopg2.Error as error:
        raise ServerError(
            f"the sample could not be copied: SQLSTATE {error.pgcode}",
            remedy="check that the role may read the tables",
        ) from None


@contextmanager
def _loading(url: URL) -> Iterator[Any]:
    """A plain connection to the scratch server: COPY needs a synchronous one."""
    try:
        connection = psycopg2.connect(
            url.render_as_string(hide_password=False).replace("+psycopg2", "", 1),
            application_name=SANDBOX_APPLICATION,
            connect_timeout=10,
        )
    except psycopg2.Error as error:
        raise ServerConnectionError(f"no connection to the scratch server: {error}") from None
    try:
        connection.autocommit = True
        connection.set_client_encoding("UTF8")
        yield connection
    finally:
        connection.close()


def _check_disk(data_dir: Path, size_bytes: int) -> None:
    needed = _DISK_PER_BYTE * size_bytes + _SPARE_DISK_BYTES
    data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(data_dir).free
    if free < needed:
        raise UnsupportedServerError(
            f"a sandbox needs {needed // 1024**2} MB of free disk, {data_dir} has "
            f"{free // 1024**2} MB",
            remedy="free disk space, or lower sandbox.max_bytes",
        )
