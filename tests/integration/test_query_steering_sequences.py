"""Any sequence of statements does with the plug-in what it does without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, exc, text

from tests.foreign_server import AnyServer, client_dsn
from tests.query_steering import (
    DIVIDE,
    LOOK,
    LOOK_ENTRY,
    OTHER,
    OTHER_ENTRY,
    Sent,
    entry_for,
    steered_engine,
)

pytestmark = pytest.mark.integration

IN_FORCE = text("SELECT current_setting('work_mem') AS in_force")
SHOWN = ("work_mem", "enable_sort", "search_path")
AGAIN = entry_for("SELECT 1 / $1::int, current_setting('work_mem')", {"work_mem": "32MB"})
"""Another value of the setting that another class sets too."""
PLAIN = {
    "read work_mem": (LOOK, {"x": "100 %"}),
    "read both": (OTHER, {}),
    "divide": (DIVIDE, {"x": 1}),
    "fail": (DIVIDE, {"x": 0}),
    "misspell": (text("SELEC 1"), {}),
    "show": (text("SHOW work_mem"), {}),
    "set": (text("SET work_mem = '9MB'"), {}),
    "set to what is steered": (text("SET work_mem = '64MB'"), {}),
    "set for now": (text("SET LOCAL work_mem = '8MB'"), {}),
    "set another for now": (text("SET LOCAL enable_sort = off"), {}),
    "set the search path": (text("SET search_path = pg_catalog"), {}),
    "reset": (text("RESET work_mem"), {}),
    "savepoint": (text("SAVEPOINT here"), {}),
    "another savepoint": (text("SAVEPOINT there"), {}),
    "back": (text("ROLLBACK TO SAVEPOINT here"), {}),
    "further back": (text("ROLLBACK TO SAVEPOINT there"), {}),
    "release": (text("RELEASE SAVEPOINT here"), {}),
    "begin": (text("BEGIN"), {}),
    "end": (text("COMMIT"), {}),
    "undo": (text("ROLLBACK"), {}),
}
UNSEEN = {
    "unseen statement": "SELECT 1",
    "unseen way back": "ROLLBACK TO SAVEPOINT here",
    "unseen end": "COMMIT",
}
"""Past SQLAlchemy, over the same session."""
BY_ANOTHER_WAY = ("commit", "rollback", "stream", "many", "unseen commit")


@pytest.fixture(scope="module")
def both(server: AnyServer) -> Iterator[tuple[tuple[Engine, Sent], Engine]]:
    """An engine that steers at random, and one that never does."""
    url = client_dsn(server)
    entries = (LOOK_ENTRY, OTHER_ENTRY, AGAIN)
    options = {"query_steering_default_share": 0.3, "query_steering_seed": 1}
    with steered_engine(url, *entries, **options) as steered, steered_engine(url) as (plain, _):
        yield steered, plain


def act(connection: Connection, what: str) -> str:
    """Do it and return what the application sees, apart from what a steered statement sees."""
    session: Any = connection.connection.dbapi_connection
    try:
        if what in PLAIN:
            statement, parameters = PLAIN[what]
            result = connection.execute(statement, parameters)
            return f"{result.rowcount} {result.all() if what == 'show' else ''}"
        if what in ("commit", "rollback"):
            getattr(connection, what)()
        elif what == "stream":
            options = {"stream_results": True}
            rows = connection.execute(
                text("SELECT current_setting('work_mem')"), {}, execution_options=options
            )
            return str(rows.all())
        elif what == "many":
            connection.execute(text("SELECT set_config('a.b', :b, true)"), [{"b": "1"}, {"b": "2"}])
        elif what in UNSEEN:
            with session.cursor() as cursor:
                cursor.execute(UNSEEN[what])
        else:
            session.commit()
    except exc.DBAPIError as error:
        return f"{type(error.orig).__name__} {error.statement}"
    except session.Error as error:
        return type(error).__name__
    return ""


def walk(engine: Engine, steps: list[str], autocommit: bool) -> list[object]:
    """What is seen on the way, and what is in force after each end of a transaction and at last."""
    seen: list[object] = []
    with engine.connect() as connection:
        if autocommit:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        for step in steps:
            seen.append((step, act(connection, step)))
        session: Any = connection.connection.dbapi_connection
        seen.append(session.get_transaction_status())
        if session.get_transaction_status() != 3:  # not aborted
            # The first statement at the end puts back what has to be put back.
            seen.append([connection.execute(text(f"SHOW {name}")).scalar_one() for name in SHOWN])
        session.rollback()
        with session.cursor() as cursor:
            if session.get_transaction_status() != 0:
                cursor.execute("ROLLBACK")  # in autocommit mode the method does nothing
            for name in SHOWN:
                cursor.execute(f"SHOW {name}")
                seen.append(cursor.fetchall())
            cursor.execute("RESET ALL")
        session.commit()
    return seen


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([*PLAIN, *UNSEEN, *BY_ANOTHER_WAY]), min_size=1, max_size=12),
    st.booleans(),
)
def test_a_sequence_does_what_it_does_without_the_plug_in(
    both: tuple[tuple[Engine, Sent], Engine], steps: list[str], autocommit: bool
) -> None:
    (steered, _), plain = both
    assert walk(steered, steps, autocommit) == walk(plain, steps, autocommit)


def test_the_sequences_are_steered_at_all(both: tuple[tuple[Engine, Sent], Engine]) -> None:
    (steered, sent), _ = both
    sent.clear()
    for _ in range(5):
        walk(steered, ["read work_mem", "savepoint", "divide", "show"], False)
    assert any("set_config('work_mem', '64MB'" in statement for statement in sent)
    assert any("set_config('work_mem', '32MB'" in statement for statement in sent)
    assert any("set_config('work_mem', '4MB'" in statement for statement in sent)
