"""The live exploration when others decide, lock, restart or send statements that do not work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from backend.domain.plans import Guess, HintSet, RunOutcome
from backend.domain.steering import SteeringMode, SteeringState
from backend.errors import ServerConnectionError, ServerError
from backend.steering.statements.read_only import ReadOnlyVerdict
from tests.exploring import TOGGLES, Behaviour, MadeUpClass, World, slow

LOCKED = "the server refused a statement on trial: canceling statement due to lock timeout (55P03)"
BAD_VALUE = "the server refused a statement on trial: date/time field value out of range (22008)"
BAD_PATH = 'the server refused a statement on trial: invalid value for "search_path" (22023)'


def verified() -> World:
    world = World(slow(no_seqscan=Behaviour(0.3)))
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    return world


def change_settings(world: World, **settings: str) -> None:
    world.server.settings.update(settings or {"random_page_cost": "1.1"})
    world.clock.advance(11.0)


def refuse(world: World, refused: Callable[[str], bool], message: str) -> None:
    """Have the server refuse to explain some statements."""
    explain = world.server.explain

    def refusing(verdict: ReadOnlyVerdict, hint_sets: Sequence[HintSet], **how: Any) -> Any:
        if refused(verdict.statement):
            raise ServerError(message)
        return explain(verdict, hint_sets, **how)

    world.server.explain = refusing  # type: ignore[method-assign]


def forget(world: World, name: str) -> None:
    """Have the book lose a class."""
    book: Any = world.exploration._recheck._book
    key, keys, samples = world.server.classes[name].key, book.keys, book.samples
    book.keys = lambda: [known for known in keys() if known != key]
    book.samples = lambda wanted: () if wanted == key else samples(wanted)


# -- what people and the service decide meanwhile -------------------------------------------------


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


# -- settings -------------------------------------------------------------------------------------


def test_any_planner_setting_that_changed_while_nobody_looked_counts_after_a_restart() -> None:
    world = verified()
    before = world.record("slow").evidence
    assert before is not None
    assert "random_page_cost" not in before.under
    world.restart()
    world.work()
    assert world.record("slow").evidence == before
    change_settings(world, random_page_cost="1.1")
    world.restart()
    world.work()
    after = world.record("slow").evidence
    assert after is not None
    assert after.verified_at > before.verified_at


@pytest.mark.parametrize("others", [(), (MadeUpClass("other", Behaviour(0.1)),)])
def test_what_cannot_be_verified_again_under_new_settings_is_withdrawn(
    others: Sequence[MadeUpClass],
) -> None:
    world = World(slow(no_seqscan=Behaviour(0.3)), *others)
    world.work()
    forget(world, "slow")
    world.clock.advance(11.0)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    change_settings(world)
    world.work()
    record = world.record("slow")
    assert record.state is SteeringState.WITHDRAWN
    assert record.reason == "it must be verified again, and no statement of it is known any more"


def test_a_pinned_class_without_statements_stays_what_it_is() -> None:
    world = verified()
    world.register.set_mode(world.record("slow").key, SteeringMode.PIN)
    forget(world, "slow")
    change_settings(world)
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED


def test_a_class_whose_search_path_the_server_refuses_leaves_the_others_alone() -> None:
    odd = MadeUpClass("odd", broken=BAD_PATH)
    world = World(odd, slow(no_seqscan=Behaviour(0.3)))
    in_force, asked = world.server.in_force, []

    def refusing(settings: Sequence[str]) -> Any:
        asked.append(world.clock.monotonic_s())
        if len(asked) == 1:
            raise ServerError(BAD_PATH)
        return in_force(settings)

    world.server.in_force = refusing  # type: ignore[method-assign]
    world.work()
    assert world.record("slow").state is SteeringState.VERIFIED
    record = world.record("odd")
    reason = "the server refuses it (SQLSTATE 22023)"
    assert (record.state, record.reason) == (SteeringState.REFUSED, reason)


def test_where_no_search_path_tells_the_settings_statements_are_tried_all_the_same() -> None:
    world = World(slow(no_sort=Behaviour(1.95)))

    def refusing(settings: Sequence[str]) -> Any:
        raise ServerError(BAD_PATH)

    world.server.in_force = refusing  # type: ignore[method-assign]
    world.work()
    assert world.record("slow").state is SteeringState.DEFAULT_BEST


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


# -- a server that ends, and restarts of ours ----------------------------------------------------


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
