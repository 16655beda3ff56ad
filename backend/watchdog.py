"""The watchdog: puts the last good configuration back when the tuner dies or hangs.

It is a process of its own, small on purpose: no TensorFlow, one connection that it keeps open,
one look at the store a second. A tuner that is killed is noticed by its process, one that hangs
(or runs on another machine) by its lease. Then the watchdog raises the epoch, so that the tuner
may not act any more, ends its sessions, so that it cannot, and undoes what the journal holds open.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import psutil

from backend.adjustment.elsewhere import LEFT_BEHIND, what_was_left
from backend.catalog import load_catalog
from backend.domain.clock import SystemClock
from backend.domain.records import EventRecord, LeaseRecord
from backend.errors import AutopilotError, PrivilegeError, StaleEpochError, StoreError
from backend.lease import LeaseTime, holder_name, holding_process, why_ownerless
from backend.parameter_adjuster import ParameterAdjuster, ReconcileResult
from backend.protocols import Clock, Journal, TargetDatabase

log = logging.getLogger(__name__)

_OWN_LEASE_S = 60.0
"""How long the watchdog's own lease lasts; it is released as soon as everything is undone."""
_PING_S = 5.0
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 5.0
_END_SESSIONS_S = 3.0
_JUST_AFTER = timedelta(seconds=0.02)
"""A lease runs out after its last moment, not at it."""
_LAST_LOOK_S = 12.0
"""Longer than the tuner's lease lasts: a tuner that hung while all was ended is noticed too."""
_LAST_LOOK_POLL_S = 0.2


class WatchedStore(Journal, Protocol):
    """What the watchdog needs of the store."""

    def add_event(self, event: EventRecord) -> int:
        """Record something worth telling."""


