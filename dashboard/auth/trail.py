"""Logins as events in the store, bounded: who knocks a million times writes no million rows."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from backend.domain.records import EventRecord
from dashboard.auth.attempts import Bucket

log = logging.getLogger(__name__)

BURST, REFILL_S = 30, 60.0
"""Events of logins at once, and seconds until one more may be written."""

Record = Callable[[EventRecord], object]


class Trail:
    """Writes events of logins; a store that fails keeps nobody out.

    Args:
        record: writes one event; None: nowhere but to the log.
        clock: monotonic seconds.
    """

    def __init__(self, record: Record | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._record = record
        self._clock = clock
        self._lock = threading.Lock()
        self._bucket = Bucket(BURST, REFILL_S, clock())
        self._left_out = 0

    def tell(self, level: str, kind: str, message: str, **detail: Any) -> None:
        """Write an event, with how many were left out since the one before."""
        with self._lock:
            if self._bucket.wait_s(self._clock()) > 0:
                self._left_out += 1
                return
            self._bucket.take()
            left_out, self._left_out = self._left_out, 0
        if left_out:
            message += f" (and {left_out} more events of logins before it)"
            detail["left_out"] = left_out
        log.log(logging.INFO if level == "info" else logging.WARNING, "%s", message)
        if self._record is None:
            return
        event = EventRecord(datetime.now(timezone.utc), level, kind, message, detail=detail)
        try:
            self._record(event)
        except Exception:
            log.exception("an event of a login could not be stored")
