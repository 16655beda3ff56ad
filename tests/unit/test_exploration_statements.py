"""The live exploration with statements that do not work, or wait for a lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from backend.domain.plans import Guess, HintSet, RunOutcome
from backend.domain.steering import SteeringState
from backend.errors import ServerError
from backend.steering.statements.read_only import ReadOnlyVerdict
from tests.exploring import Behaviour, World, change_settings, slow, verified

LOCKED = "the server refused a statement on trial: canceling statement due to lock timeout (55P03)"
BAD_VALUE = "the server refused a statement on trial: date/time field value out of range (22008)"


def refuse(world: World, refused: Callable[[str], bool], message: str) -> None:
    """Have the server refuse to explain some statements."""
    explain = world.server.explain

    def refusing(verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], **how: Any) -> Any:
        if refused(verdict.statement):
            raise ServerError(message)
        return explain(verdict, hint_sets, **how)

    world.server.explain = refusing  # type: ignore[method-assign]


# -- statements that do not work ------------------------------------------------------------------


def test_a_bad_value_in_one_statement_does_not_cost_a_class_what_was_proven() -> None:
    world = verified()
    before = world.record("slow").evidence
    bad = world.server.classes["slow"].texts[2]
    refuse(world, lambda statement: statement == bad, BAD_VALUE)
    change_settings(world)
    world.work()
    after = world.record("slow").evidence
    assert world.record("slow").state is SteeringState.VERIFIED
    assert before is not None
    assert after is not None
    assert (before.statements, after.statements) == (3, 2)


def test_what_no_statement_can_be_explained_for_is_withdrawn() -> None:
    world = verified()
    world.server.classes["slow"].broken = BAD_VALUE
    change_settings(world)
    world.work()
    record = world.record("slow")
    reason = "the server refuses it (SQLSTATE 22008)"
    assert (record.state, record.reason) == (SteeringState.WITHDRAWN, reason)


@pytest.mark.parametrize("fails", ["planning", "running"])
def test_where_the_newest_statement_does_not_work_another_one_stands_for_its_class(
    fails: str,
) -> None:
    made_up = slow(no_seqscan=Behaviour(0.3))
    world = World(made_up)
    bad = made_up.texts[:2]
    if fails == "planning":
        refuse(world, lambda statement: statement in bad, BAD_VALUE)
    else:
        run = world.server.run

        def fail(verdict: ReadOnlyVerdict, *arms: Any) -> Any:
            made_up.default.outcome = (
                RunOutcome.FAILED if verdict.statement in bad else RunOutcome.FINISHED
            )
            return run(verdict, *arms)

        world.server.run = fail  # type: ignore[method-assign]
        world.work(until=lambda: world.exploration.activity.startswith("trying"))
        world.server.run = run  # type: ignore[method-assign]
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_an_agent_that_asks_for_a_plan_that_cannot_be_explained_learns_nothing_and_stays() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    both = world.catalog.combine(["no_nestloop", "no_seqscan"])
    told: list[str] = []

    class Curious:
        def first_guess(self, query_class: str, plan_of: Any) -> list[Guess]:
            return []

        def tell(
            self, query_class: str, hint_set: HintSet, ratio: float, plan_of: Any, **how: Any
        ) -> None:
            plan_of(both)
            told.append(hint_set.name)

    explain, refused = world.server.explain, []

    def refusing(verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], **how: Any) -> Any:
        if both in hint_sets and not refused:
            refused.append(both)
            raise ServerError(BAD_VALUE)
        return explain(verdict, hint_sets, **how)

    world.server.explain = refusing  # type: ignore[method-assign]
    world.agent = Curious()
    world.restart()
    world.work()
    assert refused
    assert told
    assert world.record("slow").state is SteeringState.VERIFIED


# -- locks ----------------------------------------------------------------------------------------


def test_a_new_class_behind_a_lock_is_explored_when_the_lock_is_gone() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    world.server.classes["slow"].broken = LOCKED
    world.work()
    assert world.record("slow").state is SteeringState.EXPLORING
    world.server.classes["slow"].broken = ""
    world.clock.advance(61.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_what_is_served_behind_a_lock_is_verified_again_when_the_lock_is_gone() -> None:
    world = verified()
    before = world.record("slow").evidence
    world.server.classes["slow"].broken = LOCKED
    change_settings(world)
    world.work()
    assert world.record("slow").evidence == before
    assert world.record("slow").state is SteeringState.VERIFIED
    world.server.classes["slow"].broken = ""
    world.clock.advance(61.0)
    world.work()
    after = world.record("slow").evidence
    assert before is not None
    assert after is not None
    assert after.verified_at > before.verified_at


def test_a_lock_before_a_verification_refuses_no_class() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    probes = ("trying", "comparing")
    world.work(until=lambda: world.exploration.activity.startswith(probes))
    world.server.classes["slow"].broken = LOCKED
    world.work()
    assert world.record("slow").state is SteeringState.EXPLORING
    world.server.classes["slow"].broken = ""
    world.clock.advance(61.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


@pytest.mark.parametrize("served", [False, True])
def test_a_statement_that_cannot_be_judged_now_is_judged_later(served: bool) -> None:
    world = verified() if served else World(slow(no_seqscan=Behaviour(0.3)))
    check, asked = world.server.check, []

    def locked(statement: str, search_path: str) -> ReadOnlyVerdict:
        asked.append(statement)
        raise ServerError("a statement on db:5432/shop waited 500 ms for a lock (SQLSTATE 55P03)")

    world.server.check = locked  # type: ignore[method-assign]
    if served:
        change_settings(world)
    world.work()
    assert len(asked) == 1
    assert world.record("slow").state in (SteeringState.WAITING, SteeringState.VERIFIED)
    world.server.check = check  # type: ignore[method-assign]
    ran = len(world.server.ran)
    world.clock.advance(61.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    assert len(world.server.ran) > ran


def test_a_lock_after_a_restart_does_not_end_a_step() -> None:
    world = World(slow())
    world.work()
    world.restart()

    def locked(statement: str, search_path: str) -> ReadOnlyVerdict:
        raise ServerError("a statement on db:5432/shop waited 500 ms for a lock (SQLSTATE 55P03)")

    world.server.check = locked  # type: ignore[method-assign]
    world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST
