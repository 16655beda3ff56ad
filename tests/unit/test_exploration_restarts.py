"""The live exploration after a restart: nothing is measured twice, nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest

from backend.domain.plans import HintSet
from backend.domain.steering import RunPurpose, SteeringState
from backend.errors import StoreError
from tests.exploring import TOGGLES, Behaviour, World, slow


def test_after_a_restart_nothing_is_measured_twice() -> None:
    world = World(slow(**({t: Behaviour(9.0) for t in TOGGLES} | {"no_sort": Behaviour(1.9)})))
    world.work(until=lambda: len({h for _, h, _ in world.server.ran}) >= 4)
    world.exploration._log.store_all()
    tried = {(h, t) for _, h, t in world.server.ran if h != "default"}
    ran = len(world.server.ran)
    world.restart()
    world.work()
    again = world.server.ran[ran:]
    assert "default" not in [hint_set for _, hint_set, _ in again]
    assert not tried & {(h, t) for _, h, t in again}
    assert world.record("slow").state is SteeringState.DEFAULT_BEST


def test_after_a_restart_what_was_not_proven_is_not_verified_again() -> None:
    faster = Behaviour(0.3)
    world = World(slow(no_seqscan=faster))

    def slower_when_verified(name: str, hint_set: HintSet) -> None:
        if world.exploration.activity.startswith("verifying"):
            faster.latency_s = 2.5

    world.server.before_run = slower_when_verified
    world.work(until=lambda: any(r.purpose is RunPurpose.VERIFICATION for r in world.store.runs))
    assert world.record("slow").state is SteeringState.EXPLORING
    faster.latency_s = 0.3
    ran = len(world.server.ran)
    world.restart()
    world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST
    assert world.record("slow").reason == "no_seqscan was not proven before"
    assert "no_seqscan" not in [hint_set for _, hint_set, _ in world.server.ran[ran:]]


def test_after_a_restart_what_belongs_to_another_default_plan_is_measured_anew() -> None:
    made_up = slow(no_seqscan=Behaviour(0.3))
    world = World(made_up)
    world.work(until=lambda: world.exploration.activity.startswith("trying"))
    world.exploration._log.store_all()
    made_up.version = " after analyze"
    ran = len(world.server.ran)
    world.restart()
    world.work()
    assert "default" in [hint_set for _, hint_set, _ in world.server.ran[ran : ran + 3]]
    assert world.record("slow").state is SteeringState.VERIFIED


def test_runs_that_the_store_refused_are_stored_later() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    add, refused = world.store.add_plan_runs, []

    def fail(runs: Any) -> None:
        refused.append(len(runs))
        raise StoreError("the store is locked")

    world.store.add_plan_runs = fail  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        world.work()
    world.store.add_plan_runs = add  # type: ignore[method-assign]
    world.work()
    assert refused
    assert world.record("slow").state is SteeringState.VERIFIED
    probes = [run for run in world.store.runs if run.purpose is RunPurpose.PROBE]
    assert world.record("slow").probes == len(probes)
