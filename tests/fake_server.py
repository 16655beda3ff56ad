"""A server and a journal in memory that fail, or die, wherever a test wants them to.

The server behaves as PostgreSQL does where it matters here: entries have no effect before a
reload, restart knobs none before a restart, and writing several entries is not atomic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from backend.catalog import KnobCatalog, load_catalog
from backend.catalog.entries import entry_text, entry_value
from backend.domain.knobs import KnobValue
from backend.domain.metrics import MetricsSnapshot, QueryKey
from backend.domain.modes import ChangeState
from backend.domain.records import ChangeRecord, EventRecord, LeaseRecord
from backend.domain.server import HostFacts, KnobReading, ServerInfo
from backend.errors import EmbeddedServerError, ServerConnectionError, ServerError

HOST = HostFacts(memory_bytes=8 << 30, cpu_count=4.0, free_disk_bytes=100 << 30)
CATALOG: KnobCatalog = load_catalog(17, HOST)
START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Crash(BaseException):
    """The tuner's process dies here: no handler of the code under test runs usefully after it."""


class Steps:
    """Counts the points at which things can go wrong, and goes wrong at the chosen ones."""

    def __init__(self) -> None:
        self.faults: list[tuple[int | str, Callable[[], BaseException]]] = []
        self.dead = False
        self.log: list[str] = []

    def fail_after(self, steps: int, error: Callable[[], BaseException]) -> None:
        """Raise at the step with this number, counted from now, beginning with 0."""
        self.faults.append((len(self.log) + steps, error))

    def fail_at(self, name: str, error: Callable[[], BaseException]) -> None:
        """Raise at every step of this name."""
        self.faults.append((name, error))

    def clear(self) -> None:
        self.faults, self.dead = [], False

    def step(self, name: str) -> None:
        if self.dead:
            raise Crash
        at = len(self.log)
        self.log.append(name)
        for number, error in self.faults:
            if number in (at, name):
                raised = error()
                self.dead = isinstance(raised, Crash)
                raise raised


