"""The plug-in on a real server: what a steered statement sees, and that nobody else sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2.extensions
import psycopg2.extras
import pytest
from sqlalchemy import Engine, TextClause, exc, text
from sqlalchemy.engine import URL

from backend.steering.client import ClassTimings
from tests.foreign_server import AnyServer, client_dsn
from tests.query_steering import (
    DIVIDE,
    DIVIDE_ENTRY,
    LOOK,
    LOOK_ENTRY,
    OTHER,
    Sent,
    autocommit,
    entry_for,
    everything_set,
    look,
    shown,
    steered_engine,
    steering,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def url(server: AnyServer) -> URL:
    return client_dsn(server)


# -- transactions -------------------------------------------------------------------------------


def test_only_the_steered_statement_of_a_transaction_sees_its_settings(
    steered: tuple[Engine, Sent],
) -> None:
    engine, sent = steered
    with engine.begin() as connection:
        assert shown(connection) == "4MB"
        assert look(connection) == "64MB"
        assert shown(connection) == "4MB"
        assert shown(connection) == "4MB"
        assert look(connection) == "64MB"
    # One text for each statement of the application: settings and their undoing travel along.
    assert [statement.count(";\n") for statement in sent] == [0, 1, 1, 0, 1]
    assert all(statement.endswith("SHOW work_mem") for statement in sent if "SHOW" in statement)


def test_the_settings_of_one_class_make_way_for_those_of_the_next(
    steered: tuple[Engine, Sent],
) -> None:
    engine, _ = steered
    with engine.begin() as connection:
        assert look(connection) == "64MB"
        assert connection.execute(OTHER).one() == ("off", "4MB")
        assert look(connection) == "64MB"
        assert shown(connection, "enable_sort") == "on"


def test_where_the_same_settings_are_in_force_nothing_is_sent(
    steered: tuple[Engine, Sent],
) -> None:
    engine, sent = steered
    with engine.begin() as connection:
        assert [look(connection) for _ in range(3)] == ["64MB"] * 3
        assert shown(connection) == "4MB"
    assert [statement.count(";\n") for statement in sent] == [1, 0, 0, 1]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_the_end_of_a_transaction_ends_the_settings(steered: tuple[Engine, Sent], end: str) -> None:
    engine, sent = steered
    with engine.connect() as connection:
        assert look(connection) == "64MB"
        getattr(connection, end)()
        sent.clear()
        assert shown(connection) == "4MB"
        assert sent == ["SHOW work_mem"]


def test_a_session_is_left_as_it_was_found(steered: tuple[Engine, Sent]) -> None:
    engine, _ = steered
    with engine.connect() as connection:
        before = everything_set(connection)
        connection.rollback()
        for _ in range(2):
            look(connection)
            connection.execute(OTHER)
            connection.commit()
        after = everything_set(connection)
        assert {k: v for k, v in after.items() if before.get(k) != v} == {}
        marker = "SELECT coalesce(current_setting('query_steering.active', true), '')"
        assert connection.exec_driver_sql(marker).scalar_one() == ""


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE", "READ COMMITTED"])
def test_isolation_levels_and_read_only_transactions(
    steered: tuple[Engine, Sent], level: str
) -> None:
    options = {"isolation_level": level, "postgresql_readonly": True}
    with steered[0].connect().execution_options(**options) as connection:
        assert look(connection) == "64MB"
        assert shown(connection, "transaction_isolation") == level.lower()
        assert shown(connection, "transaction_read_only") == "on"
        assert look(connection) == "64MB"


def test_a_transaction_that_the_application_writes_itself(steered: tuple[Engine, Sent]) -> None:
    with autocommit(steered[0]).connect() as connection:
        connection.execute(text("BEGIN"))
        assert look(connection) == "64MB"
        assert shown(connection) == "4MB"
        look(connection)
        connection.execute(text("COMMIT"))
        assert shown(connection) == "4MB"


# -- autocommit ---------------------------------------------------------------------------------


def test_in_autocommit_the_settings_end_with_the_statement(steered: tuple[Engine, Sent]) -> None:
    engine, sent = steered
    with autocommit(engine).connect() as connection:
        before = everything_set(connection)
        result = connection.execute(LOOK, {"x": 7})
        assert (result.rowcount, list(result.keys())) == (1, ["work_mem", "x"])
        assert result.all() == [("64MB", 7)]
        sent.clear()
        assert shown(connection) == "4MB"
        assert sent == ["SHOW work_mem"]
        assert everything_set(connection) == before


def test_in_autocommit_an_error_leaves_nothing(steered: tuple[Engine, Sent], url: URL) -> None:
    entry = entry_for("SELECT 1 / $1::int, current_setting('work_mem')")
    statement = text("SELECT 1 / CAST(:x AS int), current_setting('work_mem')")
    with steered_engine(url, entry) as (engine, _), autocommit(engine).connect() as connection:
        with pytest.raises(exc.DataError):
            connection.execute(statement, {"x": 0})
        assert shown(connection) == "4MB"
        assert connection.execute(statement, {"x": 1}).one() == (1, "64MB")


def test_under_a_wait_callback_as_with_green_threads(steered: tuple[Engine, Sent]) -> None:
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
    try:
        with steered[0].connect() as connection:
            assert look(connection) == "64MB"
            assert connection.execute(OTHER).all() == [("off", "4MB")]
            assert shown(connection) == "4MB"
            connection.rollback()
        with autocommit(steered[0]).connect() as connection:
            assert look(connection) == "64MB"
            assert shown(connection) == "4MB"
    finally:
        psycopg2.extensions.set_wait_callback(None)


# -- errors, savepoints, cancelled statements ---------------------------------------------------


@pytest.fixture
def dividing(url: URL) -> Iterator[tuple[Engine, Sent]]:
    with steered_engine(url, LOOK_ENTRY, DIVIDE_ENTRY, pool_size=1, max_overflow=0) as both:
        yield both


def test_an_error_shows_the_text_that_the_application_wrote(
    dividing: tuple[Engine, Sent],
) -> None:
    with dividing[0].connect() as connection, pytest.raises(exc.DataError) as raised:
        connection.execute(DIVIDE, {"x": 0})
    assert str(raised.value.statement).startswith("SELECT 1 / CAST(%(x)s AS int)")
    assert "set_config" not in str(raised.value)


def test_after_an_error_a_transaction_stays_aborted(dividing: tuple[Engine, Sent]) -> None:
    engine, sent = dividing
    with engine.connect() as connection:
        look(connection)
        with pytest.raises(exc.DataError):
            connection.execute(DIVIDE, {"x": 0})
        sent.clear()
        for _ in range(2):
            with pytest.raises(exc.InternalError, match="current transaction is aborted"):
                look(connection)
        assert not any("set_config" in statement for statement in sent)
        connection.rollback()
        assert shown(connection) == "4MB"
        assert look(connection) == "64MB"


@pytest.mark.parametrize("failing", [DIVIDE, text("SELECT :x FROM nowhere")])
def test_an_error_inside_a_savepoint(dividing: tuple[Engine, Sent], failing: TextClause) -> None:
    with dividing[0].begin() as connection:
        assert look(connection) == "64MB"
        savepoint = connection.begin_nested()
        assert look(connection) == "64MB"
        with pytest.raises(exc.DBAPIError):
            connection.execute(failing, {"x": 0})
        savepoint.rollback()
        assert shown(connection) == "4MB"
        assert look(connection) == "64MB"
        assert shown(connection) == "4MB"


def test_a_savepoint_released_and_one_rolled_back(steered: tuple[Engine, Sent]) -> None:
    with steered[0].begin() as connection:
        with connection.begin_nested():
            look(connection)
        assert shown(connection) == "4MB"
        look(connection)
        savepoint = connection.begin_nested()
        assert shown(connection) == "4MB"
        look(connection)
        savepoint.rollback()
        assert shown(connection) == "4MB"


def test_savepoints_and_ends_that_pass_by_sqlalchemy(dividing: tuple[Engine, Sent]) -> None:
    with dividing[0].connect() as connection:
        session: Any = connection.connection.dbapi_connection
        look(connection)
        with session.cursor() as cursor:
            cursor.execute("SAVEPOINT unseen")
        with pytest.raises(exc.ProgrammingError):
            connection.execute(text("SELECT nothing FROM nowhere"))
        with session.cursor() as cursor:
            cursor.execute("ROLLBACK TO SAVEPOINT unseen")
        assert shown(connection) == "4MB"
        look(connection)
        session.commit()
        with session.cursor() as cursor:
            cursor.execute("SELECT 1")
        # Another transaction is open now; what is put back finds nothing to put back.
        assert shown(connection) == "4MB"


def test_a_cancelled_statement(url: URL) -> None:
    entry = entry_for("SELECT count(*) FROM generate_series(1, $1) a, generate_series(1, $1) b")
    slow = text("SELECT count(*) FROM generate_series(1, :n) a, generate_series(1, :n) b")
    noted: list[ClassTimings] = []
    with steered_engine(url, entry, query_steering_report=noted.extend) as (engine, sent):
        with autocommit(engine).connect() as connection:
            connection.execute(text("SET statement_timeout = '50ms'"))
            with pytest.raises(exc.OperationalError, match="statement timeout"):
                connection.execute(slow, {"n": 100_000})
            assert shown(connection) == "4MB"
        with engine.connect() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '50ms'"))
            with pytest.raises(exc.OperationalError, match="statement timeout"):
                connection.execute(slow, {"n": 100_000})
            connection.rollback()
            assert shown(connection) == "4MB"
            # To run into a time-out is no reason to give the class up.
            sent.clear()
            assert connection.execute(slow, {"n": 3}).scalar_one() == 9
            assert "set_config" in sent[0]
        steering(engine).report()
    assert [(t.arm, t.executions, t.cancelled, t.failed) for t in noted] == [("steered", 1, 2, 0)]


def test_a_session_that_is_ended_from_outside(steered: tuple[Engine, Sent], url: URL) -> None:
    engine, _ = steered
    with engine.connect() as connection:
        look(connection)
        pid = connection.connection.dbapi_connection.get_backend_pid()  # type: ignore[union-attr]
        with steered_engine(url) as (other, _), autocommit(other).connect() as assassin:
            assassin.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(exc.OperationalError):
            shown(connection)
    with engine.connect() as connection:
        assert look(connection) == "64MB"
        assert shown(connection) == "4MB"
