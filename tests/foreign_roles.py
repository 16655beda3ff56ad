"""Roles on servers that the product did not make: by the printed grants, and gone again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

from sqlalchemy.engine import URL

from backend.commands.grants import grant_script
from backend.config import Settings
from backend.db_connector import EXPLORER_ROLE, DatabaseConnector, quoted_identifier
from tests.foreign_server import (
    AnyServer,
    ForeignServer,
    Roles,
    explorer_dsn,
    roles_of,
    tuner_dsn,
)

ROLE = "o'ne\"ill; \\! x"
ROLE_PASSWORD = "tuner's pass"
ADVISER, CLIENT = "adviser", "shop_app"


def settings_for(
    server: ForeignServer, role: str = ROLE, dbname: str | None = None, **sections: object
) -> Settings:
    """Settings for a database of a server, as a role."""
    database = database_section(server, role, dbname)
    return Settings.model_validate({"database": database, **sections})


def database_section(
    server: ForeignServer, role: str = ROLE, dbname: str | None = None
) -> dict[str, object]:
    """The section ``database`` of such settings."""
    return {
        "host": server.host,
        "port": server.port,
        "user": role,
        "password": ROLE_PASSWORD,
        "dbname": dbname or server.dbname,
    }


def psql(server: ForeignServer, script: str, dbname: str | None = None) -> str:
    """Run a script as the server's owner, as users do; what psql said on its error stream."""
    address = server.dsn(dbname)
    done = subprocess.run(
        [
            server.bin_dir / "psql", "--no-psqlrc", "--quiet", "--host", server.host,
            "--port", str(server.port), "--username", server.user, "--dbname", address.database,
        ],
        input=script,
        env={"PGPASSWORD": server.password, "LD_LIBRARY_PATH": str(server.bin_dir.parent / "lib")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def make_role(
    server: ForeignServer,
    settings: Settings,
    mode: str,
    role: str = ROLE,
    *,
    explorer: bool = False,
) -> None:
    """Make a role by the printed script and nothing else, twice: what is there stays.

    With ``explorer``, the explorer's role too.
    """
    script = grant_script(
        settings, mode=mode, role=role, server_version=server.version, explorer=explorer
    )
    database = settings.database.dbname
    psql(server, script, database)
    psql(server, script, database)
    for name in (role, EXPLORER_ROLE) if explorer else (role,):
        set_password(server, name)


def set_password(server: ForeignServer, role: str) -> None:
    """Give a role the password of all roles here."""
    password = ROLE_PASSWORD.replace("'", "''")
    server.run(f"ALTER ROLE {quoted_identifier(role)} PASSWORD '{password}'")


def make_roles(server: ForeignServer) -> None:
    """An adviser, a tuner and an explorer by the printed script, and an application's role."""
    server.run(f"CREATE ROLE {CLIENT} LOGIN")
    set_password(server, CLIENT)
    make_role(server, settings_for(server), "advise", role=ADVISER)
    make_role(server, settings_for(server), "auto", explorer=True)
    server.run(f"ALTER DATABASE {server.dbname} OWNER TO {CLIENT}")
    server.roles = Roles(ADVISER, ROLE, EXPLORER_ROLE, CLIENT, ROLE_PASSWORD)


@contextmanager
def own_database(server: AnyServer, name: str, copy_of: str = "template1") -> Iterator[None]:
    """A new database, of the application's where it has a role, with the grants for the product."""
    roles, quoted = roles_of(server), quoted_identifier(name)
    with closing(DatabaseConnector(server.dsn("postgres"))) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")
        owner = f" OWNER {CLIENT}" if roles else ""
        admin.execute(f"CREATE DATABASE {quoted} TEMPLATE {quoted_identifier(copy_of)}{owner}")
    if isinstance(server, ForeignServer) and roles:
        settings = settings_for(server, dbname=name)
        make_role(server, settings, "auto", explorer=True)
    try:
        yield
    finally:
        with closing(DatabaseConnector(server.dsn("postgres"))) as admin:
            admin.execute(f"DROP DATABASE {quoted} WITH (FORCE)")


def drop_role(server: ForeignServer, role: str = ROLE) -> None:
    """Take a role and its grants away, where it is there."""
    name = quoted_identifier(role)
    there = server.run("SELECT 1 FROM pg_roles WHERE rolname = '" + role.replace("'", "''") + "'")
    if there:
        for database in ("postgres", server.dbname):
            server.run(f"DROP OWNED BY {name}", dbname=database)
        server.run(f"DROP ROLE {name}")


def address_of(server: ForeignServer, role: str, password: str = ROLE_PASSWORD) -> URL:
    """The server's address as this role."""
    return server.dsn().set(username=role, password=password)


def connector_of(server: ForeignServer, role: str = ROLE) -> DatabaseConnector:
    """A connector as this role."""
    return DatabaseConnector(address_of(server, role))


def environment_of(server: AnyServer, dbname: str | None = None) -> dict[str, str]:
    """What tells a command of the product of this server, and of who it is there."""

    def text(address: URL) -> str:
        return address.set(drivername="postgresql").render_as_string(hide_password=False)

    told = {"DATABASE_URL": text(tuner_dsn(server, dbname))}
    if roles_of(server):
        told["AUTOPILOT_STEERING__DSN"] = text(explorer_dsn(server, dbname))
    return told
