"""The embedded server after kills, lost files and taken ports."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import psutil
import psycopg2
import psycopg2.extensions
import pytest

from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from tests.integration.embedded_servers import (
    ENSURE_STARTED,
    connect,
    is_dead,
    kill_and_wait,
    postmaster_pid,
    python,
    query,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration


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
            eventually(lambda: backend.cpu_times().user > 0.02, "the backend to be busy")
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
            eventually(half.exists, "initdb is half-way", poll_s=0.005)
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


def psycopg2_wait(connection: psycopg2.extensions.connection) -> None:
    """Drive an asynchronous connection until it is ready."""
    eventually(lambda: connection.poll() == psycopg2.extensions.POLL_OK, "the connection")
