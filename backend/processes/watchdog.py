"""The watchdog's process."""

from __future__ import annotations

import threading

from backend.config import Settings
from backend.db_connector import WATCHDOG_APPLICATION
from backend.servers import postgres_target
from backend.telemetry import open_store
from backend.watchdog import run_watchdog

_BUSY_TIMEOUT_S = 1.0
"""A hung tuner that holds the store is found out so long after its lease; others are quicker."""


def watchdog(settings: Settings, stop: threading.Event) -> int:
    """Undo what a dead or hung tuner left open."""
    store = open_store(settings.store_url, busy_timeout_s=_BUSY_TIMEOUT_S)
    run_watchdog(store, lambda: postgres_target(settings, WATCHDOG_APPLICATION), stop_event=stop)
    return 0
