"""The live exploration under settings and search paths that change or are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from backend.domain.steering import SteeringMode, SteeringState
from backend.errors import ServerError
from tests.exploring import Behaviour, MadeUpClass, World, change_settings, slow, verified

BAD_PATH = 'the server refused a statement on trial: invalid value for "search_path" (22023)'


def forget(world: World, name: str) -> None:
    """Have the book lose a class."""
    book: Any = world.exploration._recheck._book
    key, keys, samples = world.server.classes[name].key, book.keys, book.samples
    book.keys = lambda: [known for known in keys() if known != key]
    book.samples = lambda wanted: () if wanted == key else samples(wanted)


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
