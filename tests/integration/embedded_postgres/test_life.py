"""The embedded server is started, stopped, found again and destroyed."""

from __future__ import annotations

from pathlib import Path

import psutil
import psycopg2.errors
import pytest

from backend.db_connector import DatabaseConnector
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from tests.integration.embedded_servers import is_dead, postmaster_pid, query
from tests.waiting import eventually

pytestmark = pytest.mark.integration


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

    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("PGHOSTADDR", "127.0.0.77"),
            ("PGSSLMODE", "verify-full"),
            ("PGCHANNELBINDING", "require"),
        ],
    )
    def test_what_is_said_of_somebodys_own_server_is_not_about_this_one(
        self,
        server: EmbeddedPostgres,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
        value: str,
    ) -> None:
        monkeypatch.setenv(variable, value)
        other = EmbeddedPostgres(server.home.parent, dbname="beside")
        other.ensure_started()
        found = DatabaseConnector(other.dsn()).fetch("SELECT current_database() AS name")
        assert found == [{"name": "beside"}]

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

    def test_the_log_of_a_running_server_is_put_aside_and_goes_on(
        self, server: EmbeddedPostgres
    ) -> None:
        server.bound_log()
        assert not server.log_path.with_suffix(".log.1").exists()
        with server.log_path.open("ab") as stream:
            stream.truncate(5 * 1024 * 1024)
        server.bound_log()
        assert server.log_path.stat().st_size < 1024 * 1024
        assert server.log_path.with_suffix(".log.1").stat().st_size == 5 * 1024 * 1024
        with pytest.raises(psycopg2.errors.UndefinedTable):
            query(server, "SELECT * FROM there_is_none")
        eventually(lambda: "there_is_none" in server.log_path.read_text(), "it logs on")
        assert server.log_path.stat().st_size < 1024 * 1024

    def test_destroy_leaves_neither_file_nor_process(self, open_dir: Path) -> None:
        server = EmbeddedPostgres(open_dir)
        server.ensure_started()
        process = psutil.Process(postmaster_pid(server))
        server.destroy()
        assert list(open_dir.iterdir()) == []
        assert is_dead(process)
        assert not server.is_running()
