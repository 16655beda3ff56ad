"""The tuner's lease: who acts, and proof that it is still alive."""

from __future__ import annotations

import os
import socket

import psutil

from backend.protocols import Journal


def holder_name(pid: int | None = None) -> str:
    """``host:pid:start time``: tells a living holder from a dead one whose pid was reused."""
    process = psutil.Process(pid if pid is not None else os.getpid())
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


class TunerLease:
    """Holds an epoch of the journal; see watchdog.py for what happens when it expires."""

    def __init__(self, journal: Journal, ttl_s: float) -> None:
        self._journal, self._ttl_s = journal, ttl_s
        self.epoch = journal.acquire_lease(holder_name(), ttl_s)

    def renew(self) -> bool:
        """Show that we are alive; False when somebody raised the epoch."""
        return self._journal.renew_lease(self.epoch, self._ttl_s)

    def release(self) -> None:
        """End the epoch in good order."""
        self._journal.release_lease(self.epoch)
