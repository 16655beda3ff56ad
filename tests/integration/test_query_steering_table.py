"""The plug-in on a real server: whose settings win, which arm runs, tables that change."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, event, exc, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from backend.steering.client import ClassTimings
from tests.foreign_server import AnyServer, client_dsn
from tests.integration.steering_servers import owner
from tests.query_steering import (
    DIVIDE,
    DIVIDE_ENTRY,
    LOOK,
    LOOK_ENTRY,
    LOOK_SQL,
    OTHER,
    OTHER_ENTRY,
    Injected,
    Sent,
    autocommit,
    entry_for,
    look,
    shown,
    steered_engine,
    steering,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def url(server: AnyServer) -> URL:
    return client_dsn(server)


# -- settings of the application's own ----------------------------------------------------------


def test_a_setting_of_the_session_is_not_overridden(steered: tuple[Engine, Sent]) -> None:
    with steered[0].connect() as connection:
        connection.execute(text("SET work_mem = '9MB'"))
        connection.commit()
        assert look(connection) == "9MB"
        assert shown(connection) == "9MB"
        connection.commit()
        assert shown(connection) == "9MB"
        connection.execute(text("RESET work_mem"))
        assert look(connection) == "64MB"


def test_a_setting_of_the_session_that_equals_the_steered_one_survives(
    steered: tuple[Engine, Sent],
) -> None:
    with steered[0].begin() as connection:
        connection.execute(text("SET LOCAL work_mem = '64MB'"))
        assert look(connection) == "64MB"
        assert shown(connection) == "64MB"


def test_a_setting_made_where_nobody_looks_is_not_overridden(url: URL) -> None:
    with steered_engine(url, LOOK_ENTRY) as (engine, _):

        @event.listens_for(engine, "connect")
        def set_up(session: Any, _record: Any) -> None:
            with session.cursor() as cursor:
                cursor.execute("SET work_mem = '9MB'")
            session.commit()

        engine.dispose()
        with engine.connect() as connection:
            assert look(connection) == "9MB"
            assert shown(connection) == "9MB"


def test_settings_made_after_a_steered_statement_stay(steered: tuple[Engine, Sent]) -> None:
    with steered[0].connect() as connection:
        look(connection)
        connection.execute(text("SET LOCAL work_mem = '9MB'"))
        assert shown(connection) == "9MB"
        connection.commit()
        look(connection)
        connection.execute(text("SET work_mem = '8MB'"))
        connection.commit()
        assert shown(connection) == "8MB"


def test_another_search_path_is_another_statement(steered: tuple[Engine, Sent]) -> None:
    with steered[0].begin() as connection:
        connection.execute(text("SET LOCAL search_path = steered, public"))
        assert look(connection) == "4MB"
        connection.execute(text("SET LOCAL search_path TO DEFAULT"))
        assert look(connection) == "64MB"


# -- what the server would not have -------------------------------------------------------------


def test_a_class_whose_settings_the_server_refuses_is_given_up(
    server: AnyServer, url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    revoke = "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config FROM PUBLIC"
    with owner(server) as cursor:
        cursor.execute("CREATE ROLE modest LOGIN PASSWORD 'modest'")
        cursor.execute(revoke)
    try:
        modest = url.set(username="modest", password="modest")
        with steered_engine(modest, LOOK_ENTRY) as (engine, sent), engine.connect() as connection:
            with pytest.raises(exc.ProgrammingError, match="permission denied"):
                look(connection)
            connection.rollback()
            sent.clear()
            assert look(connection) == "4MB"
            assert sent == ["SELECT current_setting('work_mem') AS work_mem, %(x)s AS x"]
        assert "steered no more" in caplog.text
    finally:
        with owner(server) as cursor:
            cursor.execute(revoke.replace("REVOKE", "GRANT").replace("FROM", "TO"))
            cursor.execute("DROP ROLE modest")


def test_a_setting_that_the_server_does_not_know_is_not_sent(url: URL) -> None:
    entry = entry_for(
        "SELECT current_setting('work_mem') AS work_mem, $1 AS x",
        {"work_mem": "64MB"},
        {"work_mem": "4MB", "enable_sort": "on"},
    )
    # As if this server were older than the setting.
    object.__setattr__(entry, "under", {"work_mem": "4MB", "enable_time_travel": "on"})
    with steered_engine(url, entry) as (engine, _), engine.begin() as connection:
        assert look(connection) == "4MB"
        assert shown(connection) == "4MB"


# -- threads, pool, arms ------------------------------------------------------------------------


def test_threads_that_share_a_pool(url: URL) -> None:
    entries = (LOOK_ENTRY, OTHER_ENTRY, DIVIDE_ENTRY)
    options = {"poolclass": QueuePool, "pool_size": 3, "max_overflow": 0}
    ready = threading.Barrier(6)

    def work(number: int) -> int:
        ready.wait(30)
        done = 0
        for turn in range(40):
            with engine.connect() as connection:
                assert shown(connection) == "4MB"
                assert look(connection) == "64MB"
                if (turn + number) % 3 == 0:
                    with pytest.raises(exc.DataError):
                        connection.execute(DIVIDE, {"x": 0})
                    continue
                assert connection.execute(OTHER).one() == ("off", "4MB")
                done += 1
        return done

    with steered_engine(url, *entries, **options) as (engine, _), ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) > 100
        with engine.connect() as connection:
            assert shown(connection, "enable_sort") == "on"


def test_a_share_runs_the_default_plan_and_both_arms_are_timed(url: URL) -> None:
    noted: list[ClassTimings] = []
    options = {
        "query_steering_default_share": 0.25,
        "query_steering_seed": 7,
        "query_steering_report": noted.extend,
    }
    seen = []
    for _ in range(2):
        with steered_engine(url, LOOK_ENTRY, **options) as (engine, _):
            with autocommit(engine).connect() as connection:
                seen.append([look(connection) for _ in range(200)])
            steering(engine).report()
    assert seen[0] == seen[1]
    counted = {value: seen[0].count(value) for value in ("4MB", "64MB")}
    assert 25 <= counted["4MB"] <= 75
    assert counted["4MB"] + counted["64MB"] == 200
    first = {timings.arm: timings for timings in noted[:2]}
    assert first["default"].executions == counted["4MB"]
    assert first["steered"].executions == counted["64MB"]
    assert sum(first["steered"].buckets.values()) == counted["64MB"]
    assert 0 < first["default"].total_s < 60


def test_pin_always_steers_and_off_never(url: URL) -> None:
    for mode, value in (("pin", "64MB"), ("auto", "4MB"), ("off", "4MB")):
        entry = entry_for("SELECT current_setting('work_mem') AS work_mem, $1 AS x", mode=mode)
        options = {"query_steering_default_share": 1}
        with steered_engine(url, entry, **options) as (engine, _), engine.begin() as connection:
            assert look(connection) == value


def test_a_table_that_changes_in_the_middle_of_a_transaction(url: URL) -> None:
    source = Injected(LOOK_ENTRY)
    with steered_engine(url, source=source) as (engine, _), engine.begin() as connection:
        assert look(connection) == "64MB"
        source.table = Injected().table
        steering(engine).refresh()
        assert look(connection) == "4MB"
        assert shown(connection) == "4MB"
        source.table = Injected(entry_for(LOOK_SQL, {"work_mem": "32MB"})).table
        steering(engine).refresh()
        assert look(connection) == "32MB"
        source.table = Injected(entry_for(LOOK_SQL, {"work_mem": "16MB"})).table
        steering(engine).refresh()
        assert look(connection) == "16MB"
        assert shown(connection) == "4MB"


def test_comments_for_pg_hint_plan(url: URL) -> None:
    options = {
        "query_steering_comments": True,
        "query_steering_search_path": '"$user", public',
    }
    with steered_engine(url, LOOK_ENTRY, **options) as (engine, sent), engine.begin() as connection:
        # This server has no pg_hint_plan, so the comment is but a comment.
        assert connection.execute(LOOK, {"x": "100 %"}).one() == ("4MB", "100 %")
        streamed = connection.execute(LOOK, {"x": 1}, execution_options={"stream_results": True})
        assert streamed.all() == [("4MB", 1)]
    statement = "SELECT current_setting('work_mem') AS work_mem, %(x)s AS x"
    assert sent == [f"/*+ Set(work_mem 64MB) */ {statement}", statement]
