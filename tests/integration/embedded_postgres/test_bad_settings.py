"""The embedded server falls back to the last settings that let it start."""

from __future__ import annotations

import shutil
import stat

import pytest

from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import EmbeddedServerError
from tests.integration.embedded_servers import query

pytestmark = pytest.mark.integration


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

    def test_what_was_in_force_without_a_restart_stays(self, server: EmbeddedPostgres) -> None:
        """The last good start may be long ago: what was set since then ran."""
        query(server, "ALTER SYSTEM SET work_mem = '17MB'")
        server.restart()
        query(server, "ALTER SYSTEM SET work_mem = '18MB'")
        query(server, "ALTER SYSTEM SET jit = off")
        query(server, self.BAD)
        server.stop()
        assert server.start_or_recover() == ["wal_level"]
        assert query(server, "SHOW work_mem") == [("18MB",)]
        assert query(server, "SHOW jit") == [("off",)]

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
