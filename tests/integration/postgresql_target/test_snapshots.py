"""Snapshots of real servers: the application's work alone, and the windows between."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
import pytest

from backend.catalog.metrics import postgresql_metrics
from backend.data_collector import DataCollector, why_no_window, window_between
from backend.db_connector import DatabaseConnector
from backend.embedded_postgres import EmbeddedPostgres
from backend.targets.postgresql import PostgresTarget
from tests.foreign_server import AnyServer, explorer_dsn, has_statements
from tests.waiting import eventually, set_and_wait

pytestmark = pytest.mark.integration

MARK = "autopilot_test_marker"


def test_a_snapshot_holds_what_the_catalogue_offers(target: PostgresTarget) -> None:
    snapshot = target.snapshot()
    assert target.metric_failures == {}
    version = target.describe().version
    metrics = postgresql_metrics().metrics
    for name, metric in metrics.items():
        if metric.at(version) is None or name == "checksum_failures":  # absent without checksums
            continue
        values = snapshot.counters if metric.kind == "counter" else snapshot.gauges
        assert name in values, name
        assert values[name] >= 0, name
    assert snapshot.taken_at.utcoffset() is not None
    assert snapshot.server_started_at < snapshot.taken_at
    assert snapshot.gauges["connections_max"] >= snapshot.gauges["connections_total"]
    assert snapshot.gauges["database_size_bytes"] > 1e6


@pytest.mark.usefixtures("statements")
def test_query_classes_are_the_applications_alone(target: PostgresTarget, application: Any) -> None:
    # What other tests ran on this server may leave no room for a statement that ran once.
    application.execute("SELECT pg_stat_statements_reset()")
    application.execute("BEGIN")
    application.execute("SET LOCAL work_mem = '5MB'")
    application.execute(f"SELECT 17 AS {MARK}")
    application.execute("COMMIT")
    application.execute("VACUUM pg_class")
    application.execute("ALTER ROLE CURRENT_USER SET lock_timeout = '1s'")
    application.execute("ALTER ROLE CURRENT_USER RESET lock_timeout")
    for _ in range(2):  # our own statements appear in the statistics after they ran
        snapshot = target.snapshot()
    texts = target.query_texts(list(snapshot.queries))
    assert set(texts) == set(snapshot.queries)
    mine = [key for key, text in texts.items() if MARK in text]
    assert len(mine) == 1
    assert "17" not in texts[mine[0]]
    for text in texts.values():
        assert "autopilot */" not in text
        assert not text.upper().startswith(("BEGIN", "COMMIT", "SET", "VACUUM", "ALTER"))


def test_what_the_explorers_role_runs_is_no_query_class(
    server: AnyServer, target: PostgresTarget
) -> None:
    if not isinstance(server, EmbeddedPostgres) and server.roles is None:
        pytest.skip("this server has no role but its owner's")
    before = target.snapshot().gauges["connections_total"]
    explorer = psycopg2.connect(
        **explorer_dsn(server).translate_connect_args(username="user"),
        application_name="autopilot_explorer",
    )
    with closing(explorer), explorer.cursor() as cursor:
        cursor.execute(f"SELECT 1 AS {MARK}_on_trial")
        snapshot = target.snapshot()
    assert snapshot.gauges["connections_total"] == before
    texts = target.query_texts(list(snapshot.queries))
    assert not [text for text in texts.values() if f"{MARK}_on_trial" in text]


@pytest.mark.usefixtures("statements")
def test_nothing_of_ours_is_left_untagged(target: PostgresTarget, application: Any) -> None:
    application.execute("SELECT pg_stat_statements_reset()")
    target.describe()
    target.snapshot()
    target.read_knobs(["work_mem"])
    target.config_file_errors()
    target.write_entries({"work_mem": 4321})
    target.reload()
    target.hold_tuner_lock()
    target.write_entries({"work_mem": None})
    application.execute(
        "SELECT query FROM pg_stat_statements WHERE query NOT LIKE '%autopilot */%'"
        " AND query NOT LIKE '%pg_stat_statements%' AND queryid IS NOT NULL"
    )
    assert application.fetchall() == []


def test_a_window_of_a_server_without_statement_statistics(
    server: AnyServer, target: PostgresTarget, application: Any
) -> None:
    if has_statements(server):
        pytest.skip("this server has them")
    collector = DataCollector(target, None)
    first = collector.collect()
    application.execute("SELECT count(*) FROM generate_series(1, 1000)")
    window = window_between(first, collector.collect())
    assert window is not None
    assert (window.queries, target.query_texts([])) == ({}, {})
    assert window.gauges["connections_total"] > 0


@pytest.mark.usefixtures("statements")
def test_a_window_shows_the_work_between(
    server: AnyServer, target: PostgresTarget, application: Any
) -> None:
    sampler = target.host_sampler()
    assert sampler is not None
    collector = DataCollector(target, sampler)
    first = collector.collect()
    for number in range(20):
        application.execute(
            f"SELECT count(*) AS {MARK}_work FROM generate_series(1, %s)", (number,)
        )
    application.execute("CREATE TABLE autopilot_growth AS SELECT generate_series(1, 20000) AS n")
    application.execute("DROP TABLE autopilot_growth")
    application.execute("SELECT pg_stat_force_next_flush()")  # else within seconds
    second = collector.collect()
    assert why_no_window(first, second) is None
    window = window_between(first, second)
    assert window is not None
    texts = target.query_texts(list(window.queries))
    work = next(q for k, q in window.queries.items() if f"{MARK}_work" in texts[k])
    assert (work.calls, work.rows) == (20, 20)
    assert work.exec_time_ms > 0
    assert window.rates["wal_bytes"] * window.duration_s > 20000
    assert window.gauges["host_cpu_percent"] >= 0
    assert window.gauges["host_memory_percent"] > 0
    assert window.gauges["query_mean_ms"] > 0
    assert "server_cpu_s" in window.rates


def test_sessions_are_counted_by_state(target: PostgresTarget, application: Any) -> None:
    before = target.snapshot().gauges
    application.execute("BEGIN")
    application.execute("SELECT 1")
    during = target.snapshot().gauges
    application.execute("ROLLBACK")
    name = "connections_idle_in_transaction"
    assert during[name] == before[name] + 1
    assert during["longest_transaction_s"] > 0
    assert during["connections_active"] == before["connections_active"]  # ours do not count


@pytest.mark.usefixtures("statements")
def test_a_reset_and_a_reload_break_the_window(target: PostgresTarget, application: Any) -> None:
    first = target.snapshot()
    application.execute("SELECT pg_stat_statements_reset()")
    second = target.snapshot()
    assert "reset" in (why_no_window(first, second) or "")
    target.reload()
    eventually(lambda: target.snapshot().config_loaded_at != second.config_loaded_at, "the reload")
    assert "reloaded" in (why_no_window(second, target.snapshot()) or "")


def test_knobs_under_trial_do_not_slow_or_show_in_our_session(
    server: AnyServer, target: PostgresTarget
) -> None:
    # With jit_above_cost = 0 the server would compile every little statement of ours.
    set_and_wait(target, "jit_above_cost", 0.0)
    target.snapshot()
    assert target._observer.fetch("SELECT current_setting('jit') AS jit")[0]["jit"] == "off"
    reading = target.read_knobs(["jit", "max_parallel_workers_per_gather"])
    assert all(knob.override is None for knob in reading.values())


def test_a_source_that_fails_leaves_the_others_alone(
    server: AnyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = PostgresTarget(DatabaseConnector(server.dsn()))
    fetch = DatabaseConnector.fetch_tuples

    def failing(self: DatabaseConnector, statement: Any, params: Any = None) -> Any:
        if "pg_stat_wal" in str(statement):
            statement = "SELECT nothing FROM pg_stat_wal"
        return fetch(self, statement, params)

    monkeypatch.setattr(DatabaseConnector, "fetch_tuples", failing)
    # Before 15 a process of its own gathers the statistics, and a fresh server has none yet.
    eventually(lambda: target.snapshot().counters["xact_commit"] > 0, "commits are counted")
    assert "nothing" in target.metric_failures["wal"]
    assert "wal_bytes" not in target.snapshot().counters
    target.close()


def test_an_object_that_poses_as_the_servers_is_not_read(
    target: PostgresTarget, application: Any
) -> None:
    application.execute("CREATE TABLE public.pg_stat_wal AS SELECT 7 AS wal_bytes")
    try:
        eventually(lambda: target.snapshot().counters["wal_bytes"] not in (0, 7), "WAL is counted")
        assert target.snapshot().counters["wal_bytes"] > 7
    finally:
        application.execute("DROP TABLE public.pg_stat_wal")
