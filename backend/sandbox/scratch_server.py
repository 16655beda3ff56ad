"""A server of our own for copies: bounded, low in priority, and gone without a trace afterwards.

It is made by :class:`EmbeddedPostgres` in a folder of its own, so it listens on the loopback
address alone, asks for a password, and is found again by its record after a kill. It holds copies:
what keeps data over a power loss is off, here and nowhere else in the product.

Two roles: the superuser sets knobs and makes extensions; the *owner*, an ordinary role, makes all
that comes from the original and runs the statements. So a definition that somebody made in the
original has no more rights here than it needs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from psycopg2 import sql
from sqlalchemy.engine import URL

from backend.db_connector import DatabaseConnector
from backend.domain.knobs import KnobValue
from backend.embedded.account import choose_account
from backend.embedded.binaries import find_binaries
from backend.embedded.files import read_text, telling, write_atomically
from backend.embedded.postmaster import living_postmaster
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError, ServerError
from backend.targets.postgresql import PostgresTarget

DATABASE = "sandbox_copy"
OWNER = "sandbox_owner"
SANDBOX_APPLICATION = "autopilot_sandbox"
_FOLDER = "sandbox"
_OWNER_FILE = "owner"
_LEAST_MEMORY_BYTES = 512 * 1024**2
_MEMORY_SHARE = 0.25
"""Of the memory that is free now: what one process of the server may allocate at the most."""
_BOUND = """
limit=$1; shift
for pid in "$@"; do
    renice -n 19 -p "$pid"
    prlimit --data="$limit" --pid "$pid"
    echo 1000 > "/proc/$pid/oom_score_adj"  # when memory runs out, this server is ended first
