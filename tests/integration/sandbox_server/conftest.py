"""A database to be copied, and a folder for what is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from backend.sandbox.scratch_server import remove_leftovers
from tests.foreign_server import AnyServer, explorer_dsn
from tests.integration.conftest import open_folder
from tests.integration.sandbox_server.originals import DATABASE, filled


@pytest.fixture(scope="module")
def source(server: AnyServer) -> Iterator[URL]:
    """A database with all that is to be copied, as the role under which statements are tried."""
    with filled(server):
        yield explorer_dsn(server, DATABASE)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with open_folder() as folder:
        yield Path(folder)
        remove_leftovers(Path(folder))
