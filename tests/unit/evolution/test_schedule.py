"""When an evolution begins by itself, rests, goes on and ends; no network learns here."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from backend.config import Settings
from backend.domain.modes import Mode, Phase
from backend.domain.policies import EvolutionRecord
from backend.domain.records import StatusRecord, TransitionRecord
from backend.errors import StoreError
from backend.evolution import course as course_module
from backend.evolution import schedule as schedule_module
from backend.evolution.course import MOST_STARTS, Course, StoppedError
from backend.evolution.schedule import LEAST_NEW, EvolutionSchedule, longest_s
from backend.host_metrics import CgroupLimits, HostSample
from backend.telemetry import SqlStore

BEGUN = datetime(2026, 11, 22, tzinfo=timezone.utc)
DAY = timedelta(days=1)
GIB = 2**30


class Clock:
    """A moment that tests set."""

    def __init__(self) -> None:
        self.moment = BEGUN

    def now(self) -> datetime:
        return self.moment


class Host:
    """A machine with 8 GiB."""

    used_percent = 40.0

    def sample(self) -> HostSample:
        gauges = {"host_memory_bytes": 8.0 * GIB, "host_memory_percent": self.used_percent}
        return HostSample(gauges=gauges)


@pytest.fixture(autouse=True)
def _unmetered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_module, "cgroup_limits", CgroupLimits)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def schedule(store: SqlStore, clock: Clock) -> EvolutionSchedule:
    return EvolutionSchedule(Settings(), store, clock=clock, host=Host())  # type: ignore[arg-type]


def learning(store: SqlStore, clock: Clock, **fields: object) -> None:
    store.save_status(StatusRecord(clock.moment, Mode.AUTO, Phase.LEARNING, **fields))  # type: ignore[arg-type]


def recorded(store: SqlStore, at: datetime, count: int = LEAST_NEW, knob_space: str = "s") -> None:
    for number in range(count):
        store.add_transition(
            TransitionRecord(
                at=at + timedelta(seconds=number), run="r", workload="w", knob_space=knob_space,
                state_layout="l", state=(), config={}, objective=1.0, quality=1.0,
                censored=False, reward_terms={},
            )
        )  # fmt: skip


def test_the_first_one_begins_when_enough_was_recorded(
    store: SqlStore, clock: Clock, schedule: EvolutionSchedule
) -> None:
    learning(store, clock)
    assert "too little was recorded" in schedule.hindrance()
    recorded(store, BEGUN, LEAST_NEW - 1)
    assert "too little was recorded" in schedule.hindrance()
    recorded(store, BEGUN, 1)
    assert schedule.hindrance() == ""


def test_what_was_recorded_of_other_knobs_does_not_count(
    store: SqlStore, clock: Clock, schedule: EvolutionSchedule
) -> None:
    learning(store, clock)
    recorded(store, BEGUN)
    recorded(store, BEGUN + timedelta(minutes=1), 1, "another")
    assert "of the knobs that are tuned now" in schedule.hindrance()
    recorded(store, BEGUN + timedelta(minutes=2), LEAST_NEW - 1, "another")
    assert schedule.hindrance() == ""


def test_the_next_one_needs_the_interval_and_new_measurements_again(
    store: SqlStore, clock: Clock, schedule: EvolutionSchedule
) -> None:
    recorded(store, BEGUN)
    last = EvolutionRecord(BEGUN + DAY, BEGUN + DAY, ended_at=BEGUN + DAY)
    store.save_evolution(last)
    clock.moment = BEGUN + 1.9 * DAY
    learning(store, clock)
    assert "interval" in schedule.hindrance()
    clock.moment = BEGUN + 2 * DAY
    assert "too little was recorded" in schedule.hindrance()
    recorded(store, BEGUN + 1.5 * DAY)
    assert schedule.hindrance() == ""


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.LEARNING, Phase.OPTIMISED)])
def test_nothing_begins_in_another_phase(
    store: SqlStore, clock: Clock, schedule: EvolutionSchedule, phase: Phase
) -> None:
    recorded(store, BEGUN)
    clock.moment = BEGUN + DAY
    assert schedule.hindrance()  # there is no tuner yet
    store.save_status(StatusRecord(clock.moment, Mode.AUTO, phase))
    assert "not learning" in schedule.hindrance()
    learning(store, clock, measures_alone=True)  # the baseline of another workload
    assert "not learning" in schedule.hindrance()
    learning(store, clock)
    assert schedule.hindrance() == ""


def test_the_interval_passes_as_fast_as_the_demos_clock(store: SqlStore, clock: Clock) -> None:
    recorded(store, BEGUN + timedelta(seconds=1))
    store.save_evolution(EvolutionRecord(BEGUN, BEGUN, ended_at=BEGUN))
    fast = EvolutionSchedule(
        Settings(), store, time_scale=100.0, clock=clock, host=Host()  # type: ignore[arg-type]
    )  # fmt: skip
    clock.moment = BEGUN + timedelta(seconds=863)
    learning(store, clock)
    assert "interval" in fast.hindrance()
    clock.moment = BEGUN + timedelta(seconds=864)
    assert fast.hindrance() == ""
    assert longest_s(Settings(), 100.0) == 432.0
    assert longest_s(Settings(), 1.0) == 1200.0


def test_a_machine_without_room_is_left_alone(
    store: SqlStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host()
    schedule = EvolutionSchedule(Settings(), store, clock=clock, host=host)  # type: ignore[arg-type]
    recorded(store, BEGUN)
    clock.moment = BEGUN + DAY
    learning(store, clock)
    host.used_percent = 80.0  # and 12.5 % more would pass the limit of 92 %
    assert "memory is short" in schedule.hindrance()
    host.used_percent = 79.0
    assert schedule.hindrance() == ""
    monkeypatch.setattr(schedule_module, "cgroup_limits", lambda: CgroupLimits(cpu_count=2.0))
    assert "metered" in schedule.hindrance()


def test_a_killed_one_goes_on_a_few_times_without_waiting_for_the_interval(
    store: SqlStore, clock: Clock, schedule: EvolutionSchedule
) -> None:
    last = EvolutionRecord(BEGUN, BEGUN, by_itself=True)
    store.save_evolution(last)
    clock.moment = BEGUN + timedelta(seconds=30)
    learning(store, clock)
    assert "at work" in schedule.hindrance()
    clock.moment = BEGUN + timedelta(seconds=61)
    assert schedule.hindrance() == ""
    store.save_evolution(replace(last, starts=MOST_STARTS))
    assert "interval" in schedule.hindrance()
    store.save_evolution(replace(last, by_itself=False))  # run.py evolve: the user goes on, or not
    assert "interval" in schedule.hindrance()


def test_a_store_that_cannot_be_read_is_looked_at_later(
    schedule: EvolutionSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def fail() -> str:
        looks.append("")
        raise StoreError("it is locked")

    monkeypatch.setattr(schedule, "hindrance", fail)
    assert not schedule.due()
    assert not schedule.due()
    assert len(looks) == 1


# -- the course ------------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The course's monotonic clock; tests move it."""
    time = SimpleNamespace(now_s=1000.0)
    time.monotonic = lambda: time.now_s
    monkeypatch.setattr(course_module, "time", time)
    return time


