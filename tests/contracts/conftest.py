"""One store of each kind for the contract suite.

A new kind of store needs a fixture that yields the URL of an empty store, and one line in STORES.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.embedded_postgres import EmbeddedPostgres
from backend.protocols import Store
from backend.telemetry import open_store
from tests.integration.conftest import embedded_server  # noqa: F401  (a fixture)

STORES = [
    "sqlite_store_url",
    pytest.param("postgresql_store_url", marks=pytest.mark.integration),
]

OpenStore = Callable[[], Store]


@pytest.fixture
def sqlite_store_url(tmp_path: Path) -> sa.URL:
    return sa.make_url(f"sqlite:///{tmp_path}/store/telemetry.db")


@pytest.fixture(scope="session")
def postgresql_template(embedded_server: EmbeddedPostgres) -> sa.Engine:  # noqa: F811
    """A database with a store's tables, to be copied for each test."""
    engine = sa.create_engine(
        embedded_server.dsn("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE store_template"))
    open_store(engine.url.set(database="store_template")).close()
    return engine


_numbers = itertools.count(1)


@pytest.fixture
def postgresql_store_url(postgresql_template: sa.Engine) -> Iterator[sa.URL]:
    name = f"store_{next(_numbers)}"
    with postgresql_template.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE store_template"))
        yield postgresql_template.url.set(database=name)
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> sa.URL:
    """The address of an empty store."""
    url: sa.URL = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def open_again(store_url: sa.URL) -> Iterator[OpenStore]:
    """Opens the same store once more, as another process would."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(open_store(store_url)))


@pytest.fixture
def store(open_again: OpenStore) -> Store:
    return open_again()
