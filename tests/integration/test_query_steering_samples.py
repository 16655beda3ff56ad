"""Samples of statements as the plug-in takes them from a real server's sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, bindparam, create_engine, event, exc, text
from sqlalchemy.engine import URL

from backend.catalog.hint_sets import load_hint_sets
from backend.db_connector import DatabaseConnector
from backend.domain.plans import DEFAULT_HINT_SET
from backend.domain.server import HostFacts
from backend.steering.client import (
    SampledClass,
    SteeringEntry,
    fingerprint,
    functions_called,
    take_samples,
)
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyCheck
from backend.steering.statements.sample_book import SampleBook, samples_from_plug_ins
from tests.foreign_server import AnyServer, client_dsn
from tests.query_steering import (
    LOOK_ENTRY,
    SEARCH_PATH,
    Injected,
    Sent,
    autocommit,
    look,
    shown,
    steered_engine,
    steering,
)

pytestmark = pytest.mark.integration

ADD = text("SELECT :a + 1 AS added, 'é'")
ADD_CLASS = fingerprint("SELECT $1 + 1 AS added, 'x'")


@pytest.fixture(scope="module")
def url(server: AnyServer) -> URL:
    return client_dsn(server)


@pytest.fixture
def noted() -> list[SampledClass]:
    return []


@pytest.fixture
def sampled(url: URL, noted: list[SampledClass]) -> Iterator[tuple[Engine, Sent]]:
    arguments: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
    with steered_engine(url, LOOK_ENTRY, query_steering_samples=noted.extend, **arguments) as (
        engine,
        sent,
    ):
        steering(engine).report()  # what SQLAlchemy itself asked
        noted.clear()
        yield engine, sent


def by_class(noted: list[SampledClass]) -> dict[str, SampledClass]:
    assert len({item.fingerprint for item in noted}) == len(noted)
    return {item.fingerprint: item for item in noted}


def texts(noted: list[SampledClass]) -> list[str]:
    return [sample.text for item in noted for sample in item.samples]


@pytest.mark.parametrize("mode", ["transaction", "autocommit"])
def test_what_was_sent_is_noted_without_what_steers_it(
    sampled: tuple[Engine, Sent], noted: list[SampledClass], mode: str
) -> None:
    engine, sent = sampled
    with (autocommit(engine) if mode == "autocommit" else engine).connect() as connection:
        assert connection.execute(ADD, {"a": 41}).scalar_one() == 42
        assert look(connection) == "64MB"
        assert connection.execute(ADD, {"a": -7}).scalar_one() == -6
    assert sum("set_config" in text for text in sent) == (1 if mode == "autocommit" else 2)
    steering(engine).report()
    found = by_class(noted)
    assert set(found) == {ADD_CLASS, LOOK_ENTRY.fingerprint}
    added, looked = found[ADD_CLASS], found[LOOK_ENTRY.fingerprint]
    assert texts([added]) == ["SELECT 41 + 1 AS added, 'é'", "SELECT  -7 + 1 AS added, 'é'"]
    assert texts([looked]) == ["SELECT current_setting('work_mem') AS work_mem, 1 AS x"]
    assert (added.executions, looked.executions) == (2, 1)
    assert 0 < added.total_s < 10
    assert added.search_path == SEARCH_PATH
    assert "41 + 1" not in repr(added)


def test_nothing_more_is_sent_than_without(url: URL) -> None:
    everything = []
    for arguments in ({}, {"query_steering_samples": lambda classes: None}):
        with steered_engine(url, LOOK_ENTRY, **arguments) as (engine, sent):
            for connectable in (engine, autocommit(engine)):
                with connectable.connect() as connection:
                    for _ in range(10):
                        connection.execute(ADD, {"a": 1})
                        look(connection)
                        shown(connection)
            everything.append(list(sent))
    assert everything[0] == everything[1]


VALUES: dict[str, Any] = {
    "whole": 7,
    "below zero": -7,
    "money": Decimal("-12.50"),
    "not a number": float("nan"),
    "nothing": None,
    "yes": True,
    "quotes": 'it\'s "%s" %(x)s $1 -- /* ; \\',
    "lines": "a\n\tb",
    "day": date(2026, 1, 2),
    "moment": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
    "while": timedelta(days=-1, microseconds=5),
    "bytes": b"\x00'\xff",
}


@pytest.mark.parametrize("what", sorted(VALUES))
def test_values_of_all_kinds_make_the_same_class_and_the_same_answer(
    sampled: tuple[Engine, Sent], noted: list[SampledClass], what: str
) -> None:
    engine, _ = sampled
    statement = text("SELECT n, :value AS v FROM generate_series(1, 3) n WHERE n % 2 = 1;")
    with engine.connect() as connection:
        answer = connection.execute(statement, {"value": VALUES[what]}).all()
        steering(engine).report()
        (found,) = [item for item in noted if item.samples]
        (sample,) = found.samples
        again = connection.exec_driver_sql(sample.text.replace("%", "%%")).all()
    values = [[bytes(v) if isinstance(v, memoryview) else repr(v) for _, v in rows]
              for rows in (answer, again)]  # fmt: skip
    assert values[0] == values[1]
    plain = "SELECT n, $1 AS v FROM generate_series(1, 3) n WHERE n % 2 = 1"
    assert found.fingerprint == fingerprint(sample.text) == fingerprint(plain)


def test_a_list_belongs_to_the_class_that_the_plug_in_sees(
    sampled: tuple[Engine, Sent], noted: list[SampledClass]
) -> None:
    engine, _ = sampled
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 WHERE 1 = ANY(:many)"), {"many": [1, 2]})
    steering(engine).report()
    (found,) = noted
    assert found.fingerprint == fingerprint("SELECT 1 WHERE 1 = ANY($1)")
    assert texts([found]) == ["SELECT 1 WHERE 1 = ANY(ARRAY[1,2])"]


LEFT_OUT = (
    "INSERT INTO pg_temp.kept VALUES (1)",
    "SELECT x FROM pg_temp.kept FOR UPDATE",
    "WITH gone AS (DELETE FROM pg_temp.kept RETURNING 1) SELECT 1",
    "SELECT random()",
    "SELECT 1; SELECT 2",
    "SHOW work_mem",
    "SELECT /*+ SeqScan(t) */ 1",
    f"SELECT '{'x' * 17_000}'",
)


def test_what_is_no_plain_query_is_not_noted(
    sampled: tuple[Engine, Sent], noted: list[SampledClass]
) -> None:
    engine, _ = sampled
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE kept (x int)")
        for statement in LEFT_OUT:
            connection.exec_driver_sql(statement)
        many = text("INSERT INTO pg_temp.kept VALUES (:x)")
        connection.execute(many, [{"x": 1}, {"x": 2}])
        on_server = connection.execution_options(stream_results=True)
        assert on_server.execute(ADD, {"a": 1}).all() == [(2, "é")]
        long_value = connection.execution_options(stream_results=False)
        assert long_value.execute(text("SELECT length(:x)"), {"x": "x" * 20_000}).scalar_one()
        with pytest.raises(exc.DataError):
            connection.execute(text("SELECT 1 / CAST(:x AS int)"), {"x": 0})
        with pytest.raises(exc.InternalError):
            connection.execute(ADD, {"a": 1})
    steering(engine).report()
    assert texts(noted) == []


# -- the search path ----------------------------------------------------------------------------


def note_add(engine: Engine, noted: list[SampledClass]) -> SampledClass:
    with engine.connect() as connection:
        connection.execute(ADD, {"a": 1})
    steering(engine).report()
    return by_class(noted)[ADD_CLASS]


def test_a_configured_search_path_is_taken_and_nobody_asked(
    url: URL, noted: list[SampledClass]
) -> None:
    with steered_engine(
        url, query_steering_samples=noted.extend, query_steering_search_path="shop, public"
    ) as (engine, _):
        assert note_add(engine, noted).search_path == "shop, public"
        with engine.connect() as connection:
            assert connection.info == {}


def test_a_session_is_asked_once_and_left_as_it_was(url: URL, noted: list[SampledClass]) -> None:
    sessions: list[Any] = []
    arguments: dict[str, Any] = {"plugins": ["query_steering"], "pool_size": 1, "max_overflow": 0}
    engine = create_engine(
        url,
        query_steering_table=Injected(),
        query_steering_samples=noted.extend,
        **arguments,
    )

    @event.listens_for(engine, "connect", insert=True)
    def set_search_path(session: Any, record: Any) -> None:
        """As SQLAlchemy's documentation shows it."""
        autocommit_before, session.autocommit = session.autocommit, True
        with session.cursor() as cursor:
            cursor.execute("SET SESSION search_path = 'Shop', public")
        session.autocommit = autocommit_before

    @event.listens_for(engine, "connect")
    def look_at(session: Any, record: Any) -> None:
        sessions.append(session.get_transaction_status())

    try:
        assert note_add(engine, noted).search_path == '"Shop", public'
        assert sessions == [0]  # no transaction is open
    finally:
        engine.dispose()


