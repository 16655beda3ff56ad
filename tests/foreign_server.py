"""A PostgreSQL server that is nobody's but its owner's, as users have them: any version, own rules.

In place of ``EmbeddedPostgres`` where a test wants a server that the product did not make: without
pg_stat_statements, with TLS, as a stand-by, or of a version that the wheel has not.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union

import psycopg2
from sqlalchemy.engine import URL

from backend.embedded.account import ServerAccount, choose_account
from backend.embedded.binaries import parse_version
from backend.embedded.place import free_port
from backend.embedded_postgres import EmbeddedPostgres

TIMEOUT_S = 120
PASSWORD = "owner's-pass"
STATEMENTS = "pg_stat_statements"


@dataclass(frozen=True)
class Roles:
    """Who connects besides the owner, all with one password; none of them is a superuser.

    Adviser, tuner and explorer are what ``run.py grants`` prints, the client owns the databases.
    """

    adviser: str
    tuner: str
    explorer: str
    client: str
    password: str


class ForeignServer:
    """A running server with an owner ``boss`` (a superuser) and a database ``shop``.

    Args:
        bin_dir: PostgreSQL's programs.
        folder: an empty folder that is the server's alone.
        settings: more lines of postgresql.conf.
        copy_of: make it a stand-by of this server.
    """

    host = "127.0.0.1"
    user = "boss"
    password = PASSWORD
    dbname = "shop"

    def __init__(
        self,
        bin_dir: Path,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        copy_of: ForeignServer | None = None,
    ) -> None:
        self.bin_dir = bin_dir
        self._account: ServerAccount = replace(
            choose_account(), environment={"LD_LIBRARY_PATH": str(bin_dir.parent / "lib")}
        )
        self._folder, self.cluster_dir = folder, folder / "cluster"
        self.port = free_port()
        self.roles: Roles | None = None
        if self._account.switch:
            shutil.chown(folder, self._account.uid, self._account.gid)
        self.has_statements = any(bin_dir.parent.glob(f"**/{STATEMENTS}.so"))
        self._settings, self._copy_of = dict(settings or {}), copy_of
        told = self._account.run([bin_dir / "postgres", "--version"], timeout_s=TIMEOUT_S)
        self.version = parse_version(told.stdout) or 0

    def make(self) -> None:
        """Create the cluster and start the server."""
        if self._copy_of is None:
            self._create(self._settings)
        else:
            self._copy(self._copy_of)

    def dsn(self, dbname: str | None = None) -> URL:
        """The address of a database as its owner, password included."""
        return URL.create(
            "postgresql+psycopg2", self.user, self.password, self.host, self.port,
            dbname or self.dbname,
        )  # fmt: skip

    def run(self, *statements: str, dbname: str | None = None) -> list[tuple[object, ...]]:
        """Run statements as the owner; the rows of the last one."""
        connection = psycopg2.connect(
            **self.dsn(dbname).translate_connect_args(username="user"), connect_timeout=10
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def configure(self, lines: str) -> None:
        """Add lines to postgresql.conf; they count from the next start or reload."""
        with (self.cluster_dir / "postgresql.conf").open("a") as stream:
            stream.write(f"{lines}\n")

    def give(self, name: str, text: str) -> Path:
        """Put a file of the server's own into its cluster (a key, a certificate)."""
        path = self.cluster_dir / name
        path.write_text(text)
        path.chmod(0o600)
        if self._account.switch:
            shutil.chown(path, self._account.uid, self._account.gid)
        return path

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._ctl("start", "-l", str(self._folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """Stop, and wait for it."""
        self._ctl("stop", "-m", mode)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def _ctl(self, what: str, *words: str) -> None:
        self._run("pg_ctl", what, "-w", "-t", str(TIMEOUT_S), "-D", str(self.cluster_dir), *words)

    def _create(self, settings: dict[str, str]) -> None:
        password = self._folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        self._run(
            "initdb", f"--pgdata={self.cluster_dir}", f"--username={self.user}",
            f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
            "--no-sync", "--data-checksums",
        )  # fmt: skip
        settings = {"fsync": "off", "track_io_timing": "on", **settings}
        if self.has_statements:
            settings.setdefault("shared_preload_libraries", STATEMENTS)
        self.configure("\n".join(f"{name} = '{value}'" for name, value in settings.items()))
        self.start()
        self.run(f"CREATE DATABASE {self.dbname}", dbname="postgres")
        if settings.get("shared_preload_libraries"):
            self.run(f"CREATE EXTENSION {STATEMENTS}")

    def _copy(self, other: ForeignServer) -> None:
        self._account.environment["PGPASSWORD"] = other.password
        self._run(
            "pg_basebackup", f"--pgdata={self.cluster_dir}", f"--host={other.host}",
            f"--port={other.port}", f"--username={other.user}", "--write-recovery-conf",
            "--checkpoint=fast", "--no-sync",
        )  # fmt: skip
        self.start()

    def _run(self, program: str, *words: str) -> None:
        done = self._account.run([self.bin_dir / program, *words], timeout_s=TIMEOUT_S)
        if done.returncode:
            log = self._folder / "log"
            told = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stderr}\n{told}")


AnyServer = Union[EmbeddedPostgres, ForeignServer]
EVERY_SERVER = (
    "embedded_server",
    "least_server",
    "server_14",
    "server_16",
    "server_18",
)
"""The fixtures of a started server, of each kind and version."""


def has_statements(server: AnyServer) -> bool:
    """Whether the server has pg_stat_statements."""
    return isinstance(server, EmbeddedPostgres) or server.has_statements


def tuner_dsn(server: AnyServer, dbname: str | None = None) -> URL:
    """The address as the tuner's role: the owner's, where there are no roles."""
    roles = roles_of(server)
    return _as_role(server, dbname, roles.tuner if roles else None)


def adviser_dsn(server: AnyServer, dbname: str | None = None) -> URL:
    """The address as a role that may look and advise: the owner's, where there are no roles."""
    roles = roles_of(server)
    return _as_role(server, dbname, roles.adviser if roles else None)


def client_dsn(server: AnyServer, dbname: str | None = None) -> URL:
    """The address as an application's role: the owner's, where there are no roles."""
    roles = roles_of(server)
    return _as_role(server, dbname, roles.client if roles else None)


def explorer_dsn(server: AnyServer, dbname: str | None = None) -> URL:
    """The address as the role under which statements are tried."""
    if isinstance(server, EmbeddedPostgres):
        return server.explorer_dsn(dbname)
    assert server.roles is not None, "this server has an owner and nobody else"
    return _as_role(server, dbname, server.roles.explorer)


def roles_of(server: AnyServer) -> Roles | None:
    """Who connects to a server on which the product is no superuser; None elsewhere."""
    return server.roles if isinstance(server, ForeignServer) else None


def _as_role(server: AnyServer, dbname: str | None, role: str | None) -> URL:
    address, roles = server.dsn(dbname), roles_of(server)
    if role is None or roles is None:
        return address
    return address.set(username=role, password=roles.password)


@contextmanager
def foreign_server(
    bin_dir: Path,
    settings: Mapping[str, str] | None = None,
    copy_of: ForeignServer | None = None,
) -> Iterator[ForeignServer]:
    """A server in a folder of its own; stopped and removed in the end."""
    with tempfile.TemporaryDirectory(prefix="autopilot-foreign-") as name:
        outer = Path(name)
        outer.chmod(0o755)
        folder = outer / "server"
        folder.mkdir(mode=0o700)
        server = ForeignServer(bin_dir, folder, settings, copy_of)
        try:
            server.make()
            yield server
        finally:
            with suppress(RuntimeError):  # it may not run
                server.stop("immediate")
