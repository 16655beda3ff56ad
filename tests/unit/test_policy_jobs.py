"""Level 1 learns between trials, when it is time, and tells what came of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.domain.clock import ManualClock
from backend.domain.modes import Phase
from backend.domain.policies import PolicyUpdateRecord
from backend.domain.records import EventRecord
from backend.policy_jobs import PolicyJobs
from backend.steering.turns import ExplorationTurns
from tests.contracts import records as full


class Learner:
    """Says that it is time, and counts; nothing may be on trial while it learns."""

    def __init__(self, turns: ExplorationTurns) -> None:
        self.is_due, self.updates, self._turns = True, 0, turns
        self.fails = False

    def due(self) -> bool:
        return self.is_due

    def update(self) -> list[PolicyUpdateRecord]:
        self.updates += 1
        may_begin: list[bool] = []
        self._turns.advance_tuner(lambda may: bool(may_begin.append(may)))
        assert may_begin == [False]
        if self.fails:
            raise RuntimeError("no more memory")
        return [replace(full.POLICY_UPDATE, policy="knob", deployed=True, reason="it gains")]


class Told:
    def __init__(self) -> None:
        self.events: list[EventRecord] = []

    def add_event(self, event: EventRecord) -> int:
        self.events.append(event)
        return len(self.events)


@pytest.fixture
def turns() -> ExplorationTurns:
    return ExplorationTurns(0.2, ManualClock())


@pytest.fixture
def learner(turns: ExplorationTurns) -> Learner:
    return Learner(turns)


def jobs(
    learner: Learner, turns: ExplorationTurns, told: Told, phase: Phase = Phase.LEARNING
) -> PolicyJobs:
    return PolicyJobs(learner, turns, told, ManualClock(), lambda: phase)  # type: ignore[arg-type]


def may_begin(turns: ExplorationTurns, *, running: bool = False) -> bool:
    told: list[bool] = []
    turns.advance_tuner(lambda may: told.append(may) or running)  # type: ignore[func-returns-value]
    return told[0]


def test_an_update_is_told_and_trials_go_on(learner: Learner, turns: ExplorationTurns) -> None:
    told = Told()
    jobs(learner, turns, told).learn()
    assert [event.message for event in told.events] == [
        "a new knob policy was learnt and deployed: it gains"
    ]
    assert may_begin(turns)


def test_nothing_is_learnt_before_it_is_time(learner: Learner, turns: ExplorationTurns) -> None:
    learner.is_due = False
    jobs(learner, turns, Told()).learn()
    assert learner.updates == 0


def test_it_waits_for_the_trial_that_runs(learner: Learner, turns: ExplorationTurns) -> None:
    learns = jobs(learner, turns, Told())
    may_begin(turns, running=True)
    learns.learn()
    assert learner.updates == 0
    may_begin(turns)
    learns.learn()
    assert learner.updates == 1


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.BASELINE, Phase.FINAL_COMPARISON])
def test_nothing_disturbs_a_baseline_or_the_end(
    learner: Learner, turns: ExplorationTurns, phase: Phase
) -> None:
    jobs(learner, turns, Told(), phase).learn()
    assert learner.updates == 0


def test_trials_go_on_after_a_failure(learner: Learner, turns: ExplorationTurns) -> None:
    learner.fails = True
    with pytest.raises(RuntimeError, match="memory"):
        jobs(learner, turns, Told()).learn()
    assert may_begin(turns)
