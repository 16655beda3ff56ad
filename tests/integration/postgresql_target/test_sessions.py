"""The tuner's sessions on real servers: its lock, their end, and restarts."""

from __future__ import annotations

from typing import Any

import pytest

from backend.data_collector import DataCollector, why_no_window
from backend.db_connector import WATCHDOG_APPLICATION, DatabaseConnector
from backend.errors import ServerConnectionError, UnsupportedServerError
from backend.targets.postgresql import PostgresTarget
from tests.foreign_server import AnyServer
from tests.waiting import eventually

pytestmark = pytest.mark.integration


def test_one_tuner_at_a_time(server: AnyServer) -> None:
    first = PostgresTarget(DatabaseConnector(server.dsn()))
    second = PostgresTarget(DatabaseConnector(server.dsn(dbname="template1")))
    assert first.hold_tuner_lock()
    assert first.hold_tuner_lock()
    assert not second.hold_tuner_lock()
    first.close()
    eventually(second.hold_tuner_lock, "the release of the lock")
    second.close()


def test_the_watchdog_ends_the_tuners_sessions_and_the_tuner_notices(
    server: AnyServer, application: Any
) -> None:
    tuner = PostgresTarget(DatabaseConnector(server.dsn()))
    other = PostgresTarget(DatabaseConnector(server.dsn()))
    watchdog = PostgresTarget(
        DatabaseConnector(server.dsn(), application_name=WATCHDOG_APPLICATION)
    )
    tuner.read_knobs(["work_mem"])
    tuner.snapshot()
    assert tuner.hold_tuner_lock()
    assert watchdog.end_tuner_sessions() == 3
    application.execute("SELECT 1")  # others are left alone
    with pytest.raises(ServerConnectionError):
        tuner.write_entries({"work_mem": 4096})
    eventually(other.hold_tuner_lock, "the release of the lock")
    assert not tuner.hold_tuner_lock()
    other.close()
    eventually(tuner.hold_tuner_lock, "the release of the lock")
    assert watchdog.end_tuner_sessions() >= 1
    assert watchdog.end_tuner_sessions() in (0, 1)  # the last one may still be on its way out
    for target in (tuner, watchdog):
        target.close()


def test_a_tuner_does_not_end_itself(server: AnyServer) -> None:
    tuner = PostgresTarget(DatabaseConnector(server.dsn()))
    tuner.snapshot()
    assert tuner.hold_tuner_lock()
    tuner.end_tuner_sessions()
    assert tuner.hold_tuner_lock()
    pid = tuner._lock.session_pid
    assert tuner.hold_tuner_lock()
    assert tuner._lock.session_pid == pid
    tuner.close()


def test_restarts_are_only_where_they_are_allowed(target: PostgresTarget) -> None:
    with pytest.raises(UnsupportedServerError, match="may not be restarted"):
        target.restart()


def test_a_restart_takes_restart_knobs_and_breaks_windows(server: AnyServer) -> None:
    target = PostgresTarget(DatabaseConnector(server.dsn()), restarter=server.restart)
    assert target.hold_tuner_lock()
    sampler = target.host_sampler()
    assert sampler is not None
    collector = DataCollector(target, sampler)
    first = collector.collect()
    try:
        target.write_entries({"max_locks_per_transaction": 100})
        target.restart()
        reading = target.read_knobs(["max_locks_per_transaction"])["max_locks_per_transaction"]
        assert (reading.value, reading.pending_restart) == (100, False)
        assert target.hold_tuner_lock()
        second = collector.collect()
        assert "restarted" in (why_no_window(first, second) or "")
        assert "server_cpu_s" in second.counters
        assert target.describe().server_id
    finally:
        target.write_entries({"max_locks_per_transaction": None})
        target.restart()
        target.close()
