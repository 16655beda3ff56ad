"""Sets an earlier run's store and checkpoints aside, so that a demo begins without memory."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path

from backend.config import Settings
from backend.errors import StoreError

KEPT_RUNS = 5


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
    found = [
        path
        for path in (
            *database.parent.glob(database.name + "*"),
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
    for old in sorted(shelf.iterdir())[:-KEPT_RUNS]:
        shutil.rmtree(old)
    return folder
