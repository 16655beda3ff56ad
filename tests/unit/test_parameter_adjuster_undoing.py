"""The parameter adjuster undoes and keeps; a human's value stays."""

from __future__ import annotations

import pytest

from backend.domain.modes import ChangeState
from backend.errors import AdjustmentError, ConflictError
from tests.adjuster_world import World


@pytest.fixture
def world() -> World:
    return World()


def test_roll_back_restores_entries_as_they_were_spelt_and_their_absence(world: World) -> None:
    world.server.foreign_set("work_mem", "16 MB", reload=True)
    batch = world.apply(work_mem=65536, jit=False)
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="worse")
    assert result.clean
    assert world.server.entries == {"work_mem": "16 MB"}
    assert world.server.running["work_mem"] == 16384
    assert world.server.running["jit"] is True
    assert set(world.states()) == {ChangeState.ROLLED_BACK}
    assert {row.detail for row in world.journal.rows.values()} == {"worse"}


def test_roll_back_twice_does_nothing(world: World) -> None:
    batch = world.apply(work_mem=65536)
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    writes, reloads = world.server.writes, world.server.reloads
    assert world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x").clean
    assert (world.server.writes, world.server.reloads) == (writes, reloads)


def test_a_humans_value_stays_and_the_conflict_is_recorded(world: World) -> None:
    batch = world.apply(work_mem=65536, jit=False)
    world.server.foreign_set("work_mem", 12345, reload=True)
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert [row.knob for row in result.conflicts] == ["work_mem"]
    assert [row.knob for row in result.rolled_back] == ["jit"]
    assert world.server.entries == {"work_mem": "12345"}
    conflict = next(r for r in world.journal.rows.values() if r.knob == "work_mem")
    assert conflict.state is ChangeState.CONFLICT
    assert "12345" in conflict.detail


def test_an_entry_that_a_human_removed_stays_removed(world: World) -> None:
    world.server.foreign_set("work_mem", 16384, reload=True)
    batch = world.apply(work_mem=65536)
    world.server.foreign_set("work_mem", None, reload=True)
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert len(result.conflicts) == 1
    assert world.server.entries == {}


def test_a_human_who_interferes_while_we_apply(world: World) -> None:
    original = world.server.reload

    def reload() -> None:
        world.server.reload = original  # type: ignore[method-assign]
        world.server.foreign_set("work_mem", 12345, reload=False)
        original()

    world.server.reload = reload  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="work_mem was changed by somebody else"):
        world.apply(work_mem=65536, jit=False)
    assert world.server.entries == {"work_mem": "12345"}
    assert sorted(world.states()) == [ChangeState.CONFLICT, ChangeState.FAILED]


def test_stacked_batches_come_off_in_reverse_order(world: World) -> None:
    lower = world.apply(work_mem=8192)
    upper = world.apply(work_mem=16384)
    with pytest.raises(AdjustmentError, match="changed work_mem after this one"):
        world.adjuster.roll_back(lower.batch_id, epoch=world.epoch, reason="x")
    with pytest.raises(AdjustmentError, match="rests on batch"):
        world.adjuster.keep(upper.batch_id)
    world.adjuster.roll_back(upper.batch_id, epoch=world.epoch, reason="x")
    assert world.server.running["work_mem"] == 8192
    world.adjuster.roll_back(lower.batch_id, epoch=world.epoch, reason="x")
    assert world.server.entries == {}


def test_kept_changes_survive_reconcile_and_are_undone_on_request(world: World) -> None:
    kept = world.adjuster.keep(world.apply(work_mem=65536, jit=False).batch_id)
    assert world.adjuster.reconcile(world.epoch).rolled_back == ()
    assert world.server.running["work_mem"] == 65536
    result = world.adjuster.roll_back(kept, epoch=world.epoch, reason="operator", actor="human")
    assert result.clean
    assert world.server.entries == {}
    assert world.states() == [ChangeState.ROLLED_BACK] * 2 + [ChangeState.KEPT] * 2
    with pytest.raises(AdjustmentError, match="not applied"):
        world.adjuster.keep(kept[0].batch_id)


def test_what_a_human_changed_meanwhile_is_not_kept(world: World) -> None:
    batch = world.apply(work_mem=65536, jit=False)
    world.server.foreign_set("work_mem", 12345, reload=False)
    with pytest.raises(ConflictError, match="cannot be kept: work_mem was changed"):
        world.adjuster.keep(batch.batch_id)
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="conflict")
    assert world.server.entries == {"work_mem": "12345"}


def test_several_kept_batches_are_undone_at_once(world: World) -> None:
    first = world.adjuster.keep(world.apply(work_mem=8192).batch_id)
    second = world.adjuster.keep(world.apply(work_mem=16384, jit=False).batch_id)
    world.server.foreign_set("jit", True, reload=True)
    result = world.adjuster.roll_back((*first, *second), epoch=world.epoch, reason="operator")
    assert world.server.entries == {"jit": "on"}
    assert [row.knob for row in result.conflicts] == ["jit"]


def test_undoing_an_old_batch_under_a_newer_one_is_a_conflict(world: World) -> None:
    first = world.adjuster.keep(world.apply(work_mem=8192).batch_id)
    world.adjuster.keep(world.apply(work_mem=16384).batch_id)
    result = world.adjuster.roll_back(first, epoch=world.epoch, reason="operator")
    assert len(result.conflicts) == 1
    assert world.server.running["work_mem"] == 16384


def test_the_arms_of_a_trial_change_places_without_new_rows(world: World) -> None:
    for _ in range(20):
        batch = world.apply(trial_id=7, work_mem=65536, jit=False)
        assert len(batch.changes) == 2
        assert world.server.running["work_mem"] == 65536
        assert {row.state for row in world.journal.open_changes()} == {ChangeState.APPLIED}
        world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="switch")
        assert world.server.entries == {}
        assert world.journal.open_changes() == []
    assert len(world.journal.rows) == 2


def test_one_switch_costs_few_requests(world: World) -> None:
    world.apply(trial_id=7, work_mem=65536, jit=False)
    assert (world.server.reads, world.server.reloads) == (2, 1)


def test_rows_are_not_reused_when_something_else_stands_there_now(world: World) -> None:
    batch = world.apply(trial_id=7, work_mem=65536)
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="switch")
    world.server.foreign_set("work_mem", 12345, reload=True)
    batch = world.apply(trial_id=7, work_mem=65536)
    assert len(world.journal.rows) == 2
    world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="switch")
    assert world.server.entries == {"work_mem": "12345"}


def test_one_knob_that_cannot_be_restored_does_not_hold_up_the_others(world: World) -> None:
    batch = world.apply(work_mem=65536, jit=False, random_page_cost=1.1)
    world.server.refused.add("jit")
    with pytest.raises(AdjustmentError, match=r"not undone yet: permission denied .* jit"):
        world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert world.server.entries == {"jit": "off"}
    assert [row.knob for row in world.journal.open_changes()] == ["jit"]
    world.server.refused.clear()
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.server.entries == {}


def test_a_default_that_changed_outside_does_not_block_the_undoing(world: World) -> None:
    batch = world.apply(work_mem=65536)
    original = world.server._default
    world.server._default = lambda n: 5000 if n == "work_mem" else original(n)  # type: ignore
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert result.clean
    assert world.server.running["work_mem"] == 5000


def test_a_knob_that_vanished_is_settled(world: World) -> None:
    world.apply(work_mem=65536)
    del world.server.knobs["work_mem"]
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.states() == [ChangeState.FAILED]
