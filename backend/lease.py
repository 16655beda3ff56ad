"""The tuner's lease: who acts, and proof that it is still alive."""

from __future__ import annotations

import os
import socket

import psutil

from backend.protocols import Clock, Journal


def holder_name(pid: int | None = None) -> str:
    """``host:pid:start time``: tells a living holder from a dead one whose pid was reused."""
    process = psutil.Process(pid if pid is not None else os.getpid())
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


class TunerLease:
    """Holds an epoch of the journal; see watchdog.py for what happens when it expires."""

    def __init__(self, journal: Journal, ttl_s: float, clock: Clock) -> None:
        self._journal, self._ttl_s, self._clock = journal, ttl_s, clock
        self.epoch = journal.acquire_lease(holder_name(), ttl_s)
        self._renewed_s = clock.monotonic_s()

    def renew(self) -> bool:
        """Show that we are alive; False when somebody raised the epoch.

        Written once in an eighth of the lease's life: each write is a sync of the disk.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._renewed_s < self._ttl_s / 8:
            return True
        self._renewed_s = now_s
        return self._journal.renew_lease(self.epoch, self._ttl_s)

    def release(self) -> None:
        """End the epoch in good order."""
        self._journal.release_lease(self.epoch)
