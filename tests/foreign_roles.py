"""Roles on servers that the product did not make: by the printed grants, and gone again."""

from __future__ import annotations

import subprocess

from sqlalchemy.engine import URL

from backend.commands.grants import grant_script
from backend.config import Settings
from backend.db_connector import DatabaseConnector, quoted_identifier
from tests.foreign_server import ForeignServer

ROLE = "o'ne\"ill; \\! x"
ROLE_PASSWORD = "tuner's pass"


def settings_for(server: ForeignServer, role: str = ROLE, **sections: object) -> Settings:
    """Settings for a server, as a role."""
    database = {
        "host": server.host,
        "port": server.port,
        "user": role,
        "password": ROLE_PASSWORD,
        "dbname": server.dbname,
    }
    return Settings.model_validate({"database": database, **sections})


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


def make_role(server: ForeignServer, settings: Settings, mode: str, role: str = ROLE) -> None:
    """Make a role by the printed script and nothing else, twice: what is there stays."""
    script = grant_script(settings, mode=mode, role=role, server_version=server.version)
    psql(server, script)
    psql(server, script)
    password = ROLE_PASSWORD.replace("'", "''")
    server.run(f"ALTER ROLE {quoted_identifier(role)} PASSWORD '{password}'")


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