class Watchdog:
    """One look at a time; :func:`run_watchdog` repeats it.

    Args:
        store: the journal and the lease.
        make_target: connects to the server, as an application other than the tuner.
        clock: time.
        sleep: waits while the tuner's sessions end; injectable for tests.
    """

    def __init__(
        self,
        store: WatchedStore,
        make_target: Callable[[], TargetDatabase],
        clock: Clock,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._make_target = make_target
        self._clock = clock
        self._sleep = sleep
        self._target: TargetDatabase | None = None
        self._adjuster: ParameterAdjuster | None = None
        self._lease_time = LeaseTime(clock)
        self._runs_out_s = math.inf
        self._epoch: int | None = None
        self._reason = ""
        self._told = ""
        self._ping_due_s = 0.0
        self._backoff_s = 0.0
        self._retry_at_s = 0.0

    def tick(self) -> None:
        """Look once, and act where that is needed. Errors are logged and end in a pause."""
        self._runs_out_s = math.inf
        if self._clock.monotonic_s() < self._retry_at_s:
            return
        try:
            self._look()
            self._backoff_s = 0.0
        except StaleEpochError as error:
            log.info("%s", error.message)
            self._epoch = None
        except AutopilotError as error:
            self._trouble(error.message)
        except Exception as error:
            log.exception("the watchdog met an error it does not know")
            self._trouble(repr(error))

    def due_in_s(self, at_most_s: float) -> float:
        """When to look next: at the latest when the lease, as it is now, runs out."""
        left_s = self._runs_out_s - self._clock.monotonic_s()
        return min(max(left_s, 0.0), at_most_s)

    def close(self) -> None:
        """Give back the lease, if we hold one, and end the connection."""
        if self._epoch is not None:
            self._store.release_lease(self._epoch)
            self._epoch = None
        self._disconnect()

    # -- inside -----------------------------------------------------------------------------

    def _look(self) -> None:
        lease = self._store.lease()
        if self._epoch is not None and (lease is None or lease.epoch != self._epoch):
            log.info("somebody else has taken over; nothing is left for the watchdog")
            self._epoch = None
        if self._epoch is None:
            if lease is None:
                return
            now = self._lease_time.now(lease)
            reason = why_ownerless(lease, now)
            if reason is None:
                left = lease.expires_at - now + _JUST_AFTER
                self._runs_out_s = self._clock.monotonic_s() + left.total_seconds()
                self._keep_connected()
                return
            if not self._store.open_changes():
                if not lease.released:
                    self._keep_connected()
                return
            self._reason, self._told = reason, ""
            try:
                self._epoch = self._store.acquire_lease(holder_name(), _OWN_LEASE_S)
            except StoreError:
                if not self._kill_hung(lease, now):
                    raise
                # What it held is free now.
                self._epoch = self._store.acquire_lease(holder_name(), _OWN_LEASE_S)
            log.warning("%s with changes left open: epoch %d begins", reason, self._epoch)
        self._take_over(self._epoch)

    def _kill_hung(self, lease: LeaseRecord, now: datetime) -> bool:
        """The last resort, when the store cannot be written; whether it is gone.

        A process that hangs inside a transaction locks everybody else out of a SQLite file for as
        long as it lives. Its lease is over and its changes stand on the server: it has to go.
        """
        try:
            process = holding_process(lease.holder)
        except (ValueError, psutil.Error):
            return False
        if process is None or not lease.expired(now):
            return False
        log.error("the store cannot be written; killing the hung tuner (pid %d)", process.pid)
        try:
            process.kill()
        except psutil.Error as error:
            log.error("pid %d cannot be killed: %s", process.pid, error)
            return False
        return True

    def _take_over(self, epoch: int) -> None:
        if not self._store.renew_lease(epoch, _OWN_LEASE_S):
            raise StaleEpochError(f"epoch {epoch} is over: somebody else has taken over")
        target, adjuster = self._connected()
        self._end_sessions(target)
        result = adjuster.reconcile(epoch)
        if not result.clean:
            raise AutopilotError(f"not undone yet: {'; '.join(result.problems)}")
        self._store.release_lease(epoch)
        self._epoch = None
        self._tell(result)

    def _end_sessions(self, target: TargetDatabase) -> None:
        """End the tuner's sessions and wait until they are gone.

        A session that is just writing an entry finishes that first; what we then read must not
        change behind our back.
        """
        deadline_s = self._clock.monotonic_s() + _END_SESSIONS_S
        try:
            while target.end_tuner_sessions() and self._clock.monotonic_s() < deadline_s:
                self._sleep(0.05)
        except PrivilegeError as error:
            # The raised epoch stops a tuner that still lives; a dead one has no session anyway.
            log.warning("the tuner's sessions cannot be ended: %s", error.message)

    def _connected(self) -> tuple[TargetDatabase, ParameterAdjuster]:
        if self._target is None or self._adjuster is None:
            self._target = self._make_target()
            info = self._target.describe()
            catalog = load_catalog(info.version, info.host)
            self._adjuster = ParameterAdjuster(
                self._target,
                self._store,
                catalog,
                self._clock,
                identity=info.identity,
                sleep=self._sleep,
            )
        return self._target, self._adjuster

    def _keep_connected(self) -> None:
        """Hold a connection ready: there may be no free one when it is needed."""
        now_s = self._clock.monotonic_s()
        if self._target is not None and now_s < self._ping_due_s:
            return
        self._ping_due_s = now_s + _PING_S
        target, _ = self._connected()
        target.read_knobs(())

    def _disconnect(self) -> None:
        target, self._target, self._adjuster = self._target, None, None
        if target is not None:
            try:
                target.close()
            except AutopilotError as error:
                log.info("closing the connection: %s", error.message)

    def _trouble(self, message: str) -> None:
        self._disconnect()
        self._backoff_s = min(max(2 * self._backoff_s, _FIRST_BACKOFF_S), _LONGEST_BACKOFF_S)
        self._retry_at_s = self._clock.monotonic_s() + self._backoff_s
        log.warning("%s; again in %.1f s", message, self._backoff_s)
        if self._epoch is not None and message != self._told:
            self._told = message
            self._record("error", "watchdog_waits", f"{self._reason}; {message}", {})

    def _tell(self, result: ReconcileResult) -> None:
        if result.left_behind:
            self._record("error", LEFT_BEHIND, what_was_left(result.left_behind), {})
            if not (result.rolled_back or result.conflicts):
                return
        undone = sorted({row.knob for row in result.rolled_back})
        kept = sorted({row.knob for row in result.conflicts})
        message = f"{self._reason}: the last good configuration stands again"
        if undone:
            message += f" ({', '.join(undone)})"
        if kept:
            message += f"; changed by somebody else and left alone: {', '.join(kept)}"
        detail = {
            "rolled_back": undone,
            "conflicts": kept,
            "batches": sorted({row.batch_id for row in result.rolled_back}),
            "restarted": result.restarted,
        }
        log.warning("%s", message)
        self._record("warning", "watchdog_rollback", message, detail)

    def _record(self, level: str, kind: str, message: str, detail: dict[str, object]) -> None:
        try:
            self._store.add_event(
                EventRecord(self._clock.now(), level, kind, message, None, detail)
            )
        except AutopilotError as error:
            log.warning("the event could not be stored: %s", error.message)


def run_watchdog(
    store: WatchedStore,
    make_target: Callable[[], TargetDatabase],
    *,
    stop_event: threading.Event,
    poll_interval_s: float = 1.0,
    clock: Clock | None = None,
    looked: Callable[[], None] = lambda: None,
) -> None:
    """Watch until ``stop_event`` is set. Survives a lost server and a locked store.

    With changes still open then, it stays for up to twelve seconds until they are undone: the
    tuner, which ends at the same time, may not manage to.

    Args:
        store: the store that the tuner uses.
        make_target: connects to the server the tuner acts on; called again after it was lost.
        stop_event: ends the watch.
        poll_interval_s: seconds between two looks at the store.
        clock: time; the system's by default.
        looked: told after each look: it goes on.
    """
    clock = clock or SystemClock()
    watchdog = Watchdog(store, make_target, clock)
    try:
        while not stop_event.is_set():
            watchdog.tick()
            looked()
            stop_event.wait(watchdog.due_in_s(poll_interval_s))
        deadline_s = clock.monotonic_s() + _LAST_LOOK_S
        while _something_is_open(store) and clock.monotonic_s() < deadline_s:
            watchdog.tick()
            clock.sleep(_LAST_LOOK_POLL_S)
    finally:
        try:
            watchdog.close()
        except AutopilotError as error:
            log.warning("ending: %s", error.message)


def _something_is_open(store: WatchedStore) -> bool:
    try:
        return bool(store.open_changes())
    except AutopilotError as error:
        log.warning("ending: %s", error.message)
        return False
