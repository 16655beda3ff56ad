"""A human, a store and a tuner on servers of both kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from backend.telemetry import SqlStore, open_store
from tests.foreign_server import EVERY_SERVER, AnyServer
from tests.integration.tuned_servers import Tuner


@pytest.fixture(scope="session", params=EVERY_SERVER)
def server(request: pytest.FixtureRequest) -> AnyServer:
    """A started server, of each kind and version in turn."""
    found: AnyServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def human(server: AnyServer) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Runs SQL as somebody else, whatever happens to the server in between."""

    def run(*statements: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(
            **server.dsn().translate_connect_args(username="user"), application_name="human"
        )
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    yield run
    run("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


@pytest.fixture
def tuner(server: AnyServer, store: SqlStore, human: Callable[..., Any]) -> Iterator[Tuner]:
    made = Tuner(server, store)
    yield made
    made.adjuster.reconcile(store.current_epoch())
    made.target.close()
