"""The thread of one engine: looks after the steering table and hands out the timings."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

REFRESH_INTERVAL_S = 1.0
REPORT_INTERVAL_S = 10.0
_END_WAIT_S = 2.0

logger = logging.getLogger(__package__)


class Background:
    """Calls functions again and again, in a daemon thread of the process that uses the engine.

    Args:
        begin: called once in each process, before its first statement.
        refresh: called every `REFRESH_INTERVAL_S`.
        report: called every `REPORT_INTERVAL_S`, and at the end.

    None may raise.
    """

    def __init__(
        self,
        begin: Callable[[], None],
        refresh: Callable[[], None],
        report: Callable[[], None],
    ) -> None:
        self._begin = begin
        self._refresh = refresh
        self._report = report
        # Process -> what ends its thread. A forked child has no thread, and starts its own; no lock
        # is used, since one that is held during a fork is held for ever in the child.
        self._ends: dict[int, threading.Event] = {}
        self._thread: threading.Thread | None = None

    def ensure_running(self) -> None:
        """Start the thread if this process has none."""
        if os.getpid() in self._ends:
            return
        end = threading.Event()
        if self._ends.setdefault(os.getpid(), end) is not end:
            return
        self._begin()
        thread = threading.Thread(target=self._run, args=(end,), name="query_steering", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # Too many threads, or the process is ending: no reason to fail a connection.
            logger.warning("the steering table is read but once, nothing is reported: %s", error)
            return
        self._thread = thread

    def _run(self, end: threading.Event) -> None:
        waited_s = 0.0
        while not end.wait(REFRESH_INTERVAL_S):
            self._refresh()
            waited_s += REFRESH_INTERVAL_S
            if waited_s >= REPORT_INTERVAL_S:
                waited_s = 0.0
                self._report()

    def stop(self) -> None:
        """End the thread of this process and report what is left."""
        end = self._ends.get(os.getpid())
        if end is None:
            return
        end.set()
        # The cycle collector may find the engine in this very thread.
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_WAIT_S)
        self._report()
