"""Which statements the plug-in steers on a real server, and that it harms none of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    column,
    event,
    func,
    select,
    text,
)
from sqlalchemy.engine import URL

from backend.db_connector import quoted_identifier
from backend.steering.client import functions_called
from backend.steering.client.planner_settings import SETTINGS, Memory, Number, OneOf
from tests.foreign_server import AnyServer, client_dsn, roles_of
from tests.integration.steering_servers import owner
from tests.query_steering import (
    LOOK,
    LOOK_ENTRY,
    Sent,
    entry_for,
    look,
    shown,
    steered_engine,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def url(server: AnyServer) -> URL:
    return client_dsn(server)


SET_UP = (
    "CREATE SCHEMA steered",
    "CREATE TABLE steered.items (id int PRIMARY KEY, name text)",
    "INSERT INTO steered.items SELECT i, 'item ' || i FROM generate_series(1, 100) i",
    "CREATE SEQUENCE steered.numbers",
    "CREATE FUNCTION steered.writes() RETURNS int LANGUAGE sql VOLATILE "
    "AS 'INSERT INTO steered.items VALUES (777, ''written'') RETURNING id'",
    "CREATE FUNCTION steered.looks() RETURNS text LANGUAGE sql STABLE "
    "AS 'SELECT current_setting(''work_mem'')'",
    "CREATE PROCEDURE steered.acts() LANGUAGE sql AS 'DELETE FROM steered.items WHERE id = 9'",
)


@contextmanager
def schema(engine: Engine) -> Iterator[None]:
    """The tables and functions of the statements below."""
    with engine.begin() as connection:
        for sql in SET_UP:
            connection.exec_driver_sql(sql)
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA steered CASCADE")


@pytest.fixture
def tables(url: URL) -> Iterator[None]:
    with steered_engine(url) as (engine, _), schema(engine):
        yield


# -- statements that are never steered ----------------------------------------------------------

LEFT_ALONE = {
    "an insert": "INSERT INTO steered.items VALUES (501, 'new') RETURNING id",
    "an update": "UPDATE steered.items SET name = 'changed' WHERE id = 1 RETURNING id",
    "a delete": "DELETE FROM steered.items WHERE id = 2 RETURNING id",
    "a merge": "MERGE INTO steered.items i USING (SELECT 3 AS id) s ON s.id = i.id "
    "WHEN MATCHED THEN DELETE",
    "a write inside a query": "WITH gone AS (DELETE FROM steered.items WHERE id = 3 RETURNING id) "
    "SELECT id FROM gone",
    "a query that makes a table": "SELECT * INTO steered.copied FROM steered.items",
    "a table made of a query": "CREATE TABLE steered.made AS SELECT * FROM steered.items",
    "a query that locks": "SELECT id FROM steered.items WHERE id = 4 FOR UPDATE",
    "a sub-query that locks": "SELECT * FROM (SELECT id FROM steered.items FOR SHARE) AS locked",
    "a volatile function": "SELECT random()",
    "a volatile function with its schema": "SELECT pg_catalog.random()",
    "a function that sets": "SELECT set_config('work_mem', '5MB', true)",
    "a sequence": "SELECT nextval('steered.numbers')",
    "an advisory lock": "SELECT pg_advisory_xact_lock(1)",
    "a function that nobody vouched for": "SELECT steered.writes()",
    "such a function among the tables": "SELECT * FROM steered.writes() AS written",
    "a sample": "SELECT id FROM steered.items TABLESAMPLE SYSTEM (100)",
    "two statements": "SELECT 1; SELECT 2",
    "a setting and a query": "SET LOCAL work_mem = '5MB'; SELECT 1",
    "an explanation": "EXPLAIN SELECT id FROM steered.items",
    "an execution of a prepared statement": "EXECUTE prepared(5)",
    "a preparation": "PREPARE another AS SELECT id FROM steered.items",
    "a cursor": "DECLARE walker CURSOR WITH HOLD FOR SELECT id FROM steered.items",
    "a copy": "COPY (SELECT 1) TO '/dev/null'",
    "a call": "CALL steered.acts()",
    "a block": "DO $$ BEGIN PERFORM 1; END $$",
}


@pytest.mark.parametrize(
    ("what", "mode"),
    [(what, mode) for what in sorted(LEFT_ALONE) for mode in ("transaction", "autocommit")],
)
def test_it_is_left_alone_and_does_what_it_did(
    server: AnyServer, url: URL, what: str, mode: str
) -> None:
    if what == "a copy" and roles_of(server):
        pytest.skip("COPY to a file needs pg_write_server_files, which no application has")
    sql = LEFT_ALONE[what]
    # A table that asks for it all the same, and vouches for every built-in function.
    vouched = ["random", "pg_catalog.random", "set_config", "nextval", "pg_advisory_xact_lock"]
    entry = entry_for(sql, functions=frozenset(vouched))
    outcomes = []
    for entries in ((), (entry,)):
        with (
            steered_engine(url, *entries) as (engine, sent),
            schema(engine),
            engine.connect() as connection,
        ):
            if mode == "autocommit":
                connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.exec_driver_sql(
                "PREPARE prepared AS SELECT id FROM steered.items WHERE id = $1"
            )
            sent.clear()
            result = connection.exec_driver_sql(sql)
            rows = len(result.all()) if result.returns_rows else None
            assert sent == [sql]
            sums = text("SELECT count(*), sum(id), min(name) FROM steered.items")
            outcomes.append((result.rowcount, rows, connection.execute(sums).one()))
            still_set = mode == "transaction" and "5MB" in sql
            assert shown(connection) == ("5MB" if still_set else "4MB")
    assert outcomes[0] == outcomes[1]


@pytest.mark.usefixtures("tables")
def test_a_function_that_was_vouched_for_is_steered(url: URL) -> None:
    sql = "SELECT steered.looks()"
    with steered_engine(url, entry_for(sql)) as (engine, _), engine.connect() as connection:
        assert connection.execute(text(sql)).scalar_one() == "64MB"


# -- statements that carry no prefix ------------------------------------------------------------


@pytest.mark.usefixtures("tables")
def test_server_side_cursors(steered: tuple[Engine, Sent], url: URL) -> None:
    entry = entry_for("SELECT id, current_setting('work_mem') FROM steered.items")
    rows = text("SELECT id, current_setting('work_mem') FROM steered.items")
    with steered_engine(url, entry, LOOK_ENTRY) as (engine, sent), engine.begin() as connection:
        look(connection)
        sent.clear()
        streamed = connection.execute(rows, execution_options={"yield_per": 10})
        assert [tuple(row) for row in streamed] == [(i, "4MB") for i in range(1, 101)]
        assert sent == [rows.text]
        assert shown(connection) == "4MB"


@pytest.mark.usefixtures("tables")
def test_executemany(steered: tuple[Engine, Sent]) -> None:
    engine, sent = steered
    insert = "INSERT INTO steered.items VALUES ({}, {} || current_setting('work_mem'))"
    with engine.begin() as connection:
        look(connection)
        sent.clear()
        connection.execute(
            text(insert.format(":id", ":name")),
            [{"id": 1000 + i, "name": "100 % ünïcode, "} for i in range(5)],
        )
        assert sent == [insert.format("%(id)s", "%(name)s")]
        assert shown(connection) == "4MB"
        names = text("DELETE FROM steered.items WHERE id >= 1000 RETURNING name")
        assert connection.execute(names).scalars().all() == ["100 % ünïcode, 4MB"] * 5


@pytest.mark.usefixtures("tables")
def test_rows_inserted_in_batches(steered: tuple[Engine, Sent]) -> None:
    items = Table(
        "items", MetaData(), Column("id", Integer), Column("name", String), schema="steered"
    )
    with steered[0].begin() as connection:
        look(connection)
        rows = [{"id": 2000 + i, "name": f"{i} %"} for i in range(2500)]
        inserted = connection.execute(items.insert().returning(items.c.id), rows).scalars().all()
        assert sorted(inserted) == [row["id"] for row in rows]
        assert shown(connection) == "4MB"
        names = select(items.c.name).where(items.c.id == 2001)
        assert connection.execute(names).scalar_one() == "1 %"


@pytest.mark.usefixtures("tables")
def test_copy_over_the_same_session(steered: tuple[Engine, Sent], tmp_path: Any) -> None:
    with steered[0].begin() as connection:
        look(connection)
        session: Any = connection.connection.dbapi_connection
        with (tmp_path / "copied").open("w+") as file, session.cursor() as cursor:
            cursor.copy_expert("COPY (SELECT id FROM steered.items ORDER BY id) TO STDOUT", file)
            file.seek(0)
            assert file.read().split() == [str(i) for i in range(1, 101)]
        assert shown(connection) == "4MB"


def test_a_hint_of_the_applications_own_stays_first(steered: tuple[Engine, Sent]) -> None:
    engine, sent = steered
    hinted = "/*+ SeqScan(items) */ SELECT current_setting('work_mem')"
    with engine.begin() as connection:
        look(connection)
        sent.clear()
        assert connection.execute(text(hinted)).scalar_one() == "4MB"
        assert sent == [hinted]


# -- parameters and texts -----------------------------------------------------------------------


@pytest.mark.parametrize("x", ["100 %", "%s", "%(x)s", "it's", "back\\slash", "ünï ☃", "", None])
def test_parameters_arrive_as_they_were_given(steered: tuple[Engine, Sent], x: str | None) -> None:
    with steered[0].connect() as connection:
        for one in (connection, connection.execution_options(isolation_level="AUTOCOMMIT")):
            assert one.execute(LOOK, {"x": x}).one() == ("64MB", x)
            one.rollback()


@pytest.mark.usefixtures("tables")
def test_texts_with_percent_signs(url: URL) -> None:
    sql = "SELECT id %% 7, current_setting('work_mem') FROM steered.items WHERE name LIKE '%%m 1%%'"
    entry = entry_for(sql.replace("%%", "%"))
    expected = [(i % 7, "64MB") for i in (1, *range(10, 20), 100)]
    with steered_engine(url, entry) as (engine, sent), engine.begin() as connection:
        connection.execute(text("SHOW work_mem"))
        rows = connection.exec_driver_sql(sql + " ORDER BY id")
        assert "set_config" not in sent[-1]  # another class
        assert len(rows.all()) == len(expected)
        assert sorted(connection.exec_driver_sql(sql).all()) == sorted(expected)
        literal = connection.execution_options(no_parameters=True).exec_driver_sql(
            sql.replace("%%", "%")
        )
        assert sorted(literal.all()) == sorted((number, "4MB") for number, _ in expected)


@pytest.mark.usefixtures("tables")
def test_expressions_of_sqlalchemy_with_lists_and_casts(url: URL) -> None:
    query = (
        select(column("id"), func.current_setting("work_mem"))
        .select_from(text("steered.items"))
        .where(column("id").in_(bindparam("ids", expanding=True)))
        .order_by(column("id"))
        .limit(bindparam("most"))
    )
    sql = (
        "SELECT id, current_setting('x') FROM steered.items WHERE id IN (1, 2, 3) "
        "ORDER BY id LIMIT 5"
    )
    with steered_engine(url, entry_for(sql)) as (engine, _), engine.begin() as connection:
        for ids in ([5], [5, 7, 9, 4]):
            rows = connection.execute(query, {"ids": ids, "most": 3}).all()
            assert rows == [(i, "64MB") for i in sorted(ids)[:3]]


# -- the plan itself ----------------------------------------------------------------------------


@pytest.fixture
def explained(server: AnyServer, url: URL) -> Iterator[None]:
    """Sessions of the application tell the plan of each statement."""
    role = quoted_identifier(str(url.username))
    with owner(server) as cursor:
        cursor.execute(f"ALTER ROLE {role} SET session_preload_libraries = 'auto_explain'")
        cursor.execute(f"ALTER ROLE {role} SET auto_explain.log_min_duration = 0")
        yield
        cursor.execute(f"ALTER ROLE {role} RESET session_preload_libraries")
        cursor.execute(f"ALTER ROLE {role} RESET auto_explain.log_min_duration")


@pytest.mark.usefixtures("tables", "explained")
def test_the_settings_are_in_force_when_the_plan_is_made(url: URL) -> None:
    sql = "SELECT name FROM steered.items WHERE id = $1"
    entry = entry_for(
        sql,
        {"enable_indexscan": "off", "enable_bitmapscan": "off"},
        {"enable_indexscan": "on", "enable_bitmapscan": "on"},
    )
    query = text("SELECT name FROM steered.items WHERE id = :id")
    plans: list[str] = []
    with steered_engine(url, entry) as (engine, _), engine.connect() as connection:

        @event.listens_for(engine, "after_cursor_execute")
        def note(_c: Any, cursor: Any, *_: Any) -> None:
            plans.append("".join(cursor.connection.notices))

        connection.execute(text("SET client_min_messages = log"))
        assert connection.execute(query, {"id": 17}).scalar_one() == "item 17"
        assert "Seq Scan" in plans[-1]
        other = text(f"{query.text} AND true")
        assert connection.execute(other, {"id": 18}).scalar_one() == "item 18"
        assert "Index Scan" in plans[-1]


# -- what the lists of the plug-in say, and what the server says ---------------------------------


def test_every_volatile_function_of_the_server_is_refused(url: URL) -> None:
    callable_in_a_query = text(
        """SELECT DISTINCT proname FROM pg_proc
        WHERE provolatile = 'v' AND pronamespace = 'pg_catalog'::regnamespace
          AND prokind IN ('f', 'a', 'w') AND proname !~ '^(RI_FKey|plpgsql_)'
          AND NOT prorettype = ANY ('{trigger,event_trigger,index_am_handler,table_am_handler,
                                      tsm_handler,language_handler}'::regtype[])"""
    )
    with steered_engine(url) as (engine, _), engine.connect() as connection:
        names = connection.execute(callable_in_a_query).scalars().all()
    assert len(names) > 150
    assert {"random", "nextval", "set_config", "pg_sleep"} <= set(names)
    assert [name for name in names if functions_called(f'SELECT "{name}"()') is not None] == []


def test_every_setting_and_value_that_may_be_sent_is_one_of_the_server(
    server: AnyServer, url: URL
) -> None:
    there = text("SELECT name FROM pg_settings")
    with steered_engine(url) as (engine, _), engine.connect() as connection:
        known = set(connection.execute(there).scalars())
        assert len(SETTINGS.keys() & known) > 35
        for name, kind in SETTINGS.items():
            if name not in known:
                assert roles_of(server), f"{name}: not a setting of the newest version"
                continue
            assert kind.is_value(shown(connection, name)), name
            allowed = kind.allowed if isinstance(kind, OneOf) else bounds(kind)
            for value in allowed:
                assert kind.may_be_set(value), (name, value)
                # Not superuser's alone, and inside the server's own bounds.
                if roles_of(server) is None:
                    connection.execute(text("SET LOCAL ROLE pg_monitor"))
                connection.execute(
                    text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value}
                )
                connection.execute(text("RESET ROLE"))


def bounds(kind: Number | Memory) -> list[str]:
    if isinstance(kind, Memory):
        return [f"{kind.lowest_kb}kB", f"{kind.highest_kb // 1024**2}GB"]
    return [f"{kind.lowest:g}", f"{kind.highest:.0f}"]
