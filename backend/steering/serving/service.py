"""Serves verified hint sets, watches whether they still pay, and withdraws them.

Plug-ins in applications read the steering table and report how long the statements in it take,
steered and, for a small share, under the default plan. See docs/steering-live.md, Serving and
withdrawing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from backend.domain.modes import Mode
from backend.domain.records import EventRecord
from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringMode, SteeringState
from backend.errors import SteeringError
from backend.protocols import Clock, Store
from backend.steering.client import SteeringEntry, TableError
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.serving.paying import LOOK_BACK
from backend.steering.serving.service_watch import ServiceWatch
from backend.steering.serving.table_writer import HOLDS, Entries, TableWriter
from backend.steering.serving.timings_intake import TimingsIntake

RECORD_EVERY_S = 60.0
"""Timings are added up for so long before they are stored and judged."""
_TIMINGS_READ = 20_000
"""Of an earlier process: at the start no more than this is read."""
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_TEXT_SHOWN = 60

TABLE, TIMINGS = "steering table", "spool of timings"
"""The files that may fail."""

T = TypeVar("T")


class SteeringService:
    """What stands in the register, carried to the plug-ins and back.

    Args:
        register: the query classes.
        places: the files that are shared with applications.
        store: takes timings and events.
        clock: time.
        mode: the autopilot's mode.
        frozen: whether nothing new may be served; withdrawals happen all the same.
        min_gain: smallest relative gain that is worth steering, in (0, 1).
    """

    def __init__(
        self,
        register: SteeringRegister,
        places: SteeringPlaces,
        store: Store,
        clock: Clock,
        *,
        mode: Callable[[], Mode],
        frozen: Callable[[], bool],
        min_gain: float = 0.1,
    ) -> None:
        self._register, self._store, self._clock = register, store, clock
        self._mode, self._frozen = mode, frozen
        self._lock = threading.RLock()
        self._intake = TimingsIntake(places.timings, self._stands)
        self._writer = TableWriter(places.table, clock)
        timings = store.service_timings(since=clock.now() - LOOK_BACK, limit=_TIMINGS_READ)
        self._watch = ServiceWatch(min_gain, timings)
        self._recorded_at, self._recorded_at_s = clock.now(), float("-inf")
        self._failures: dict[str, str] = {}
        self._told_broken = False

    @property
    def served(self) -> int:
        """Classes that are steered now."""
        return len(self._writer.in_force)

    def tick(self) -> None:
        """Take timings, judge, withdraw, write the table. Call it every few seconds.

        Raises:
            StoreError: the store failed; what was reported is kept for the next tick.
        """
        with self._lock:
            self._take_timings()
            if self._clock.monotonic_s() - self._recorded_at_s >= RECORD_EVERY_S:
                self._record_timings()
            self._write_table()

    def close(self) -> None:
        """Nothing is steered any more, pinned classes included: nobody watches over them.

        Raises:
            StoreError: the store failed.
        """
        with self._lock:
            self._attempt(TABLE, self._writer.expire)
            self._take_timings()
            self._record_timings()

    def set_mode(self, payload: Mapping[str, Any], actor: str = "operator") -> str:
        """Carry out an operator's command STEER.

        Args:
            payload: ``fingerprint``, ``search_path`` and ``mode``, as anybody may have sent it.
            actor: who sent it.

        Returns:
            What came of it, for people.

        Raises:
            SteeringError: it names no class that is known or no mode, or there is nothing to pin.
        """
        key, mode = _wanted(payload)
        with self._lock:
            record = self._register.set_mode(key, mode, actor)
            self._write_table()
            return self._answer(record)

    # -- timings ------------------------------------------------------------------------------

    def _stands(self, key: ClassKey, hint_set: str) -> bool:
        record = self._register.get(key)
        evidence = record.evidence if record is not None else None
        return evidence is not None and evidence.hint_set == hint_set

    def _take_timings(self) -> None:
        broken = self._attempt(TIMINGS, self._intake.take)
        if broken and not self._told_broken:
            self._told_broken = True
            self._tell(
                "warning",
                "steering_file",
                f"{broken} lines of the spool of timings are none; install the query_steering "
                "that belongs to this autopilot in the applications",
            )

    def _record_timings(self) -> None:
        """Store what was reported since the last time, and judge by it.

        Raises:
            StoreError: the store failed; nothing is lost.
        """
        now = self._clock.now()
        records = self._intake.records(self._recorded_at, now)
        if records:
            self._store.add_service_timings(records)
            self._intake.forget()
            self._recorded_at_s = self._clock.monotonic_s()
            for record, evidence, withdrawal in self._watch.judge(
                self._register.classes(), records, now
            ):
                self._register.withdraw(record.key, withdrawal.reason, evidence)
        self._recorded_at = now

    # -- the table ----------------------------------------------------------------------------

    def _write_table(self) -> None:
        wanted, before = self._wanted_entries(), self._writer.written
        self._attempt(TABLE, lambda: self._writer.write(wanted))
        self._tell_changes(before, self._writer.written)

    def _wanted_entries(self) -> dict[ClassKey, SteeringEntry]:
        """An entry for each class to serve: what humans pinned first, then by what it saves."""
        served = sorted(self._register.served(self._mode()), key=_importance)
        entries: dict[ClassKey, SteeringEntry] = {}
        for record in served:
            try:
                entries[record.key] = entry_of(record)
            except TableError as error:
                # One that plug-ins would refuse would cost all others their place.
                reason = f"plug-ins would refuse it: {error}"
                if (record.state, record.reason) != (SteeringState.WITHDRAWN, reason):
                    self._register.withdraw(record.key, reason, record.evidence)
        if self._frozen():
            present = self._writer.written
            return {
                key: entry
                for key, entry in entries.items()
                if key in present and entry.settings == present[key].settings
            }
        return entries

    # -- what is told -------------------------------------------------------------------------

    def _tell_changes(self, before: Entries, now: Entries) -> None:
        for key, entry in now.items():
            record = self._register.get(key)
            if record is None or record.evidence is None:
                continue
            if key not in before or before[key].settings != entry.settings:
                faster = record.evidence.default_ms / max(record.evidence.steered_ms, 1e-3)
                self._tell(
                    "info",
                    "hint_set_served",
                    f"{_named(record)} now runs under {entry.hint_set}, {faster:.1f} times as fast "
                    "as the default plan when it was verified",
                    key,
                )
        for key, entry in before.items():
            record = self._register.get(key)
            if key not in now and record is not None:
                self._tell(
                    "warning" if record.state is SteeringState.WITHDRAWN else "info",
                    "hint_set_withdrawn",
                    f"{_named(record)} runs under the default plan again instead of "
                    f"{entry.hint_set}: {self._why_not_served(record)}",
                    key,
                )

    def _why_not_served(self, record: SteeredClassRecord) -> str:
        if record.mode is SteeringMode.OFF:
            return "an operator switched its steering off"
        if record.mode is SteeringMode.AUTO:
            if record.state is not SteeringState.VERIFIED:
                return record.reason or record.state.value
            if self._mode() is not Mode.AUTO:
                return f"in mode {self._mode().value} only pinned classes are steered"
        if self._frozen():
            return "the freeze switch is on"
        if TABLE in self._failures:
            return "the steering table cannot be written"
        return record.reason or "the steering table is full"

    def _answer(self, record: SteeredClassRecord) -> str:
        name, evidence = record.key.fingerprint, record.evidence
        if record.mode is SteeringMode.OFF:
            return f"{name} keeps the default plan until somebody chooses otherwise"
        is_served = record.key in self._writer.in_force and evidence is not None
        if record.mode is SteeringMode.PIN and evidence is not None:
            answer = f"{name} is pinned to {evidence.hint_set} until somebody chooses otherwise"
            return answer if is_served else f"{answer}; not yet: {self._why_not_served(record)}"
        if is_served and evidence is not None:
            return f"{name} is left to the autopilot, which steers it with {evidence.hint_set}"
        why = self._why_not_served(record)
        return f"{name} is left to the autopilot, which does not steer it now: {why}"

    def _attempt(self, what: str, act: Callable[[], T]) -> T | None:
        """Do something with a file; where the disk fails, that is told once and None answered."""
        try:
            done = act()
        except OSError as error:
            if self._failures.get(what) != str(error):
                self._failures[what] = str(error)
                self._tell("error", "steering_file", _disk_failed(what, error))
            return None
        if self._failures.pop(what, None) is not None:
            self._tell("info", "steering_file", f"The {what} can be used again")
        return done

    def _tell(self, level: str, kind: str, message: str, key: ClassKey | None = None) -> None:
        detail = (
            {} if key is None else {"fingerprint": key.fingerprint, "search_path": key.search_path}
        )
        self._store.add_event(EventRecord(self._clock.now(), level, kind, message, detail=detail))


def entry_of(record: SteeredClassRecord) -> SteeringEntry:
    """The steering table's entry for a class with evidence.

    Raises:
        SteeringError: it has none.
        TableError: plug-ins would not take it.
    """
    evidence = record.evidence
    if evidence is None:
        raise SteeringError(f"no hint set was proven faster for {record.key.fingerprint}")
    return SteeringEntry(
        fingerprint=record.key.fingerprint,
        search_path=record.key.search_path,
        hint_set=evidence.hint_set,
        settings=evidence.settings,
        under=evidence.under,
        functions=frozenset(evidence.functions),
        mode=record.mode.value,
    )


def _importance(record: SteeredClassRecord) -> tuple[bool, float]:
    evidence = record.evidence
    saved_ms = evidence.default_ms - evidence.steered_ms if evidence is not None else 0.0
    return record.mode is not SteeringMode.PIN, -saved_ms


def _named(record: SteeredClassRecord) -> str:
    text = " ".join(record.text.split())
    shown = text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}..."
    return f"{record.key.fingerprint} ({shown})"


def _disk_failed(what: str, error: OSError) -> str:
    if what == TABLE:
        return (
            f"The steering table cannot be written, and nothing is steered in "
            f"{HOLDS.total_seconds():.0f} s: {error}. Let the autopilot write to its folder"
        )
    return (
        f"Timings of steered statements cannot be taken, so nobody sees whether hint sets still "
        f"pay: {error}. Let the autopilot read and rename files in their folder"
    )


def _wanted(payload: Mapping[str, Any]) -> tuple[ClassKey, SteeringMode]:
    """Read a command's payload, which anybody may have sent.

    Raises:
        SteeringError: it names no class or no mode.
    """
    fingerprint, search_path = payload.get("fingerprint"), payload.get("search_path")
    if not isinstance(fingerprint, str) or _FINGERPRINT.fullmatch(fingerprint) is None:
        raise SteeringError(
            f"fingerprint is {fingerprint!r:.40}, not 16 hexadecimal digits",
            remedy="name a class that the page Queries shows",
        )
    if not isinstance(search_path, str):
        raise SteeringError(
            f"search_path is {search_path!r:.80}, not a text",
            remedy='send it as SHOW search_path prints it, for instance "$user", public',
        )
    try:
        return ClassKey(fingerprint, search_path), SteeringMode(payload.get("mode"))
    except ValueError:
        raise SteeringError(
            f"mode is {payload.get('mode')!r:.40}",
            remedy=f"choose one of {', '.join(mode.value for mode in SteeringMode)}",
        ) from None
