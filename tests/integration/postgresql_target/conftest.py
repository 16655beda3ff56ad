"""The PostgreSQL target on servers of both kinds, beside an application and a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

from backend.db_connector import DatabaseConnector
from backend.targets.postgresql import PostgresTarget
from tests.foreign_server import EVERY_SERVER, AnyServer, has_statements, tuner_dsn


@pytest.fixture(scope="session", params=EVERY_SERVER)
def server(request: pytest.FixtureRequest) -> AnyServer:
    """A started server, of each kind and version in turn."""
    found: AnyServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def statements(server: AnyServer) -> None:
    """Only where the server has pg_stat_statements."""
    if not has_statements(server):
        pytest.skip("this server has no pg_stat_statements")


@pytest.fixture
def target(server: AnyServer) -> Iterator[PostgresTarget]:
    made = PostgresTarget(DatabaseConnector(tuner_dsn(server)))
    yield made
    made.write_entries({"work_mem": None, "jit_above_cost": None, "random_page_cost": None})
    made.reload()
    made.close()


@pytest.fixture
def application(server: AnyServer) -> Iterator[Any]:
    """A cursor of an ordinary client, under the same role as the tuner."""
    connection = psycopg2.connect(
        **server.dsn().translate_connect_args(username="user"), application_name="shop"
    )
    connection.autocommit = True
    yield connection.cursor()
    connection.close()


@pytest.fixture
def stranger(server: AnyServer) -> Iterator[DatabaseConnector]:
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
