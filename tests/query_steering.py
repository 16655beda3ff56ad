"""Engines with the plug-in, and tables for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, Connection, Engine

from backend.steering.client import (
    EngineSteering,
    SteeringEntry,
    SteeringTable,
    fingerprint,
    functions_called,
    steering_of,
)

# An installed package is found by its entry point; a source tree has none.
plugins.register("query_steering", "backend.steering.client", "QuerySteeringPlugin")

SEARCH_PATH = '"$user", public'


def entry_for(
    sql: str,
    settings: Mapping[str, str] | None = None,
    under: Mapping[str, str] | None = None,
    **others: Any,
) -> SteeringEntry:
    """An entry for a statement (parameters as ``$1``), which sets work_mem unless told else."""
    arguments: dict[str, Any] = {
        "fingerprint": fingerprint(sql),
        "search_path": SEARCH_PATH,
        "hint_set": "work_mem_64mb",
        "settings": settings or {"work_mem": "64MB"},
        "under": under or {"work_mem": "4MB"},
        "functions": functions_called(sql) or frozenset(),
    }
    return SteeringEntry(**{**arguments, **others})


LOOK = text("SELECT current_setting('work_mem') AS work_mem, :x AS x")
"""A statement that says under which setting it ran."""
LOOK_SQL = "SELECT current_setting('work_mem') AS work_mem, $1 AS x"
LOOK_ENTRY = entry_for(LOOK_SQL)
OTHER = text("SELECT current_setting('enable_sort'), current_setting('work_mem')")
OTHER_ENTRY = entry_for(
    "SELECT current_setting('enable_sort'), current_setting('work_mem')",
    {"enable_sort": "off"},
    {"enable_sort": "on"},
)
DIVIDE = text("SELECT 1 / CAST(:x AS int), current_setting('work_mem')")
DIVIDE_ENTRY = entry_for("SELECT 1 / $1::int, current_setting('work_mem')")


class Injected:
    """A source whose table tests replace."""

    def __init__(self, *entries: SteeringEntry, expires_at_s: float | None = None) -> None:
        self.table = SteeringTable(entries, expires_at_s)

    def refresh(self) -> SteeringTable:
        return self.table


class Sent(list[str]):
    """The texts that an engine handed to its driver."""

    def listen_to(self, engine: Engine) -> None:
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(engine.dialect, name, self._noting(getattr(engine.dialect, name)))

    def _noting(self, execute: Callable[..., None]) -> Callable[..., None]:
        def note_and_execute(cursor: Any, statement: str, *others: Any) -> None:
            self.append(statement)
            execute(cursor, statement, *others)

        return note_and_execute


@contextmanager
def steered_engine(
    url: URL, *entries: SteeringEntry, source: Any = None, **arguments: Any
) -> Iterator[tuple[Engine, Sent]]:
    """An engine that always steers the given classes, and what it sends."""
    options = {"query_steering_default_share": 0, **arguments}
    engine = create_engine(
        url,
        plugins=["query_steering"],
        query_steering_table=source if source is not None else Injected(*entries),
        **options,
    )
    sent = Sent()
    try:
        engine.connect().close()  # SQLAlchemy's own questions are asked now
        sent.listen_to(engine)
        yield engine, sent
    finally:
        engine.dispose()


def look(connection: Connection) -> str:
    """The work_mem that the steered statement sees."""
    return str(connection.execute(LOOK, {"x": 1}).scalar_one())


def shown(connection: Connection, setting: str = "work_mem") -> str:
    """What a statement that is not steered sees."""
    return str(connection.execute(text(f"SHOW {setting}")).scalar_one())


def autocommit(engine: Engine) -> Engine:
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def everything_set(connection: Connection) -> dict[str, tuple[str, str]]:
    """Every setting of the session with its source."""
    rows = connection.exec_driver_sql("SELECT name, setting, source FROM pg_settings")
    return {name: (setting, source) for name, setting, source in rows}


def steering(engine: Engine) -> EngineSteering:
    found = steering_of(engine)
    assert found is not None
    return found
