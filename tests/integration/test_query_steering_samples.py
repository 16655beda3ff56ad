"""Samples of statements as the plug-in takes them from a real server's sessions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, exc, text
from sqlalchemy.engine import URL

from backend.embedded_postgres import EmbeddedPostgres
from backend.steering.client import SampledClass, fingerprint, take_samples
from backend.steering.client import sampling as sampling_module
from tests.query_steering import (
    LOOK_ENTRY,
    LOOK_SQL,
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
def url(embedded_server: EmbeddedPostgres) -> URL:
    return embedded_server.dsn()


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


@pytest.mark.parametrize("mode", ["transaction", "autocommit"])
def test_what_was_sent_is_noted_without_what_steers_it(
    sampled: tuple[Engine, Sent], noted: list[SampledClass], mode: str
) -> None:
    engine, sent = sampled
    with (autocommit(engine) if mode == "autocommit" else engine).connect() as connection:
        assert connection.execute(ADD, {"a": 41}).scalar_one() == 42
        assert look(connection) == "64MB"
        assert connection.execute(ADD, {"a": -7}).scalar_one() == -6
    assert sum("set_config" in statement for statement in sent) == (
        1 if mode == "autocommit" else 2
    )
    steering(engine).report()
    found = by_class(noted)
    assert set(found) == {ADD_CLASS, LOOK_ENTRY.fingerprint}
    added, looked = found[ADD_CLASS], found[fingerprint(LOOK_SQL)]
    assert [s.text for s in added.samples] == [
        "SELECT 41 + 1 AS added, 'é'",
        "SELECT  -7 + 1 AS added, 'é'",
    ]
    assert [s.text for s in looked.samples] == [
        "SELECT current_setting('work_mem') AS work_mem, 1 AS x"
    ]
    assert (added.executions, looked.executions) == (2, 1)
    assert 0 < added.total_s < 10
    assert added.search_path == SEARCH_PATH
    assert "41" not in repr(added)
