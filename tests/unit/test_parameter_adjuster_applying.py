"""The parameter adjuster applies all or nothing, and intent comes first."""

from __future__ import annotations

import pytest

from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState
from backend.errors import (
    AdjustmentError,
    KnobBoundsError,
    NeverKnobError,
    ServerConnectionError,
    StaleEpochError,
    StoreError,
    UnknownKnobError,
)
from tests.adjuster_world import World


@pytest.fixture
def world() -> World:
    return World()


def test_apply_writes_activates_and_reads_back(world: World) -> None:
    batch = world.apply(work_mem="64MB", random_page_cost=1.1, jit=False)
    assert world.server.entries == {"work_mem": "65536", "random_page_cost": "1.1", "jit": "off"}
    assert world.server.running["work_mem"] == 65536
    assert world.server.running["jit"] is False
    assert batch.after == {"work_mem": 65536, "random_page_cost": 1.1, "jit": False}
    rows = list(world.journal.rows.values())
    assert {r.state for r in rows} == {ChangeState.APPLIED}
    assert {r.knob: (r.before_entry, r.before_value) for r in rows} == {
        "work_mem": (None, 4096),
        "random_page_cost": (None, 4.0),
        "jit": (None, True),
    }


def test_the_journal_comes_before_the_first_write(world: World) -> None:
    world.apply(work_mem=8192)
    log = world.steps.log
    assert log.index("journalled") < log.index("write work_mem")


def test_apply_waits_until_a_slow_reload_shows(world: World) -> None:
    world.server.reload_lag = 5
    world.apply(work_mem=8192)
    assert world.server.running["work_mem"] == 8192
    assert world.clock.seconds > 0


def test_a_change_that_never_shows_is_undone(world: World) -> None:
    world.server.reload_lag = 10**6
    with pytest.raises(AdjustmentError, match="work_mem is 4096, not 8192"):
        world.apply(work_mem=8192)
    assert world.server.entries == {}
    assert world.states() == [ChangeState.FAILED]


def test_an_error_on_the_second_of_three_knobs_undoes_all(world: World) -> None:
    world.server.entries["work_mem"] = "16MB"
    world.server.reload()
    world.server.refused.add("random_page_cost")
    with pytest.raises(AdjustmentError, match=r"permission denied .* stands again"):
        world.apply(work_mem=65536, random_page_cost=1.1, jit=False)
    assert world.server.entries == {"work_mem": "16MB"}
    assert world.server.running["work_mem"] == 16384
    assert set(world.states()) == {ChangeState.FAILED}


def test_what_stands_already_is_neither_written_nor_journalled(world: World) -> None:
    world.server.foreign_set("work_mem", "64MB", reload=True)
    batch = world.apply(work_mem=65536, random_page_cost=4.0)
    assert batch.changes == ()
    assert world.server.entries == {"work_mem": "64MB"}
    assert world.journal.rows == {}
    assert world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x").clean


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("fsync", False, NeverKnobError),
        ("no_such_knob", 1, UnknownKnobError),
        ("work_mem", 1, KnobBoundsError),
        ("fsync", None, NeverKnobError),
        ("no_such_knob", None, UnknownKnobError),
    ],
)
def test_refused_requests_touch_nothing(
    world: World, name: str, value: KnobValue | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        world.apply(**{"work_mem": 8192, name: value})
    assert world.steps.log == []


def test_a_stale_epoch_may_neither_apply_nor_undo_nor_keep(world: World) -> None:
    batch = world.apply(work_mem=8192)
    world.journal.acquire_lease("watchdog", 10)
    writes = world.server.writes
    for act in (
        lambda: world.apply(jit=False),
        lambda: world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x"),
        lambda: world.adjuster.keep(batch.batch_id),
        lambda: world.adjuster.reconcile(world.epoch),
    ):
        with pytest.raises(StaleEpochError, match="epoch 1 is over, the newest is 2"):
            act()
    assert world.server.writes == writes


def test_what_the_journal_cannot_call_applied_is_not_left_on_the_server(world: World) -> None:
    world.steps.fail_at("settle applied", lambda: StoreError("the store is locked"))
    with pytest.raises(AdjustmentError, match=r"the store is locked.*stands again"):
        world.apply(trial_id=7, work_mem=8192)
    assert world.server.entries == {}
    assert world.states() == [ChangeState.FAILED]
    world.steps.clear()
    assert world.apply(trial_id=7, work_mem=8192).changes


def test_a_change_after_long_thought_begins_with_a_sign_of_life(world: World) -> None:
    world.clock.seconds += 60.0
    assert world.journal.lease_expired(world.clock.now())
    world.apply(work_mem=8192)
    assert not world.journal.lease_expired(world.clock.now())


def test_a_lease_that_was_given_back_may_not_act(world: World) -> None:
    world.journal.release_lease(world.epoch)
    with pytest.raises(StaleEpochError, match="given back"):
        world.apply(work_mem=8192)
    assert world.steps.log == []


def test_the_lease_is_looked_at_again_between_intent_and_action(world: World) -> None:
    original = world.journal.add_changes

    def raised_meanwhile(changes):  # type: ignore[no-untyped-def]
        added = original(changes)
        world.journal.acquire_lease("watchdog", 10)
        return added

    world.journal.add_changes = raised_meanwhile  # type: ignore[method-assign]
    with pytest.raises(StaleEpochError):
        world.apply(work_mem=8192)
    assert world.server.writes == 0
    assert world.states() == [ChangeState.PENDING]


def test_overrides_are_noticed(world: World) -> None:
    world.server.overrides["work_mem"] = "the command line"
    with pytest.raises(AdjustmentError, match="work_mem is set by the command line"):
        world.apply(work_mem=8192)
    assert world.server.writes == 0
    assert world.journal.rows == {}


def test_a_knob_that_the_server_lacks(world: World) -> None:
    del world.server.knobs["jit"]
    with pytest.raises(AdjustmentError, match="no knob named jit"):
        world.apply(jit=False)


def test_a_lost_connection_leaves_the_intent_open(world: World) -> None:
    def down() -> ServerConnectionError:
        world.server.up = False
        return ServerConnectionError("gone")

    world.steps.fail_at("wrote jit", down)
    with pytest.raises(ServerConnectionError):
        world.apply(jit=False)
    assert world.states() == [ChangeState.PENDING]
    world.server.up = True
    world.steps.clear()
    assert world.adjuster.reconcile(world.epoch).clean
    assert "jit" not in world.server.entries


def test_removing_an_entry_is_a_change_too(world: World) -> None:
    world.server.foreign_set("work_mem", 65536, reload=True)
    batch = world.apply(work_mem=None)
    assert world.server.entries == {}
    assert world.server.running["work_mem"] == 4096
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert world.server.entries == {"work_mem": "65536"}
