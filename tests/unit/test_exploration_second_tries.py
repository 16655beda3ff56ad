"""What the live exploration tries again after a crash or a restart, and what never."""

from __future__ import annotations

import pytest

from backend.domain.plans import HintSet
from backend.domain.steering import SteeringState
from backend.errors import ServerConnectionError
from tests.exploring import TOGGLES, Behaviour, World, change_settings, slow, verified


def test_a_served_hint_set_that_ends_the_server_is_withdrawn_and_tried_once_more_at_most() -> None:
    world = verified()
    change_settings(world)
    lost: list[str] = []

    def crash(name: str, hint_set: HintSet) -> None:
        if hint_set.name == "no_seqscan":
            lost.append(world.exploration.activity)
            raise ServerConnectionError("lost the connection to the server")

    world.server.before_run = crash
    with pytest.raises(ServerConnectionError):
        world.work()
    record = world.record("slow")
    reason = "the server was lost while it was verified again"
    assert (record.state, record.reason) == (SteeringState.WITHDRAWN, reason)
    for _ in range(200):
        world.clock.advance(30.0)
        try:
            world.work()
        except ServerConnectionError:
            continue
    assert [activity.split()[0] for activity in lost] == ["verifying", "trying"]
    assert world.record("slow").state is SteeringState.DEFAULT_BEST


def test_after_a_restart_what_was_proven_before_it_was_withdrawn_may_be_proven_again() -> None:
    world = verified()
    world.register.withdraw(world.record("slow").key, "to be verified again")
    world.clock.advance(601.0)
    world.work(until=lambda: world.record("slow").state is SteeringState.EXPLORING)
    world.restart()
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_after_a_restart_a_verification_that_was_void_may_be_made_again() -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    world.work(until=lambda: world.exploration.activity.startswith("verifying"))
    changes: list[str] = []

    def change(name: str, hint_set: HintSet) -> None:
        if not hint_set.is_default and world.exploration.activity.startswith("verifying"):
            changes.append(hint_set.name)
            world.server.settings["work_mem"] = f"{4 + len(changes)}MB"

    world.server.before_run = change
    world.work(until=lambda: not world.exploration.activity.startswith("verifying"))
    world.server.before_run = lambda name, hint_set: None
    world.restart()
    world.clock.advance(7200.0)
    world.work()
    assert changes
    assert world.record("slow").state is SteeringState.VERIFIED


def test_after_a_restart_what_was_measured_before_a_withdrawal_counts_no_more() -> None:
    world = World(slow(**{t: Behaviour(9.0) for t in TOGGLES} | {"no_sort": Behaviour(0.3)}))
    world.work()
    made_up = world.server.classes["slow"]
    made_up.others["no_nestloop"] = Behaviour(0.1)  # which took too long before
    world.register.withdraw(made_up.key, "slower in service")
    world.clock.advance(601.0)
    world.work(until=lambda: world.exploration.activity.startswith("trying"))
    world.exploration._log.store_all()
    world.restart()
    world.work()
    evidence = world.record("slow").evidence
    assert evidence is not None
    assert evidence.hint_set == "no_nestloop"
