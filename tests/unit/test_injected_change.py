"""The demonstration's harmful change comes once, when it can, and is told."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from backend.catalog.knobs import load_catalog
from backend.demonstration import ACT, ACTS, BAD_CHANGE, HARMFUL, INJECTED
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobValue
from backend.domain.records import EventRecord
from backend.domain.server import HostFacts
from backend.errors import AdjustmentError
from backend.injected_change import InjectedChange
from backend.run_options import RunOptions

DUE_S = next(act for act in ACTS if act.name == BAD_CHANGE).begins * 2 * 864.0


class Loop:
    def __init__(self) -> None:
        self.can, self.refuses = True, False
        self.put: list[Mapping[str, KnobValue]] = []

    def put_in_force(self, values: Mapping[str, KnobValue], proposer: str, reason: str) -> bool:
        if self.refuses:
            raise AdjustmentError("the server refuses it")
        if self.can:
            assert proposer == INJECTED
            assert "on purpose" in reason
            self.put.append(values)
        return self.can


class Store:
    def __init__(self, *trials: SimpleNamespace) -> None:
        self.events: list[EventRecord] = []
        self._trials = trials

    def add_event(self, event: EventRecord) -> int:
        self.events.append(event)
        return len(self.events)

    def trials(self, *, limit: int) -> tuple[SimpleNamespace, ...]:
        return self._trials[-limit:]


def injected(
    loop: Loop,
    store: Store,
    clock: ManualClock,
    knobs: tuple[str, ...] = tuple(HARMFUL),
    **run: object,
) -> InjectedChange:
    options = {
        "duration_days": 2.0, "fast_mode": True, "from_defaults": True,
        "begun_at": clock.now().timestamp(), **run,
    }  # fmt: skip
    return InjectedChange(RunOptions(**options), loop, store, clock, lambda name: name in knobs)  # type: ignore[arg-type]


def test_it_comes_at_its_moment_and_once() -> None:
    loop, store, clock = Loop(), Store(), ManualClock()
    change = injected(loop, store, clock)
    clock.advance(DUE_S - 1)
    change.tick()
    assert loop.put == []
    clock.advance(2)
    change.tick()
    change.tick()
    assert loop.put == [HARMFUL]
    (event,) = store.events
    assert event.kind == ACT
    assert "work_mem = 64" in event.message


def test_it_waits_until_nothing_is_on_trial() -> None:
    loop, store, clock = Loop(), Store(), ManualClock()
    change = injected(loop, store, clock)
    clock.advance(DUE_S + 1)
    loop.can = False
    change.tick()
    assert store.events == []
    loop.can = True
    change.tick()
    assert loop.put == [HARMFUL]


def test_a_tuner_started_again_does_not_repeat_it() -> None:
    loop, clock = Loop(), ManualClock()
    began = clock.now()
    clock.advance(DUE_S + 60)
    before = SimpleNamespace(proposer=INJECTED, created_at=clock.now())
    injected(loop, Store(before), clock, begun_at=began.timestamp()).tick()
    assert loop.put == []


def test_what_cannot_be_written_here_is_left_out() -> None:
    loop, clock = Loop(), ManualClock()
    change = injected(loop, Store(), clock, knobs=("work_mem",))
    clock.advance(DUE_S + 1)
    change.tick()
    assert loop.put == [{"work_mem": HARMFUL["work_mem"]}]


def test_the_demo_server_may_be_given_it() -> None:
    catalog = load_catalog(170000, HostFacts(memory_bytes=8 << 30, cpu_count=2))
    for name, value in HARMFUL.items():
        assert catalog.knob(name).knob.validate(value) == value
        assert catalog.knob(name).knob.context != "restart"


@pytest.mark.parametrize("run", [{"duration_days": 1.0}, {"from_defaults": False}])
def test_only_a_demonstration_has_one(run: dict[str, object]) -> None:
    loop, clock = Loop(), ManualClock()
    change = injected(loop, Store(), clock, **run)
    clock.advance(1e6)
    change.tick()
    assert loop.put == []


def test_a_refusal_is_logged_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    loop, store, clock = Loop(), Store(), ManualClock()
    change = injected(loop, store, clock)
    clock.advance(DUE_S + 1)
    loop.refuses = True
    change.tick()
    loop.refuses = False
    change.tick()
    assert "the server refuses it" in caplog.text
    assert (loop.put, store.events) == ([], [])
