"""What the embedded server is: its version, settings, passwords and address."""

from __future__ import annotations

import os
import stat

import psutil
import psycopg2
import pytest

from backend.embedded.postmaster import cluster_name
from backend.embedded_postgres import EmbeddedPostgres
from tests.integration.embedded_servers import connect, postmaster_pid, query

pytestmark = pytest.mark.integration


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
