"""The PostgreSQL target on real servers: the bundled version and Debian's version 15."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from backend.catalog.metrics import postgresql_metrics
from backend.data_collector import DataCollector, why_no_window, window_between
from backend.db_connector import WATCHDOG_APPLICATION, DatabaseConnector
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import (
    KnobBoundsError,
    PrivilegeError,
    RefusedValueError,
    ServerConnectionError,
    ServerError,
    UnsupportedServerError,
)
from backend.protocols import TargetDatabase
from backend.targets.postgresql import PostgresTarget

pytestmark = pytest.mark.integration

MARK = "autopilot_test_marker"


@pytest.fixture(scope="session", params=["embedded_server", "debian_server"])
def server(request: pytest.FixtureRequest) -> EmbeddedPostgres:
    found: EmbeddedPostgres = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def target(server: EmbeddedPostgres) -> Iterator[PostgresTarget]:
    made = PostgresTarget(DatabaseConnector(server.dsn()))
    yield made
    made.write_entries({"work_mem": None, "jit_above_cost": None, "random_page_cost": None})
    made.reload()
    made.close()


@pytest.fixture
def application(server: EmbeddedPostgres) -> Iterator[Any]:
    """A cursor of an ordinary client, under the same role as the tuner."""
    connection = psycopg2.connect(
        **server.dsn().translate_connect_args(username="user"), application_name="shop"
    )
    connection.autocommit = True
    yield connection.cursor()
    connection.close()


@pytest.fixture
def stranger(server: EmbeddedPostgres) -> Iterator[DatabaseConnector]:
    """A connector under a role that may do nothing special."""
    admin = DatabaseConnector(server.dsn())
    admin.execute("DROP ROLE IF EXISTS autopilot_stranger")
    admin.execute("CREATE ROLE autopilot_stranger LOGIN PASSWORD 'stranger-pw'")
    url = server.dsn().set(username="autopilot_stranger", password="stranger-pw")
    made = DatabaseConnector(url)
    yield made
    made.close()
    admin.execute("DROP OWNED BY autopilot_stranger")
    admin.execute("DROP ROLE autopilot_stranger")
    admin.close()


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.02)


def set_and_wait(target: PostgresTarget, name: str, value: Any) -> None:
    target.write_entries({name: value})
    target.reload()
    wait_for(lambda: target.read_knobs([name])[name].value == value, f"{name} = {value}")


# -- describe ---------------------------------------------------------------------------------


def test_describe(server: EmbeddedPostgres, target: PostgresTarget) -> None:
    assert isinstance(target, TargetDatabase)
    info = target.describe()
    assert info.kind == "postgresql"
    assert info.version == server.version
    assert info.server_id.isdigit()
    assert info.server_id == target.describe().server_id
    assert str(server.port) in info.address
    assert server.password not in repr(info)
    assert info.host.is_local
    assert info.host.memory_bytes > 0
    assert info.host.cpu_count > 0
    for capability in ("alter_system", "reload", "statement_statistics", "file_settings"):
        assert info.can(capability), info.missing
    assert not info.can("restart")
    assert "restart" in info.missing


def test_a_restarter_gives_the_capability(server: EmbeddedPostgres) -> None:
    target = PostgresTarget(DatabaseConnector(server.dsn()), restarter=server.restart)
    assert target.describe().can("restart")
    target.close()


def test_a_newer_version_is_only_observed(
    target: PostgresTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatabaseConnector, "server_version", 190000)
    info = target.describe()
    assert not info.can("alter_system")
    assert "observe only" in info.missing["alter_system"]


def test_a_role_without_privileges_is_told_what_it_lacks(
    stranger: DatabaseConnector, server: EmbeddedPostgres
) -> None:
    target = PostgresTarget(stranger)
    info = target.describe()
    for capability in ("alter_system", "reload", "read_all_stats", "file_settings", "terminate"):
        assert not info.can(capability)
        assert "autopilot_stranger" in info.missing[capability]
    with pytest.raises(PrivilegeError) as caught:
        target.write_entries({"work_mem": 5000})
    assert 'ON PARAMETER work_mem TO "autopilot_stranger"' in str(caught.value.remedy)
    with pytest.raises(PrivilegeError):
        target.reload()
    with pytest.raises(PrivilegeError):
        target.config_file_errors()
    assert target.read_knobs(["work_mem"])["work_mem"].value == 4096
    assert target.snapshot().counters["xact_commit"] > 0
    target.close()


def test_the_sql_that_is_named_grants_what_is_missing(
    stranger: DatabaseConnector, server: EmbeddedPostgres
) -> None:
    target = PostgresTarget(stranger)
    admin = DatabaseConnector(server.dsn())
    missing = target.describe().missing
    for capability in ("alter_system", "reload", "read_all_stats", "file_settings", "terminate"):
        for statement in missing[capability].partition("--")[0].split(";"):
            if statement.strip():
                admin.execute(statement.strip())
    admin.close()
    info = target.describe()
    for capability in ("alter_system", "reload", "read_all_stats", "file_settings", "terminate"):
        assert info.can(capability), capability
    set_and_wait(target, "work_mem", 5555)
    assert target.read_knobs(["work_mem"])["work_mem"].entry == "5555"
    target.write_entries({"work_mem": None})
    target.reload()
    target.close()


def test_what_could_not_be_undone_is_not_done(
    stranger: DatabaseConnector, server: EmbeddedPostgres
) -> None:
    admin = DatabaseConnector(server.dsn())
    admin.execute("GRANT SET, ALTER SYSTEM ON PARAMETER work_mem TO autopilot_stranger")
    admin.close()
    target = PostgresTarget(stranger)
    info = target.describe()
    target.close()
    assert not info.can("alter_system")
    assert "pg_file_settings" in info.missing["alter_system"]


def test_a_database_without_the_extension(server: EmbeddedPostgres) -> None:
    target = PostgresTarget(DatabaseConnector(server.dsn(dbname="template1")))
    info = target.describe()
    assert not info.can("statement_statistics")
    assert "CREATE EXTENSION pg_stat_statements" in info.missing["statement_statistics"]
    snapshot = target.snapshot()
    assert snapshot.queries == {}
    assert snapshot.counters["wal_bytes"] > 0
    target.close()


# -- snapshots --------------------------------------------------------------------------------


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
    server: EmbeddedPostgres, target: PostgresTarget
) -> None:
    before = target.snapshot().gauges["connections_total"]
    explorer = psycopg2.connect(
        **server.explorer_dsn().translate_connect_args(username="user"),
        application_name="autopilot_explorer",
    )
    with closing(explorer), explorer.cursor() as cursor:
        cursor.execute(f"SELECT 1 AS {MARK}_on_trial")
        snapshot = target.snapshot()
    assert snapshot.gauges["connections_total"] == before
    texts = target.query_texts(list(snapshot.queries))
    assert not [text for text in texts.values() if f"{MARK}_on_trial" in text]


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


def test_a_window_shows_the_work_between(
    server: EmbeddedPostgres, target: PostgresTarget, application: Any
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


def test_a_reset_and_a_reload_break_the_window(target: PostgresTarget, application: Any) -> None:
    first = target.snapshot()
    application.execute("SELECT pg_stat_statements_reset()")
    second = target.snapshot()
    assert "reset" in (why_no_window(first, second) or "")
    target.reload()
    wait_for(lambda: target.snapshot().config_loaded_at != second.config_loaded_at, "the reload")
    assert "reloaded" in (why_no_window(second, target.snapshot()) or "")


def test_knobs_under_trial_do_not_slow_or_show_in_our_session(
    server: EmbeddedPostgres, target: PostgresTarget
) -> None:
    # With jit_above_cost = 0 the server would compile every little statement of ours.
    set_and_wait(target, "jit_above_cost", 0.0)
    target.snapshot()
    assert target._observer.fetch("SELECT current_setting('jit') AS jit")[0]["jit"] == "off"
    reading = target.read_knobs(["jit", "max_parallel_workers_per_gather"])
    assert all(knob.override is None for knob in reading.values())


def test_a_source_that_fails_leaves_the_others_alone(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = PostgresTarget(DatabaseConnector(server.dsn()))
    fetch = DatabaseConnector.fetch_tuples

    def failing(self: DatabaseConnector, statement: Any, params: Any = None) -> Any:
        if "pg_stat_wal" in str(statement):
            statement = "SELECT nothing FROM pg_stat_wal"
        return fetch(self, statement, params)

    monkeypatch.setattr(DatabaseConnector, "fetch_tuples", failing)
    snapshot = target.snapshot()
    assert "nothing" in target.metric_failures["wal"]
    assert "wal_bytes" not in snapshot.counters
    assert snapshot.counters["xact_commit"] > 0
    target.close()


def test_an_object_that_poses_as_the_servers_is_not_read(
    target: PostgresTarget, application: Any
) -> None:
    application.execute("CREATE TABLE public.pg_stat_wal AS SELECT 7 AS wal_bytes")
    try:
        assert target.snapshot().counters["wal_bytes"] > 7
    finally:
        application.execute("DROP TABLE public.pg_stat_wal")


# -- settings ---------------------------------------------------------------------------------


def test_values_go_in_and_come_back_in_native_units(target: PostgresTarget) -> None:
    entries = {"work_mem": 8192, "random_page_cost": 1.25, "jit": False}
    try:
        target.write_entries(entries)
        target.reload()
        names = [*entries, "wal_compression", "no_such_knob"]
        wait_for(
            lambda: {n: target.read_knobs(names)[n].value for n in entries} == entries, "the values"
        )
        readings = target.read_knobs(names)
        assert set(readings) == {*entries, "wal_compression"}
        assert readings["work_mem"].entry == "8192"
        assert readings["work_mem"].source == "configuration file"
        assert readings["jit"].entry == "off"
        assert readings["jit"].value is False
        assert readings["wal_compression"].entry is None
        assert isinstance(readings["random_page_cost"].value, float)
    finally:
        target.write_entries(dict.fromkeys(entries))
        target.reload()
    wait_for(lambda: target.read_knobs(["work_mem"])["work_mem"].value == 4096, "the default")
    reading = target.read_knobs(["work_mem"])["work_mem"]
    assert (reading.source, reading.entry) == ("default", None)


def test_a_knob_that_waits_for_a_restart(server: EmbeddedPostgres, target: PostgresTarget) -> None:
    before = target.read_knobs(["max_locks_per_transaction"])["max_locks_per_transaction"]
    try:
        target.write_entries({"max_locks_per_transaction": 128})
        target.reload()
        wait_for(lambda: target.read_knobs([before.name])[before.name].pending_restart, "the mark")
        reading = target.read_knobs([before.name])[before.name]
        assert (reading.value, reading.entry) == (before.value, "128")
    finally:
        target.write_entries({"max_locks_per_transaction": None})
        target.reload()
    wait_for(
        lambda: not target.read_knobs([before.name])[before.name].pending_restart, "its removal"
    )


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        ({"work_mem": 3}, RefusedValueError, "work_mem = 3 was refused: .*outside the valid range"),
        ({"no_such_knob": 3}, ServerError, "unrecognized configuration parameter"),
        ({"random_page_cost": float("nan")}, KnobBoundsError, "not a finite number"),
        ({"work_mem = 1; SELECT 1; --": 3}, ServerError, "was refused"),
        ({"log_line_prefix\"; SELECT '1": "x"}, ServerError, "was refused"),
    ],
)
def test_what_the_server_refuses(
    target: PostgresTarget, entries: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        target.write_entries(entries)


def test_a_string_stays_a_string(target: PostgresTarget) -> None:
    hostile = "x'; DROP TABLE y; -- \\ \" $1 %s"
    try:
        target.write_entries({"log_line_prefix": hostile})
        target.reload()
        wait_for(
            lambda: target.read_knobs(["log_line_prefix"])["log_line_prefix"].value == hostile,
            "the prefix",
        )
        assert target.read_knobs(["log_line_prefix"])["log_line_prefix"].entry == hostile
    finally:
        target.write_entries({"log_line_prefix": None})
        target.reload()


def test_overrides_are_named(
    server: EmbeddedPostgres, target: PostgresTarget, application: Any
) -> None:
    application.execute(f"ALTER DATABASE {server.dbname} SET random_page_cost = 2.5")
    application.execute(f"ALTER ROLE {server.user} SET effective_cache_size = '1GB'")
    try:
        fresh = PostgresTarget(DatabaseConnector(server.dsn()))
        readings = fresh.read_knobs(["random_page_cost", "effective_cache_size", "work_mem"])
        fresh.close()
        assert readings["random_page_cost"].value == 2.5
        assert "database" in (readings["random_page_cost"].override or "")
        assert "role" in (readings["effective_cache_size"].override or "")
        assert readings["work_mem"].override is None
        # A session that began before still sees what will win over an entry.
        assert target.read_knobs(["random_page_cost"])["random_page_cost"].override
    finally:
        application.execute(f"ALTER DATABASE {server.dbname} RESET random_page_cost")
        application.execute(f"ALTER ROLE {server.user} RESET effective_cache_size")


def test_errors_in_the_files_are_told(server: EmbeddedPostgres, target: PostgresTarget) -> None:
    assert target.config_file_errors() == []
    path = server.cluster_dir / "postgresql.auto.conf"
    before = path.read_text()
    try:
        path.write_text(before + "work_mem = 'many'\n")
        errors = target.config_file_errors()
    finally:
        path.write_text(before)
    assert len(errors) == 1
    assert "work_mem" in errors[0]
    assert "postgresql.auto.conf" in errors[0]


# -- sessions, lock, restart ------------------------------------------------------------------


def test_one_tuner_at_a_time(server: EmbeddedPostgres) -> None:
    first = PostgresTarget(DatabaseConnector(server.dsn()))
    second = PostgresTarget(DatabaseConnector(server.dsn(dbname="template1")))
    assert first.hold_tuner_lock()
    assert first.hold_tuner_lock()
    assert not second.hold_tuner_lock()
    first.close()
    wait_for(second.hold_tuner_lock, "the release of the lock")
    second.close()


def test_the_watchdog_ends_the_tuners_sessions_and_the_tuner_notices(
    server: EmbeddedPostgres, application: Any
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
    wait_for(other.hold_tuner_lock, "the release of the lock")
    assert not tuner.hold_tuner_lock()
    other.close()
    wait_for(tuner.hold_tuner_lock, "the release of the lock")
    assert watchdog.end_tuner_sessions() >= 1
    assert watchdog.end_tuner_sessions() in (0, 1)  # the last one may still be on its way out
    for target in (tuner, watchdog):
        target.close()


def test_a_tuner_does_not_end_itself(server: EmbeddedPostgres) -> None:
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


def test_a_restart_takes_restart_knobs_and_breaks_windows(server: EmbeddedPostgres) -> None:
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
