"""The live exploration and hostile outcomes: wrong answers, errors, locks, crashes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from backend.domain.plans import HintSet, RunOutcome
from backend.domain.steering import SteeringState
from backend.errors import ServerConnectionError
from tests.exploring import TOGGLES, Behaviour, MadeUpClass, World, slow


def test_a_faster_plan_with_another_answer_never_counts() -> None:
    world = World(slow(no_seqscan=Behaviour(0.1, answer="wrong"), no_sort=Behaviour(0.8)))
    world.work()
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_sort"
    stored = [run.outcome for run in world.store.runs if run.hint_set == "no_seqscan"]
    assert set(stored) == {RunOutcome.FAILED}


def test_where_all_faster_plans_give_another_answer_the_reason_says_so() -> None:
    world = World(slow(no_seqscan=Behaviour(0.1, answer="wrong")))
    world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST
    assert world.record("slow").reason.endswith("faster on trial; 1 gave another answer")


def test_an_answer_that_changed_with_the_data_is_compared_in_one_snapshot() -> None:
    made_up = slow(no_seqscan=Behaviour(0.3))
    world = World(made_up)

    def write(name: str, hint_set: HintSet) -> None:
        if not world.server.ran or world.server.ran[-1][1] == "default":
            return  # the second run of a snapshot sees what the first one saw
        made_up.default.answer = made_up.others["no_seqscan"].answer = f"{len(world.server.ran)}"

    world.server.before_run = write
    world.work(until=lambda: world.exploration.activity.startswith("verifying"))
    compared = [b for a, b in pairwise(world.server.ran)
                if a[1] == "default" and b[1] == "no_seqscan"]  # fmt: skip
    assert compared
    assert {r.outcome for r in world.store.runs if r.hint_set == "no_seqscan"} == {
        RunOutcome.FINISHED
    }


@pytest.mark.parametrize("outcome", [RunOutcome.FAILED, RunOutcome.TOO_LARGE])
def test_an_arm_that_fails_is_closed_and_the_others_are_tried(outcome: RunOutcome) -> None:
    world = World(slow(no_seqscan=Behaviour(0.1, outcome), no_sort=Behaviour(0.8)))
    world.work()
    assert world.runs("slow", "no_seqscan") <= 1
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_sort"


@pytest.mark.parametrize("outcome", [RunOutcome.LOCKED, RunOutcome.CANCELLED])
def test_a_lock_teaches_nothing_and_the_class_rests_ever_longer(outcome: RunOutcome) -> None:
    locked = Behaviour(0.3, outcome)
    world = World(
        slow(no_seqscan=locked, **{t: Behaviour(9.0) for t in TOGGLES if t != "no_seqscan"})
    )
    world.work()
    tried_at = []
    for _ in range(400):
        before = world.runs("slow", "no_seqscan")
        world.clock.advance(30.0)
        world.work()
        if world.runs("slow", "no_seqscan") > before:
            tried_at.append(world.clock.monotonic_s())
    pauses = [b - a for a, b in pairwise(tried_at)]
    assert pauses[0] < pauses[2] <= pauses[-1] <= 3700.0
    assert world.record("slow").state is SteeringState.EXPLORING
    locked.outcome = RunOutcome.FINISHED
    world.clock.advance(3700.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_while_a_class_rests_others_are_explored() -> None:
    locked = MadeUpClass("locked", Behaviour(1.0, RunOutcome.LOCKED))
    world = World(locked, slow(no_seqscan=Behaviour(0.3)))
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    assert world.record("locked").state is SteeringState.EXPLORING


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("while_doing", ["trying", "comparing", "verifying"])
def test_a_plan_that_ends_the_server_is_not_tried_again(restarted: bool, while_doing: str) -> None:
    world = World(slow(no_seqscan=Behaviour(0.3), no_sort=Behaviour(1.0)))

    def crash(name: str, hint_set: HintSet) -> None:
        doing = world.exploration.activity.startswith(while_doing)
        if doing and hint_set.name == "no_seqscan":
            raise ServerConnectionError("lost the connection to the server")

    world.server.before_run = crash
    with pytest.raises(ServerConnectionError):
        world.work()
    ran = world.runs("slow", "no_seqscan")
    world.server.before_run = lambda name, hint_set: None
    if restarted:
        world.restart()
    world.clock.advance(61.0)
    world.work()
    assert world.runs("slow", "no_seqscan") == ran
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_sort"


def test_three_plans_that_were_not_proven_and_the_default_plan_is_left_alone() -> None:
    fast = {toggle: Behaviour(0.5 + i / 10) for i, toggle in enumerate(TOGGLES)}
    world = World(slow(**fast))
    verifying: list[str] = []

    def slower_when_verified(name: str, hint_set: HintSet) -> None:
        if world.exploration.activity.startswith("verifying") and not hint_set.is_default:
            verifying.append(hint_set.name)
            fast[hint_set.name].latency_s = 2.5

    world.server.before_run = slower_when_verified
    world.work()
    record = world.record("slow")
    assert record.state is SteeringState.DEFAULT_BEST
    assert len(set(verifying)) == 3
    assert record.reason.startswith(f"{verifying[-1]} was not proven: ")