def test_it_rests_while_the_tuner_measures_alone_and_that_does_not_count(
    store: SqlStore, looks: SimpleNamespace
) -> None:
    now = datetime.now(timezone.utc)
    store.save_status(StatusRecord(now, Mode.AUTO, Phase.BASELINE, measures_alone=True))
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            looks.now_s += 1.0
            if len(waits) == 7:
                store.save_status(StatusRecord(now, Mode.AUTO, Phase.LEARNING))
            return False

    course = Course(store, 60.0, by_itself=True, stop=Stop())
    looks.now_s += 10.0
    course.attend()
    assert len(waits) == 7
    assert course.used_s == 10.0
    record = store.evolution()
    assert record is not None
    assert "resting" in record.activity
    looks.now_s += 5.0
    course.attend()
    assert len(waits) == 7
    assert course.left_s == 45.0


def test_a_tuner_that_died_while_it_measured_holds_nothing_up(store: SqlStore) -> None:
    long_ago = datetime.now(timezone.utc) - timedelta(minutes=2)
    store.save_status(StatusRecord(long_ago, Mode.AUTO, Phase.BASELINE, measures_alone=True))
    Course(store, 60.0).attend()


def test_it_ends_between_two_trials_when_it_is_told_to(store: SqlStore) -> None:
    stop = threading.Event()
    course = Course(store, 60.0, stop=stop)
    course.attend()
    stop.set()
    with pytest.raises(StoppedError):
        course.attend()


def test_one_that_was_killed_goes_on_with_the_time_that_was_left(
    store: SqlStore, looks: SimpleNamespace
) -> None:
    first = Course(store, 100.0, by_itself=True)
    looks.now_s += 30.0
    first.tell("evolving")
    looks.now_s += 500.0  # killed in between
    second = Course(store, 100.0, by_itself=True)
    assert second.record.began_at == first.record.began_at
    assert (second.record.starts, second.left_s) == (2, 70.0)
    looks.now_s += 65.0
    second.tell("judging")
    third = Course(store, 100.0, by_itself=True)
    assert third.left_s == 50.0  # enough to judge
    third.end("Not deployed")
    fourth = Course(store, 100.0, by_itself=True)
    assert (fourth.record.starts, fourth.left_s) == (1, 100.0)
    told = [event.message for event in store.events() if event.kind == "evolution"]
    assert told == [
        "an evolution begins: 1.7 minutes at most",
        "an evolution goes on: 1.2 minutes at most",
        "an evolution goes on: 0.8 minutes at most",
        "Not deployed",
        "an evolution begins: 1.7 minutes at most",
    ]
