"""The live exploration and the plan agent that says what to try first."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from backend.domain.plans import Guess, HintSet
from backend.domain.steering import SteeringState
from tests.exploring import Behaviour, World, slow, small_catalog


class Agent:
    """Guesses a hint set of its own, and remembers what it is told."""

    def __init__(self, hint_set: HintSet) -> None:
        self.hint_set = hint_set
        self.told: list[tuple[str, float, bool]] = []
        self.fails = ""

    def first_guess(self, query_class: str, plan_of: Any) -> list[Guess]:
        if self.fails == "first_guess":
            raise RuntimeError("no weights")
        plan = plan_of(self.hint_set)
        return [Guess(self.hint_set, plan.plan_hash, -1.0, 0.1, 1.0, False)]

    def tell(
        self, query_class: str, hint_set: HintSet, log_ratio: float, plan_of: Any, *,
        timed_out: bool = False,
    ) -> None:  # fmt: skip
        if self.fails == "tell":
            raise RuntimeError("no weights")
        assert plan_of(hint_set) is not None
        self.told.append((hint_set.name, log_ratio, timed_out))


def test_the_agents_guess_is_tried_first_also_where_the_catalogue_lacks_it() -> None:
    guess = small_catalog().combine(["no_seqscan", "no_sort"])
    agent = Agent(guess)
    world = World(slow(**{guess.name: Behaviour(0.25), "no_sort": Behaviour(1.0)}), agent=agent)
    world.work()
    first = next(ran for ran in world.server.ran if ran[1] != "default")
    assert first == ("slow", guess.name, pytest.approx(2.0))
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == guess.name
    assert (guess.name, pytest.approx(-2.079, abs=0.01), False) in agent.told
    assert {name for name, _, timed_out in agent.told if timed_out} >= {"no_nestloop"}


@pytest.mark.parametrize("fails", ["first_guess", "tell"])
def test_an_agent_that_fails_is_left_out_and_named_once(
    fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent(small_catalog().hint_sets[1])
    agent.fails = fails
    world = World(slow(no_seqscan=Behaviour(0.3)), agent=agent)
    with caplog.at_level(logging.ERROR):
        world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    assert [r.message for r in caplog.records] == [
        "the plan agent failed, exploration goes on without it"
    ]
