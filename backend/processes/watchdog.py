"""The watchdog's process."""

from __future__ import annotations

import threading

from backend.config import Settings
from backend.db_connector import WATCHDOG_APPLICATION
from backend.protocols import Store
from backend.servers import postgres_target
from backend.watchdog import run_watchdog


def watchdog(settings: Settings, store: Store, stop: threading.Event) -> int:
    """Undo what a dead or hung tuner left open."""
    run_watchdog(store, lambda: postgres_target(settings, WATCHDOG_APPLICATION), stop_event=stop)
    return 0