done
"""
_BOUND_TIMEOUT_S = 30
_ADMIN_TIMEOUT_MS = 60_000
_RELOAD_TIMEOUT_S = 30.0
_POLL_S = 0.005
_LOADED = "SELECT pg_catalog.pg_conf_load_time() AS at"

logger = logging.getLogger(__name__)


class ScratchServer:
    """A scratch server under a data folder; one at a time.

    Args:
        data_dir: the product's data folder.
        major: PostgreSQL's major version, that of the original.
        temp_bytes: the most that a statement may put into temporary files.

    Raises:
        EmbeddedServerError: this machine has no programs of that version.
    """

    def __init__(self, data_dir: Path, major: int, temp_bytes: int) -> None:
        binaries = find_binaries(None, major=major)
        self.bin_dir = binaries.bin_dir
        self._temp_bytes = temp_bytes
        self._owner_password = secrets.token_urlsafe(24)
        self._folder = data_dir / _FOLDER
        self._server = EmbeddedPostgres(self._folder, bin_dir=binaries.bin_dir, dbname="postgres")

    # -- life -------------------------------------------------------------------------------------

    def create(self, locale: Mapping[str, str]) -> None:
        """Make and start it, with an empty database for the copy.

        Args:
            locale: ``encoding``, ``collate`` and ``ctype`` of the original's database. A locale
                that this machine does not have is replaced by the server's own.

        Raises:
            EmbeddedServerError, ServerError: it cannot be made, or another process has one here;
                nothing is left of it.
        """
        owner = _living_owner(self._folder)
        if owner is not None:
            raise EmbeddedServerError(
                f"process {owner} has a sandbox in {self._folder}",
                remedy="end that process, or use another data folder",
            )
        self.destroy()
        try:
            _claim(self._folder)
            self._server.ensure_started()
            self._bound()
            self.apply({}, restart=False)
            self._create_database(locale)
        except BaseException:
            self.destroy()
            raise

    def start(self) -> None:
        """Start it again after :meth:`stop`, if need be without what was tried last.

        Raises:
            EmbeddedServerError: it does not start.
        """
        self._server.start_or_recover()
        self._bound()

    def stop(self) -> None:
        """Stop it; the copy stays. Idempotent."""
        self._close_sessions()
        self._server.stop("fast")

    def destroy(self) -> None:
        """Stop it and remove all that was made. Idempotent."""
        self._close_sessions()
        self._server.destroy()
        _remove_folder(self._folder)

    # -- connections ------------------------------------------------------------------------------

    @functools.cached_property
    def target(self) -> PostgresTarget:
        """The server with the superuser's rights."""
        return PostgresTarget(self._connector())

    @functools.cached_property
    def _admin(self) -> DatabaseConnector:
        return self._connector()

    @property
    def owner_url(self) -> URL:
        """The copy, as the ordinary role that owns it."""
        url = self._server.dsn(DATABASE)
        return url.set(username=OWNER, password=self._owner_password)

    @property
    def copy_admin_url(self) -> URL:
        """The copy, as the superuser: for extensions alone."""
        return self._server.dsn(DATABASE)

    # -- knobs ------------------------------------------------------------------------------------

    def apply(self, values: Mapping[str, KnobValue], *, restart: bool) -> None:
        """Put exactly these values in force, beside those that every copy is run with.

        Raises:
            RefusedValueError: the server does not take one of them.
            StartError: it does not start with them; it runs with older ones.
            ServerError: it is in trouble that has other causes.
        """
        self._admin.execute("ALTER SYSTEM RESET ALL")
        self.target.write_entries({**self._base, **values})
        if not restart:
            self._reload()
            return
        self._close_sessions()
        try:
            self._server.restart()
        except EmbeddedServerError:
            self._server.start_or_recover()
            raise
        finally:
            self._bound()

    def _reload(self) -> None:
        """Reload, and wait until new sessions have it."""
        before = self._admin.fetch(_LOADED)[0]["at"]
        self.target.reload()
        deadline_s = time.monotonic() + _RELOAD_TIMEOUT_S
        while self._admin.fetch(_LOADED)[0]["at"] == before:
            if time.monotonic() > deadline_s:
                raise ServerError(
                    f"the sandbox did not load its settings within {_RELOAD_TIMEOUT_S:g} s",
                    remedy="look at the machine's load",
                )
            time.sleep(_POLL_S)

    @property
    def _base(self) -> Mapping[str, KnobValue]:
        return {
            "fsync": False,
            "full_page_writes": False,
            "synchronous_commit": "off",
            "autovacuum": False,
            "temp_file_limit": self._temp_bytes // 1024,
        }

    # -- inside -----------------------------------------------------------------------------------

    def _connector(self) -> DatabaseConnector:
        return DatabaseConnector(
            self._server.dsn("postgres"),
            application_name=SANDBOX_APPLICATION,
            statement_timeout_ms=_ADMIN_TIMEOUT_MS,
        )

    def _close_sessions(self) -> None:
        """Close our sessions; the address may change with the next start."""
        for name in ("_admin", "target"):
            session = self.__dict__.pop(name, None)
            if session is not None:
                session.close()

    def _create_database(self, locale: Mapping[str, str]) -> None:
        owner, name = sql.Identifier(OWNER), sql.Identifier(DATABASE)
        self._admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER PASSWORD {}").format(
                owner, sql.Literal(self._owner_password)
            )
        )
        create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0").format(name, owner)
        like = sql.SQL("{} ENCODING {encoding} LC_COLLATE {collate} LC_CTYPE {ctype}")
        try:
            values = {key: sql.Literal(value) for key, value in locale.items()}
            self._admin.execute(like.format(create, **values))
        except ServerError as error:
            logger.warning("the sandbox uses this machine's locale: %s", error.message)
            self._admin.execute(create)

    def _bound(self) -> None:
        """Lower the priority of the server's processes, and bound the memory of each.

        Processes started later inherit both. The server's own account does it: in a container root
        may lack the right. What the system does not let us set stays as it is.
        """
        found = living_postmaster(self._server.cluster_dir)
        if found is None:
            return
        try:
            children = psutil.Process(found.pid).children(recursive=True)
        except psutil.Error:
            return
        limit = max(int(_MEMORY_SHARE * psutil.virtual_memory().available), _LEAST_MEMORY_BYTES)
        account = choose_account(self._server.cluster_dir.stat().st_uid)
        pids = [str(pid) for pid in (found.pid, *(child.pid for child in children))]
        try:
            account.run(
                ["/bin/sh", "-c", _BOUND, "sh", str(limit), *pids], timeout_s=_BOUND_TIMEOUT_S
            )
        except EmbeddedServerError as error:
            logger.warning("the sandbox's server has its usual priority: %s", error.message)


def remove_leftovers(data_dir: Path) -> bool:
    """Remove the scratch server that a killed process left under this data folder.

    Returns whether there was one; that of a process that lives is no leftover.

    Raises:
        EmbeddedServerError: it cannot be ended or removed.
    """
    folder = data_dir / _FOLDER
    if not folder.is_dir() or _living_owner(folder) is not None:
        return False
    EmbeddedPostgres(folder, dbname="postgres").destroy()
    _remove_folder(folder)
    return True


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _claim(folder: Path) -> None:
    """Note whose sandbox this is."""
    with telling(f"cannot write in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _OWNER_FILE, _identity(os.getpid()))


def _living_owner(folder: Path) -> int | None:
    """The process id of another process that made this sandbox, if it lives."""
    text = read_text(folder / _OWNER_FILE)
    pid = text.partition(" ")[0] if text else ""
    if not pid.isdigit() or int(pid) == os.getpid():
        return None
    try:
        return int(pid) if _identity(int(pid)) == text else None
    except psutil.Error:
        return None


def _identity(pid: int) -> str:
    """A process, told from others that had or will have its number."""
    return f"{pid} {psutil.Process(pid).create_time():.2f}"
