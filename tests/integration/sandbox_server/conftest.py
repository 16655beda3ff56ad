"""A database to be copied, and a folder for what is made of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from backend.embedded_postgres import EmbeddedPostgres
from backend.sandbox.scratch_server import remove_leftovers
from tests.integration.conftest import open_folder
from tests.integration.sandbox_server.originals import filled


@pytest.fixture(scope="module")
def source(embedded_server: EmbeddedPostgres) -> Iterator[URL]:
    with filled(embedded_server) as url:
        yield url


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with open_folder() as folder:
        yield Path(folder)
        remove_leftovers(Path(folder))
