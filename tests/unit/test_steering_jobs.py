"""The jobs around query steering: when statements are tried, when not, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from backend.config import Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.modes import Mode, Phase, SafetyAction
from backend.domain.records import EventRecord
from backend.domain.safety import SafetyVerdict
from backend.domain.steering import SteeringStatusRecord
from backend.errors import ServerConnectionError, ServerError, StoreError
from backend.steering.turns import MAX_SAVED_S, ExplorationTurns
from backend.steering_jobs import RETRY_S, SteeringJobs

STEP_S = 1.0


class Exploration:
    """Takes a second a step; ``left`` steps are worth making."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.spent_s, self.activity, self.left = clock, 0.0, "trying", 1000
        self.steps = 0
        self.before_step: Callable[[], None] = lambda: None

    def step(self) -> bool:
        self.before_step()
        if self.left == 0:
            return False
        self.left -= 1
        self.steps += 1
        self.clock.advance(STEP_S)
        self.spent_s += STEP_S
        return True


class Store:
    def __init__(self) -> None:
        self.events: list[EventRecord] = []
        self.statuses: list[SteeringStatusRecord] = []

    def add_event(self, event: EventRecord) -> None:
        self.events.append(event)

    def save_steering_status(self, status: SteeringStatusRecord) -> None:
        self.statuses.append(status)


class Case:
    """The jobs with everything around them made up, and a rich explorer."""

    def __init__(self, settings: Settings, *, explores: bool = True) -> None:
        self.clock, self.store = ManualClock(), Store()
        self.loop: Any = SimpleNamespace(
            trial=None, paused=False, phase=Phase.LEARNING, workloads=SimpleNamespace(away=False)
        )
        self.frozen, self.cpu_percent, self.mode = False, 20.0, Mode.ADVISE
        self.verdict = SafetyVerdict(SafetyAction.ALLOW)
        self.turns = ExplorationTurns(settings.steering.share, self.clock)
        self.exploration = Exploration(self.clock)
        self.learnt = self.served = self.taken = self.cancelled = 0
        self.on_learn: Callable[[], None] = lambda: None
        self.jobs = SteeringJobs(
            settings,
            self.store,  # type: ignore[arg-type]
            self.clock,
            self.loop,
            mode=lambda: self.mode,
            frozen=lambda: self.frozen,
            safety=lambda: self.verdict,
            host_cpu_percent=lambda: self.cpu_percent,
            turns=self.turns,
            service=SimpleNamespace(tick=self.count("served"), served=2),  # type: ignore[arg-type]
            intake=SimpleNamespace(take=self.count("taken")),  # type: ignore[arg-type]
            explorer=SimpleNamespace(  # type: ignore[arg-type]
                exploration=self.exploration,
                learner=SimpleNamespace(learn=self._learn),
                url=SimpleNamespace(username="reader"),
                cancel=self.count("cancelled"),
            )
            if explores
            else None,
        )
        self.clock.advance(MAX_SAVED_S / settings.steering.share)

    def count(self, name: str) -> Callable[[], None]:
        return lambda: setattr(self, name, getattr(self, name) + 1)

    def _learn(self) -> None:
        self.learnt += 1
        self.on_learn()

    def hindrance(self) -> str:
        self.jobs.serve()
        return self.store.statuses[-1].hindrance


@pytest.fixture
def settings() -> Settings:
    return load_settings(overrides={"steering": {"share": 0.2}}, environ={})


@pytest.fixture
def case(settings: Settings) -> Case:
    return Case(settings)


def test_a_turn_is_a_minute_at_most_and_is_followed_by_learning(case: Case) -> None:
    case.jobs.explore()
    assert case.exploration.steps == 60
    assert case.learnt == 1
    assert not case.turns.exploring


def test_between_two_trials_the_explorer_comes_first(case: Case) -> None:
    """The tuner looks more often than the explorer."""
    told: list[bool] = []

    def tick(running: bool) -> Callable[[bool], bool]:
        return lambda may_begin: (told.append(may_begin), running)[1]

    case.turns.advance_tuner(tick(running=True))
    case.jobs.explore()
    assert case.exploration.steps == 0
    case.turns.advance_tuner(tick(running=False))  # the trial ends
    case.turns.advance_tuner(tick(running=False))
    assert told == [True, False, False]
    case.jobs.explore()
    assert case.exploration.steps > 0
    case.turns.advance_tuner(tick(running=False))
    assert told[-1]


def test_a_turn_ends_when_nothing_is_left(case: Case) -> None:
    case.exploration.left = 3
    case.jobs.explore()
    assert case.exploration.steps == 3
    assert not case.turns.exploring


def close_hours(case: Case) -> None:
    later = case.clock.now() + timedelta(hours=2)
    hours = f"{later:%a} {later:%H}:00-{later:%H}:30"
    case.jobs._settings = load_settings(overrides={"schedule": {"trials": [hours]}}, environ={})


