"""The tuner's lease: who acts, proof that it is still alive, and who finds out that it is not."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from pathlib import Path

import psutil

from backend.domain.records import LeaseRecord
from backend.protocols import Clock, Journal

LEASE_TTL_S = 8.0
"""A tuner silent for longer is taken for hung: the watchdog then undoes what it left open."""
RESTART_LEASE_S = 300.0
"""The same while the tuner waits for a restart: a checkpoint, then perhaps recovery."""
_START_TIME_TOLERANCE_S = 2.0


def holder_name(pid: int | None = None) -> str:
    """``host:pid:start time``: tells a living holder from a dead one whose pid was reused."""
    process = psutil.Process(pid if pid is not None else os.getpid())
    return f"{socket.gethostname()}:{process.pid}:{_started_s(process):.2f}"


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


class LeaseTime:
    """The time of day by which a watcher judges a lease; a step of the clock does not move it.

    From the first sight of a renewal on it goes on by the monotonic clock: a clock set back does
    not let a hung tuner stand for longer, one set forward takes nothing from a living one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: LeaseRecord | None = None
        self._seen_at, self._seen_s = clock.now(), clock.monotonic_s()
        self._looked_at, self._looked_s = self._seen_at, self._seen_s

    def now(self, lease: LeaseRecord) -> datetime:
        """The present moment, as far as this lease is concerned; called at every look."""
        told, now_s = self._clock.now(), self._clock.monotonic_s()
        unset = self._looked_at + timedelta(seconds=now_s - self._looked_s)
        if lease != self._seen:
            # Where the clock was set since the last look, it was renewed before that, or after.
            fits = (at for at in (told, unset) if _may_be_left(lease.expires_at - at))
            self._seen, self._seen_at, self._seen_s = lease, next(fits, told), now_s
        self._looked_at, self._looked_s = told, now_s
        return self._seen_at + timedelta(seconds=now_s - self._seen_s)


def _may_be_left(left: timedelta) -> bool:
    return timedelta() <= left <= timedelta(seconds=RESTART_LEASE_S)


def why_ownerless(lease: LeaseRecord, now: datetime) -> str | None:
    """Why nobody acts under this lease any more; None while its holder lives and renews it."""
    if lease.released:
        return "the tuner ended"
    if _is_dead(lease.holder):
        return f"the tuner died ({lease.holder})"
    if lease.expired(now):
        return f"the tuner hangs ({lease.holder}: no sign of life before its lease ran out)"
    return None


def holding_process(holder: str) -> psutil.Process | None:
    """The living process of this machine that a holder's name stands for, None without one.

    Raises:
        ValueError: the name is not ``host:pid:start time``.
        psutil.Error: the process may not be looked at.
    """
    host, pid, started = holder.rsplit(":", 2)
    if host != socket.gethostname():
        return None
    try:
        process = psutil.Process(int(pid))
        same = abs(_started_s(process) - float(started)) <= _START_TIME_TOLERANCE_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _started_s(process: psutil.Process) -> float:
    """When it started, in seconds since the machine's, where the system tells; else since 1970.

    Since the epoch, the answer changes with every step of the clock: a living tuner would be dead.
    """
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
    except OSError:
        return float(process.create_time())
    # starttime is field 22 of proc(5); two stand before the name's closing bracket.
    return int(stat.rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def _is_dead(holder: str) -> bool:
    """Whether the holder was a process of this machine that is no more.

    A holder of another machine, or one that cannot be read, counts as alive: its lease tells.
    """
    if holder.rsplit(":", 2)[0] != socket.gethostname():
        return False
    try:
        return holding_process(holder) is None
    except (ValueError, psutil.Error):
        return False
