"""The watchdog's process."""

from __future__ import annotations

import threading

from backend.config import Settings
from backend.db_connector import WATCHDOG_APPLICATION
from backend.heartbeat import Heart
from backend.lease import RESTART_LEASE_S
from backend.servers import postgres_target
from backend.telemetry import open_store
from backend.watchdog import run_watchdog

LONGEST_LOOK_S = RESTART_LEASE_S
"""Undoing may restart the server, which takes as long as it takes the tuner."""
_BUSY_TIMEOUT_S = 0.5
"""A hung tuner that holds the store is found out so long after its lease; others are quicker."""


def watchdog(settings: Settings, stop: threading.Event, heartbeat: int | None = None) -> int:
    """Undo what a dead or hung tuner left open.

    Args:
        settings: of the run.
        stop: ends it.
        heartbeat: where the supervisor sees that it does not hang.
    """
    heart = None if heartbeat is None else Heart(heartbeat, LONGEST_LOOK_S)
    if heart is not None:
        heart.start()
    store = open_store(settings.store_url, busy_timeout_s=_BUSY_TIMEOUT_S)
    run_watchdog(
        store,
        lambda: postgres_target(settings, WATCHDOG_APPLICATION),
        stop_event=stop,
        looked=heart.turned if heart is not None else lambda: None,
    )
    return 0