def test_where_the_search_path_cannot_be_had_nothing_is_noted(
    url: URL, noted: list[SampledClass], caplog: pytest.LogCaptureFixture
) -> None:
    class NoCursor:
        def cursor(self) -> Any:
            raise RuntimeError("SELECT 'Ann'")

        def rollback(self) -> None:
            raise RuntimeError("SELECT 'Ann'")

    with steered_engine(url, query_steering_samples=noted.extend) as (engine, _):
        sampler = steering(engine)._sampler
        assert sampler is not None
        with engine.connect() as connection:
            connection.info.clear()
            sampler.ask_search_path(NoCursor(), connection.connection)
            assert connection.execute(ADD, {"a": 1}).scalar_one() == 2
        steering(engine).report()
    assert ADD_CLASS not in {item.fingerprint for item in noted}
    assert caplog.text.count("not sampled") == 1
    assert "Ann" not in caplog.text


# -- the spool ----------------------------------------------------------------------------------


def test_samples_travel_through_a_private_spool(url: URL, tmp_path: Path) -> None:
    spool = tmp_path / "samples.jsonl"
    with steered_engine(url, query_steering_samples=spool) as (engine, _):
        with engine.connect() as connection:
            connection.execute(ADD, {"a": 41})
        steering(engine).report()
        assert spool.stat().st_mode & 0o777 == 0o600
        take_samples(spool)
        with engine.connect() as connection:
            connection.execute(ADD, {"a": 42})
        steering(engine).report()
        found, broken = take_samples(spool)
        assert by_class(found)[ADD_CLASS].executions == 1
        found, broken = take_samples(spool)
    assert broken == 0
    assert texts(found) == ["SELECT 42 + 1 AS added, 'é'"]


