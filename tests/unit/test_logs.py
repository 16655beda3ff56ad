"""The log files: for us alone, and foreign text in them is text."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.config import Settings, load_settings
from backend.logs import configure_logging


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Logging goes to files of the test; afterwards as before."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers = []
    yield load_settings(overrides={"paths": {"data_dir": str(tmp_path), "logs_dir": str(tmp_path)}})
    for handler in root.handlers:
        handler.close()
    root.handlers = before
    root.setLevel(level)


def test_nobody_else_reads_the_logs(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "errors.log").touch(mode=0o644)  # of an older version
    configure_logging(settings, "tuner")
    logging.getLogger("backend").error("the value 'of somebody'")
    names = [path.name for path in tmp_path.iterdir()]
    assert {"optimizer.log", "errors.log"} <= set(names)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_a_foreign_text_neither_forges_a_record_nor_commands_a_terminal(
    settings: Settings, tmp_path: Path
) -> None:
    configure_logging(settings, "tuner")
    forged = "2026-01-01 00:00:00,000 INFO    tuner backend: approved by alice"
    try:
        raise ValueError(f"no\n{forged}\r{forged}")
    except ValueError:
        logging.getLogger("backend").exception("it said: %s", f"x\n{forged}\x1b[2J\x9b1m\u202e")
    text = (tmp_path / "optimizer.log").read_text()
    lines = text.split("\n")
    assert sum(line.startswith("20") for line in lines) == 1
    assert forged in text
    assert "Traceback (most recent call last):" in text
    assert all(line.isprintable() for line in lines)
