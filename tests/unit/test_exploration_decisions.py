"""The live exploration when people or the service decide otherwise meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from backend.domain.steering import SteeringMode, SteeringState
from tests.exploring import Behaviour, World, change_settings, slow, verified


@pytest.mark.parametrize("mode", [SteeringMode.OFF, SteeringMode.PIN])
def test_once_a_human_decides_nothing_of_a_verification_runs_any_more(mode: SteeringMode) -> None:
    made_up = slow(no_nestloop=Behaviour(1.2))
    world = World(made_up)
    world.work()
    before = world.record("slow").evidence
    made_up.others["no_seqscan"], made_up.version = Behaviour(0.3), " after analyze"
    world.clock.advance(90_000.0)
    world.work(until=lambda: world.exploration.activity.startswith("verifying no_seqscan"))
    world.register.set_mode(made_up.key, mode)
    ran, now = len(world.server.ran), world.record("slow").evidence
    world.work()
    assert len(world.server.ran) == ran
    assert world.record("slow").evidence == now
    assert before is not None
    assert now is not None
    assert now.hint_set == "no_nestloop"


def test_a_class_that_is_switched_off_is_not_verified_again() -> None:
    world = verified()
    change_settings(world)
    world.work(until=lambda: world.exploration.activity.startswith("verifying"))
    world.register.set_mode(world.record("slow").key, SteeringMode.OFF)
    ran = len(world.server.ran)
    for _ in range(3):
        world.work()
        change_settings(world, work_mem=f"{len(world.server.ran)}MB")
        world.clock.advance(61.0)
    assert len(world.server.ran) == ran


def test_a_pin_does_not_hinder_that_its_own_hint_set_is_verified_again() -> None:
    world = verified()
    before = world.record("slow").evidence
    change_settings(world)
    world.work(until=lambda: world.exploration.activity.startswith("verifying"))
    world.register.set_mode(world.record("slow").key, SteeringMode.PIN)
    world.work()
    after = world.record("slow").evidence
    assert before is not None
    assert after is not None
    assert after.verified_at > before.verified_at


def test_what_the_service_withdraws_while_the_proof_is_written_down_stays_withdrawn() -> None:
    world = verified()
    change_settings(world)
    plan_text = world.server.plan_text

    def withdraw(*args: Any, **kwargs: Any) -> str:
        record = world.record("slow")
        if record.state is SteeringState.VERIFIED:
            world.register.withdraw(record.key, "proven slower", record.evidence)
        return plan_text(*args, **kwargs)

    world.server.plan_text = withdraw  # type: ignore[method-assign]
    world.work()
    record = world.record("slow")
    assert (record.state, record.reason) == (SteeringState.WITHDRAWN, "proven slower")