class FakeClock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic_s(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += max(seconds, 1e-6)


class FakeServer:
    """Implements TargetDatabase as far as changing knobs needs it."""

    def __init__(self, steps: Steps, catalog: KnobCatalog = CATALOG) -> None:
        self.steps = steps
        self.knobs = {entry.name: entry.knob for entry in catalog}
        self.entries: dict[str, str] = {}
        self.running: dict[str, KnobValue] = {n: self._default(n) for n in self.knobs}
        self.pending: set[str] = set()
        self.overrides: dict[str, str] = {}
        self.refused: set[str] = set()
        self.unstartable: dict[str, str] = {}
        self.reloads = self.restarts = self.writes = self.reads = self.ended = 0
        self.reload_lag = 0
        self._queued: dict[str, KnobValue] = {}
        self.started_at = START
        self.up = True
        self.can_restart = True
        self.closed = False

    # -- what a human does behind our back --------------------------------------------------

    def foreign_set(self, name: str, value: KnobValue | None, *, reload: bool) -> None:
        if value is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = entry_text(value)
        if reload:
            self._activate(restart=False)

    # -- TargetDatabase ---------------------------------------------------------------------

    def describe(self) -> ServerInfo:
        self._reach("describe")
        return ServerInfo("fake-1", "fake", 170010, "17.10", "nowhere", self.started_at, HOST)

    def snapshot(self) -> MetricsSnapshot:
        raise AssertionError("changing knobs needs no snapshot")

    def query_texts(self, keys: Sequence[QueryKey]) -> Mapping[QueryKey, str]:
        raise AssertionError("changing knobs needs no query texts")

    def read_knobs(self, names: Sequence[str]) -> Mapping[str, KnobReading]:
        self._reach("read")
        self.reads += 1
        if self._queued:
            self.reload_lag -= 1
            if self.reload_lag <= 0:
                self.running.update(self._queued)
                self._queued = {}
        return {
            name: KnobReading(
                name=name,
                value=self.running[name],
                source="configuration file" if name in self._active else "default",
                pending_restart=name in self.pending,
                entry=self.entries.get(name),
                override=self.overrides.get(name),
            )
            for name in names
            if name in self.knobs
        }

    def write_entries(self, entries: Mapping[str, KnobValue | None]) -> None:
        for name, value in entries.items():
            self._reach(f"write {name}")
            if name in self.refused:
                raise ServerError(f"permission denied to set parameter {name}")
            self.writes += 1
            if value is None:
                self.entries.pop(name, None)
            else:
                self.entries[name] = value if isinstance(value, str) else entry_text(value)
            self._reach(f"wrote {name}")

    def reload(self) -> None:
        self._reach("reload")
        self.reloads += 1
        self._activate(restart=False)
        self._reach("reloaded")

    def restart(self) -> None:
        self._reach("restart")
        self.restarts += 1
        if not self.can_restart:
            raise ServerError("restarts are not allowed here")
        bad = [n for n, text in self.unstartable.items() if self.entries.get(n) == text]
        for name in bad:
            del self.entries[name]
        self._activate(restart=True)
        self.started_at += timedelta(seconds=1)
        self._reach("restarted")
        if bad:
            raise EmbeddedServerError(f"the server did not start with {', '.join(bad)}")

    def end_tuner_sessions(self) -> int:
        self._reach("end sessions")
        self.ended += 1
        return 1

    def hold_tuner_lock(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    # -- inside -----------------------------------------------------------------------------

    @property
    def _active(self) -> set[str]:
        return set(self.entries) - self.pending

    def _default(self, name: str) -> KnobValue:
        value = self.knobs[name].default
        assert value is not None
        return value

    def value_of_entry(self, name: str) -> KnobValue:
        text = self.entries.get(name)
        return self._default(name) if text is None else entry_value(self.knobs[name], text)

    def _activate(self, *, restart: bool) -> None:
        for name, knob in self.knobs.items():
            value = self.value_of_entry(name)
            if knob.context == "restart" and not restart:
                if self.running[name] == value:
                    self.pending.discard(name)
                else:
                    self.pending.add(name)
                continue
            self.pending.discard(name)
            if self.reload_lag > 0 and not restart:
                self._queued[name] = value
            else:
                self.running[name] = value

    def _reach(self, what: str) -> None:
        self.steps.step(what)
        if not self.up:
            raise ServerConnectionError("the server does not answer")


class FakeJournal:
    """Implements Journal (and add_event) in memory; each call is atomic, as a transaction is."""

    def __init__(self, steps: Steps, clock: FakeClock) -> None:
        self.steps = steps
        self.clock = clock
        self.rows: dict[int, ChangeRecord] = {}
        self.leases: list[LeaseRecord] = []
        self.events: list[EventRecord] = []

    def add_changes(self, changes: Sequence[ChangeRecord]) -> Sequence[ChangeRecord]:
        self.steps.step("journal")
        added = []
        for change in changes:
            row = replace(change, id=len(self.rows) + 1)
            self.rows[len(self.rows) + 1] = row
            added.append(row)
        self.steps.step("journalled")
        return added

    def settle_changes(self, ids: Sequence[int], state: ChangeState, detail: str = "") -> None:
        if not ids:
            return
        self.steps.step(f"settle {state.value}")
        for number in ids:
            self.rows[number] = replace(self.rows[number], state=state, detail=detail)
        self.steps.step(f"settled {state.value}")

    def open_changes(self) -> Sequence[ChangeRecord]:
        self.steps.step("open changes")
        wanted = (ChangeState.PENDING, ChangeState.APPLIED)
        return [row for row in self.rows.values() if row.state in wanted]

    def changes_left_behind(self) -> Sequence[ChangeRecord]:
        return [row for row in self.rows.values() if row.state is ChangeState.LEFT_BEHIND]

    def acquire_lease(self, holder: str, ttl_s: float) -> int:
        epoch = len(self.leases) + 1
        expires_at = self.clock.now() + timedelta(seconds=ttl_s)
        self.leases.append(LeaseRecord(epoch, holder, expires_at, released=False))
        return epoch

    def renew_lease(self, epoch: int, ttl_s: float) -> bool:
        if epoch != self.current_epoch() or self.leases[-1].released:
            return False
        expires_at = self.clock.now() + timedelta(seconds=ttl_s)
        self.leases[-1] = replace(self.leases[-1], expires_at=expires_at)
        return True

    def current_epoch(self) -> int:
        return self.leases[-1].epoch if self.leases else 0

    def lease(self) -> LeaseRecord | None:
        return self.leases[-1] if self.leases else None

    def lease_expired(self, now: datetime) -> bool:
        lease = self.lease()
        return lease is not None and lease.expired(now)

    def release_lease(self, epoch: int) -> None:
        if epoch == self.current_epoch():
            self.leases[-1] = replace(self.leases[-1], released=True)

    def add_event(self, event: EventRecord) -> int:
        self.events.append(event)
        return len(self.events)