HINDRANCES: dict[str, Callable[[Case], None]] = {
    "paused": lambda case: setattr(case.loop, "paused", True),
    "mode observe": lambda case: setattr(case, "mode", Mode.OBSERVE),
    "frozen": lambda case: setattr(case, "frozen", True),
    "outside the hours of trials": lambda case: close_hours(case),
    "baseline": lambda case: setattr(case.loop, "phase", Phase.BASELINE),
    "final comparison": lambda case: setattr(case.loop, "phase", Phase.FINAL_COMPARISON),
    "another workload": lambda case: setattr(case.loop.workloads, "away", True),
    "memory is low": lambda case: setattr(
        case, "verdict", SafetyVerdict(SafetyAction.BLOCK, ("memory is low",))
    ),
    "CPU use is 97 %": lambda case: setattr(case, "cpu_percent", 97.0),
}


@pytest.mark.parametrize("told", HINDRANCES)
def test_nothing_is_tried_at_a_bad_time_and_the_page_says_why(case: Case, told: str) -> None:
    HINDRANCES[told](case)
    case.jobs.explore()
    assert case.exploration.steps == 0
    assert case.learnt == 0
    assert told in case.hindrance()


@pytest.mark.parametrize("told", HINDRANCES)
def test_a_turn_ends_when_the_time_becomes_bad(case: Case, told: str) -> None:
    case.exploration.before_step = lambda: (
        HINDRANCES[told](case) if case.exploration.steps == 4 else None
    )
    case.jobs.explore()
    assert case.exploration.steps == 5
    assert not case.turns.exploring


def test_in_mode_observe_statements_are_tried_where_the_settings_ask_for_it() -> None:
    case = Case(load_settings(overrides={"steering": {"explore": True}}, environ={}))
    case.mode = Mode.OBSERVE
    case.jobs.explore()
    assert case.exploration.steps > 0


def test_a_server_that_is_gone_is_told_once_and_tried_again_later(case: Case) -> None:
    def lost() -> None:
        raise ServerConnectionError("no route to host")

    case.exploration.before_step = lost
    for _ in range(3):
        case.jobs.explore()
        case.clock.advance(RETRY_S)
    assert [event.kind for event in case.store.events] == ["exploration"]
    assert case.hindrance() == "no route to host"
    case.exploration.before_step = lambda: None
    case.jobs.explore()
    assert case.exploration.steps > 0
    assert case.hindrance() == ""


def test_the_server_s_words_are_not_repeated(case: Case) -> None:
    def refused() -> None:
        raise ServerError("invalid input 'Ms Miller' (22P02)")

    case.exploration.before_step = refused
    case.jobs.explore()
    assert "22P02" in case.hindrance()
    assert "Miller" not in str(case.store.events) + case.hindrance()


def test_whatever_goes_wrong_the_turn_is_over_and_paid_for(case: Case) -> None:
    def broken() -> None:
        case.clock.advance(STEP_S)
        case.exploration.spent_s += STEP_S
        raise StoreError("disk full")

    case.exploration.before_step = broken
    saved_s = case.turns.saved_s
    with pytest.raises(StoreError):
        case.jobs.explore()
    assert not case.turns.exploring
    assert case.turns.saved_s == pytest.approx(saved_s + MAX_SAVED_S - STEP_S)


def test_a_stop_ends_the_turn_and_the_statement_that_runs(case: Case) -> None:
    case.exploration.before_step = lambda: case.jobs.stop() if case.exploration.steps == 4 else None
    case.jobs.explore()
    assert case.exploration.steps == 5
    assert case.cancelled == 1


def test_learning_belongs_to_the_turn(case: Case) -> None:
    seen: list[bool] = []
    case.on_learn = lambda: seen.append(case.turns.exploring)
    case.jobs.explore()
    assert seen == [True]


def test_what_the_explorer_waits_for_is_told(case: Case) -> None:
    case.jobs.serve()
    case.loop.trial = object()
    case.jobs.serve()
    share, trial = case.store.statuses
    assert "share of the time" in share.activity
    assert "trial" in trial.activity


def test_where_nothing_is_explored_hint_sets_are_served_all_the_same(settings: Settings) -> None:
    case = Case(settings, explores=False)
    case.jobs.explore()
    case.jobs.serve()
    assert case.exploration.steps == 0
    assert case.served == 1
    (status,) = case.store.statuses
    assert (status.enabled, status.served) == (False, 2)
    assert status.hindrance


def test_the_state_is_stored_when_it_changes_and_as_a_sign_of_life(case: Case) -> None:
    for _ in range(3):
        case.jobs.serve()
        case.clock.advance(2)
    assert len(case.store.statuses) == 1
    assert case.store.statuses[0].role == "reader"
    case.clock.advance(10)
    case.jobs.serve()
    assert len(case.store.statuses) == 2
    case.loop.paused = True
    case.jobs.serve()
    assert len(case.store.statuses) == 3


def test_statements_are_taken_in(case: Case) -> None:
    case.jobs.take_in()
    assert case.taken == 1
