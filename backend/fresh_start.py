"""Sets an earlier run's store and checkpoints aside, so that a demo begins without memory."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

from backend.config import Settings
from backend.errors import StoreError

KEPT_RUNS = 5
DATABASE_FILES = ("", "-wal", "-shm", "-journal")
"""What SQLite appends to a database's name for the files beside it: https://sqlite.org/tempfiles.html"""
FOLDER_NAME = re.compile(r"\d{8}T\d{12}")
"""Folders of the shelf that we made; anything else there is somebody's own."""


def set_aside(settings: Settings) -> Path | None:
    """Move store, checkpoints and reports into ``<data_dir>/earlier/<time>``.

    The newest five earlier runs are kept. Returns the folder, None when there was nothing.

    Raises:
        StoreError: the store is a PostgreSQL database, which cannot be moved aside.
    """
    url = settings.store_url
    if url.get_backend_name() != "sqlite":
        raise StoreError(
            "the demo needs a store of its own, and paths.telemetry_db is a PostgreSQL URL",
            remedy="leave paths.telemetry_db at its default for the demo",
        )
    database = Path(str(url.database))
    in_memory = not url.database or url.database == ":memory:"
    # By their full names: a pattern would sweep up what happens to begin alike.
    files = [] if in_memory else [f"{database.name}{end}" for end in DATABASE_FILES]
    found = [
        path
        for path in (
            *(database.parent / name for name in files),
            settings.paths.policies_dir,
            *settings.paths.data_dir.glob("final_report.*"),
        )
        if path.exists()
    ]
    if not found:
        return None
    shelf = settings.paths.data_dir / "earlier"
    folder = shelf / datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%f")
    folder.mkdir(parents=True)
    for path in found:
        shutil.move(str(path), str(folder / path.name))
    ours = sorted(path for path in shelf.iterdir() if FOLDER_NAME.fullmatch(path.name))
    for old in ours[:-KEPT_RUNS]:
        shutil.rmtree(old)
    return folder
