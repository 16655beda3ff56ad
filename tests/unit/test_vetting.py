"""Candidates pass the sandbox before they are tried; what fails there never is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from backend.candidates import Candidate, Candidates
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobValue
from backend.domain.records import EventRecord
from backend.sandbox.outcome import SandboxOutcome, SandboxResult
from backend.steering.turns import ExplorationTurns
from backend.vetting import Vetting

GOOD: dict[str, KnobValue] = {"work_mem": 8192}
BAD: dict[str, KnobValue] = {"work_mem": 64}
INDEX = 0.8


class FakeSandbox:
    """Fails what is bad; nothing may be on trial meanwhile."""

    progress = ""

    def __init__(self, turns: ExplorationTurns) -> None:
        self._turns = turns
        self.checked: list[Mapping[str, KnobValue]] = []
        self.meanwhile = lambda: None

    def check(self, changes: Mapping[str, KnobValue]) -> SandboxResult:
        self.checked.append(changes)
        assert not may_begin(self._turns)
        self.meanwhile()
        failed = changes == BAD
        outcome = SandboxOutcome.FAILED if failed else SandboxOutcome.PASSED
        return SandboxResult(outcome, ("twice as slow" if failed else "no harm found",))

    def close(self) -> None: ...


class Agent:
    """Proposes what it is given, one after the other."""

    def __init__(self, *proposals: Mapping[str, KnobValue]) -> None:
        self._proposals = list(proposals)
        self.too_slow: list[tuple[Mapping[str, KnobValue], float]] = []

    def ask(self, state: object) -> Candidate | None:
        return (self._proposals.pop(0), "the agent") if self._proposals else None

    def tell_too_slow(
        self, values: Mapping[str, KnobValue], index_standing: float, state: object
    ) -> None:
        self.too_slow.append((values, index_standing))


class Told:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def add_event(self, event: EventRecord) -> int:
        self.messages.append(event.message)
        return len(self.messages)


def may_begin(turns: ExplorationTurns, *, running: bool = False) -> bool:
    told: list[bool] = []

    def tick(may: bool) -> bool:
        told.append(may)
        return running

    turns.advance_tuner(tick)
    return told[0]


class World:
    def __init__(self, *proposals: Mapping[str, KnobValue]) -> None:
        self.clock, self.told, self.agent = ManualClock(), Told(), Agent(*proposals)
        self.turns = ExplorationTurns(0.2, self.clock)
        self.sandbox = FakeSandbox(self.turns)
        self.vetting = Vetting(self.sandbox, self.turns, self.told, self.clock)  # type: ignore[arg-type]
        self.candidates = Candidates(self.agent, self.clock, 60.0, self.vetting)  # type: ignore[arg-type]

    def ask(self) -> Candidate | None:
        return self.candidates.ask(None, INDEX)


def test_a_candidate_is_tried_once_the_sandbox_lets_it_pass() -> None:
    world = World(GOOD)
    assert world.ask() is None
    assert not world.candidates.resting
    assert world.ask() is None  # still waits, and nothing else is proposed meanwhile
    world.vetting.check()
    assert world.ask() == (GOOD, "the agent")
    assert world.told.messages == ["passed: no harm found"]


def test_what_fails_is_told_to_the_agent_and_the_next_one_is_checked() -> None:
    world = World(BAD, GOOD)
    world.ask()
    world.vetting.check()
    assert world.ask() is None
    assert world.agent.too_slow == [(BAD, INDEX)]
    world.vetting.check()
    assert world.ask() == (GOOD, "the agent")
    assert world.sandbox.checked == [BAD, GOOD]


def test_a_check_waits_for_the_trial_that_runs() -> None:
    world = World(GOOD)
    world.ask()
    may_begin(world.turns, running=True)
    world.vetting.check()
    assert world.sandbox.checked == []
    may_begin(world.turns)
    world.vetting.check()
    assert world.sandbox.checked == [GOOD]
    assert may_begin(world.turns)


@pytest.mark.parametrize("meanwhile", ["drop", "begin_anew"])
def test_what_was_handed_in_for_another_state_of_affairs_is_void(meanwhile: str) -> None:
    world = World(GOOD, BAD)
    world.ask()
    world.sandbox.meanwhile = getattr(world.candidates, meanwhile)
    world.vetting.check()
    assert world.told.messages == []
    assert world.ask() is None
    assert world.vetting.busy  # the next proposal is on its way


def test_where_nothing_comes_up_there_is_a_rest() -> None:
    world = World()
    assert world.candidates.hindrance == ""
    assert world.ask() is None
    assert world.candidates.resting
    assert "nothing new came up to try: a rest of 1 min since" in world.candidates.hindrance
    assert not world.vetting.busy
    world.clock.advance(60.0)
    assert world.candidates.hindrance == ""


def test_without_a_sandbox_proposals_are_tried_at_once() -> None:
    candidates = Candidates(Agent(GOOD), ManualClock(), 60.0)  # type: ignore[arg-type]
    assert candidates.ask(None, INDEX) == (GOOD, "the agent")


def test_nothing_is_checked_where_nothing_was_handed_in() -> None:
    world = World(GOOD)
    world.vetting.check()
    assert world.sandbox.checked == []
    assert may_begin(world.turns)
