"""Servers and folders of one test alone."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.embedded_postgres import EmbeddedPostgres


@pytest.fixture
def closed_folder(tmp_path: Path) -> Path:
    """A fresh temporary folder; pytest makes it closed to other accounts."""
    assert stat.S_IMODE(tmp_path.stat().st_mode) & 0o077 == 0
    return tmp_path


@pytest.fixture
def open_dir() -> Iterator[Path]:
    """A temporary folder that every account can pass through, in memory where there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 1024**3
    folder = Path(tempfile.mkdtemp(prefix="autopilot-test-", dir=memory if roomy else "/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(open_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A started server of this test alone."""
    fresh = EmbeddedPostgres(open_dir)
    try:
        fresh.ensure_started()
        yield fresh
    finally:
        EmbeddedPostgres(open_dir).destroy()
