"""The live exploration looks again when settings, plans or time have moved on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backend.domain.steering import SteeringState
from tests.exploring import TOGGLES, Behaviour, World, change_settings, slow, verified


def test_other_settings_in_force_and_what_was_verified_is_verified_again() -> None:
    world = verified()
    before = world.record("slow").evidence
    states = set()
    change_settings(world, work_mem="64MB")
    world.work(until=lambda: bool(states.add(world.record("slow").state)))
    after = world.record("slow").evidence
    assert states == {SteeringState.VERIFIED}
    assert before is not None
    assert after is not None
    assert after.verified_at > before.verified_at


def test_what_is_not_proven_again_is_withdrawn_and_explored_after_a_while() -> None:
    world = verified()
    made_up = world.server.classes["slow"]
    made_up.others["no_seqscan"].latency_s = 3.0
    made_up.others["no_sort"] = Behaviour(0.5)
    change_settings(world, work_mem="64MB")
    world.work()
    assert world.record("slow").state is SteeringState.WITHDRAWN
    assert world.record("slow").reason.startswith("verified again: ")
    world.clock.advance(601.0)
    world.work()
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert (world.record("slow").state, evidence.hint_set) == (SteeringState.VERIFIED, "no_sort")


def test_in_the_midst_of_a_search_what_still_holds_is_taken_over_under_new_settings() -> None:
    world = World(slow(**{toggle: Behaviour(9.0) for toggle in TOGGLES}))
    world.work(until=lambda: len({ran[1] for ran in world.server.ran}) >= 4)
    ran, explained = len(world.server.ran), len(world.server.explained)
    change_settings(world, work_mem="64MB")
    world.work()
    assert len(world.server.explained) == explained + 1 + len(TOGGLES)
    assert "default" not in [hint_set for _, hint_set, _ in world.server.ran[ran:]]
    assert world.record("slow").state is SteeringState.DEFAULT_BEST


def test_settings_that_changed_while_nobody_looked_are_noticed_after_a_restart() -> None:
    world = verified()
    world.server.settings["enable_seqscan"] = "off"
    ran = len(world.server.ran)
    world.restart()
    world.work()
    assert len(world.server.ran) > ran


def test_a_withdrawn_class_is_explored_anew_ever_later() -> None:
    world = verified()
    pauses = []
    for _ in range(10):
        world.register.withdraw(world.record("slow").key, "slower in service")
        ran, began_s = len(world.server.ran), world.clock.monotonic_s()
        while len(world.server.ran) == ran:
            world.clock.advance(60.0)
            world.work(until=lambda ran=ran: len(world.server.ran) > ran)
        pauses.append((world.clock.monotonic_s() - began_s) / 60.0)
        world.work()
        assert world.record("slow").state is SteeringState.VERIFIED
    assert [round(pause, -1) for pause in pauses[:4]] == [10, 20, 40, 80]
    assert max(pauses) <= 24 * 60 + 2


def test_after_a_day_what_was_found_is_looked_at_again() -> None:
    world = verified()
    made_up = world.server.classes["slow"]
    made_up.others["no_sort"] = Behaviour(0.1)
    before = world.record("slow").evidence
    world.clock.advance(timedelta(days=1, minutes=1).total_seconds())
    world.work()
    after = world.record("slow").evidence
    assert before is not None
    assert after is not None
    assert (before.hint_set, after.hint_set) == ("no_seqscan", "no_sort")


@pytest.mark.parametrize("restarted", [False, True])
def test_another_default_plan_and_a_class_is_looked_at_again(restarted: bool) -> None:
    world = World(slow())
    world.work()
    if restarted:
        world.restart()
        world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST
    made_up = world.server.classes["slow"]
    made_up.version, made_up.others["no_sort"] = " after analyze", Behaviour(0.5)
    world.clock.advance(601.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_a_class_withdrawn_in_the_midst_of_a_search_is_left() -> None:
    world = verified()
    made_up = world.server.classes["slow"]
    made_up.others["no_sort"] = Behaviour(0.1)
    world.clock.advance(timedelta(days=1, minutes=1).total_seconds())
    world.work(until=lambda: world.exploration.activity.startswith("trying"))
    world.register.withdraw(world.record("slow").key, "slower in service")
    world.work()
    assert world.record("slow").state is SteeringState.WITHDRAWN
