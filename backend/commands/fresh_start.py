"""Sets an earlier run's store and checkpoints aside, so that a demo begins without memory."""

from __future__ import annotations

import re
import shutil
from datetime import datetime, timezone
from pathlib import Path

from sqlalchemy.engine import URL

from backend.config import Settings
from backend.errors import StoreError
from backend.lease import why_ownerless
from backend.telemetry import open_store

KEPT_RUNS = 5
DATABASE_FILES = ("", "-wal", "-shm", "-journal")
"""What SQLite appends to a database's name for the files beside it: https://sqlite.org/tempfiles.html"""
_SQLITE_MAGIC = b"SQLite format 3\0"
FOLDER_NAME = re.compile(r"\d{8}T\d{12}")
"""Folders of the shelf that we made; anything else there is somebody's own."""


def set_aside(settings: Settings) -> Path | None:
    """Move store, checkpoints and reports into ``<data_dir>/earlier/<time>``.

    The newest five earlier runs are kept. Returns the folder, None when there was nothing.

    Raises:
        StoreError: a tuner uses the store now, or it is a PostgreSQL database, which cannot be
            moved aside.
    """
    url = settings.store_url
    if url.get_backend_name() != "sqlite":
        raise StoreError(
            "the demo needs a store of its own, and paths.telemetry_db is a PostgreSQL URL",
            remedy="leave paths.telemetry_db at its default for the demo",
        )
    database = Path(str(url.database))
    in_memory = not url.database or url.database == ":memory:"
    if not in_memory and _is_sqlite(database):
        _refuse_if_used(url)
    # By their full names: a pattern would sweep up what happens to begin alike.
    files = [] if in_memory else [f"{database.name}{end}" for end in DATABASE_FILES]
    found = [
        path
        for path in (
            *(database.parent / name for name in files),
            settings.paths.policies_dir,
            settings.paths.steering_dir,
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


def _is_sqlite(path: Path) -> bool:
    """Whether the file is a database; SQLite clears away the files beside one that is not."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError:
        return False


def _refuse_if_used(url: URL) -> None:
    """Moved away under a living tuner, the store would take its journal along."""
    try:
        store = open_store(url, read_only=True)
    except StoreError:
        return  # not a store, or not one of this version: nobody works with it
    try:
        lease = store.lease()
    finally:
        store.close()
    if lease is not None and why_ownerless(lease, datetime.now(timezone.utc)) is None:
        raise StoreError(
            f"a run is under way with the store {url.database} ({lease.holder})",
            remedy="end it first (Ctrl-C), or give the demo a folder of its own with --data-dir",
        )