def test_without_the_argument_nothing_is_kept(steered: tuple[Engine, Sent]) -> None:
    assert steering(steered[0])._sampler is None


def test_other_encodings_are_noted_as_far_as_they_are_ascii(
    url: URL, noted: list[SampledClass]
) -> None:
    with steered_engine(url, query_steering_samples=noted.extend, client_encoding="latin1") as (
        engine,
        _,
    ):
        with engine.connect() as connection:
            connection.execute(ADD, {"a": 1})
            connection.execute(text("SELECT :a || 'plain'"), {"a": "x"})
        steering(engine).report()
    assert "SELECT 'x' || 'plain'" in texts(noted)
    assert not any("é" in sample for sample in texts(noted))


# -- from an application to the explorer and back -----------------------------------------------


def test_what_an_application_runs_is_explored_and_steered_under_the_same_key(
    url: URL, tmp_path: Path
) -> None:
    statement = text(
        """
        SELECT /* of page 7 */ name, current_setting('work_mem')
          FROM items -- no schema
         WHERE added >= :day AND name <> :name AND id IN :ids
         ORDER BY id;
        """
    ).bindparams(bindparam("ids", expanding=True))
    values = {"day": date(2026, 1, 1), "name": "it's\\", "ids": [2, 3, 5]}
    spool = tmp_path / "samples.jsonl"
    arguments: dict[str, Any] = {
        "connect_args": {"options": "-csearch_path=shop_of_samples,public"}
    }
    owner = create_engine(url, isolation_level="AUTOCOMMIT")
    connector = DatabaseConnector(url)
    with owner.connect() as connection:
        for sql in SET_UP:
            connection.exec_driver_sql(sql)
    try:
        with steered_engine(url, query_steering_samples=spool, **arguments) as (engine, _):
            with engine.connect() as connection:
                rows = connection.execute(statement, values).all()
            assert [name for name, _ in rows] == ["item 2", "item 3", "item 5"]
            steering(engine).report()
        book = SampleBook(tmp_path / "kept-samples.json")
        samples_from_plug_ins(spool)
        found = samples_from_plug_ins(spool)
        book.add(found.samples, found.uses)
        keys = book.keys()
        (key,) = [key for key in keys if "items" in book.text(key)]
        assert key.search_path == "shop_of_samples,public"  # as the server itself shows it
        assert book.weight(key) > 0
        assert "it's" not in book.text(key)

        catalog = load_hint_sets(170010, HostFacts(memory_bytes=8 << 30, cpu_count=4.0))
        with closing(StatementRunner(url, catalog, search_path=key.search_path)) as runner:
            verdict = ReadOnlyCheck(connector).check(book.samples(key)[0].text)
            (run,) = runner.run(verdict, [DEFAULT_HINT_SET], [10.0])
        assert (run.rows, run.detail) == (3, "")

        entry = SteeringEntry(
            key.fingerprint, key.search_path, "larger", {"work_mem": "64MB"}, {"work_mem": "4MB"},
            functions_called(book.samples(key)[0].text) or frozenset(), "pin",
        )  # fmt: skip
        with (
            steered_engine(url, entry, **arguments) as (engine, _),
            engine.connect() as connection,
        ):
            assert {memory for _, memory in connection.execute(statement, values)} == {"64MB"}
    finally:
        connector.close()
        with owner.connect() as connection:
            connection.exec_driver_sql("DROP SCHEMA shop_of_samples CASCADE")
        owner.dispose()


SET_UP = (
    "CREATE SCHEMA shop_of_samples",
    "CREATE TABLE shop_of_samples.items (id int, name text, added date)",
    "INSERT INTO shop_of_samples.items SELECT i, 'item ' || i, '2026-01-01'::date + i "
    "FROM generate_series(1, 9) i",
)
