"""An empty store, for what evolutions leave in one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from backend.telemetry import SqlStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = open_store(URL.create("sqlite", database=str(tmp_path / "telemetry.db")))
    yield store
    store.close()
