"""The parameter adjuster and knobs that take effect at a restart only."""

from __future__ import annotations

import pytest

from backend.domain.modes import ChangeState
from backend.errors import AdjustmentError, ConflictError
from tests.adjuster_world import World
from tests.fake_server import Crash


@pytest.fixture
def world() -> World:
    return World()


def test_restart_knobs_need_leave(world: World) -> None:
    with pytest.raises(AdjustmentError, match="shared_buffers: takes effect at a restart only"):
        world.apply(shared_buffers=131072)
    assert world.server.restarts == world.server.writes == 0


def test_restart_knobs_are_applied_and_undone_with_a_restart(world: World) -> None:
    batch = world.apply(shared_buffers="1GB", work_mem=8192, allow_restart=True)
    assert batch.restarted
    assert world.server.running["shared_buffers"] == 131072
    result = world.adjuster.roll_back(batch.batch_id, epoch=world.epoch, reason="x")
    assert result.restarted
    assert world.server.running["shared_buffers"] == 16384
    assert world.server.restarts == 2


def test_a_server_that_does_not_start_is_recovered_and_the_batch_failed(world: World) -> None:
    world.server.unstartable["shared_buffers"] = "131072"
    with pytest.raises(AdjustmentError, match="did not start with shared_buffers"):
        world.apply(shared_buffers=131072, work_mem=8192, allow_restart=True)
    assert world.server.entries == {}
    assert world.server.running["work_mem"] == 4096
    assert set(world.states()) == {ChangeState.FAILED}


def test_recovery_that_took_out_an_earlier_entry_is_no_conflict(world: World) -> None:
    world.server.entries["shared_buffers"] = "32768"
    world.server.restart()
    world.server.unstartable["shared_buffers"] = "131072"
    with pytest.raises(AdjustmentError, match="did not start"):
        world.apply(shared_buffers=131072, allow_restart=True)
    assert world.server.entries == {"shared_buffers": "32768"}
    assert world.states() == [ChangeState.FAILED]


def test_a_restart_never_activates_what_somebody_else_left_pending(world: World) -> None:
    world.server.foreign_set("huge_pages", "off", reload=True)
    with pytest.raises(ConflictError, match="would also activate huge_pages"):
        world.apply(shared_buffers=131072, allow_restart=True)
    world.server.foreign_set("shared_buffers", 32768, reload=True)
    with pytest.raises(ConflictError, match="already waits for a restart"):
        world.apply(shared_buffers=131072, allow_restart=True)
    assert world.server.restarts == 0


def test_a_restart_change_that_was_never_activated_is_undone_without_a_restart(
    world: World,
) -> None:
    world.steps.fail_at("wrote shared_buffers", Crash)
    restarts = world.server.restarts
    with pytest.raises(Crash):
        world.apply(shared_buffers=131072, allow_restart=True)
    world.new_tuner()
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.server.restarts == restarts
    assert world.server.entries == {}


def test_where_restarts_are_not_allowed_the_undoing_says_what_is_left(world: World) -> None:
    world.apply(shared_buffers=131072, work_mem=8192, allow_restart=True)
    world.server.can_restart = False
    result = world.adjuster.reconcile(world.epoch)
    assert [row.knob for row in result.unsettled] == ["shared_buffers"]
    assert "needs a restart" in result.problems[0]
    assert world.server.entries == {}
    world.server.can_restart = True
    assert world.adjuster.reconcile(world.epoch).clean
    assert world.server.running["shared_buffers"] == 16384


def test_a_value_that_the_server_replaces_by_its_own_choice(world: World) -> None:
    world.server.foreign_set("wal_buffers", 2048, reload=False)
    world.server.restart()
    original = world.server._activate

    def activate(*, restart: bool) -> None:
        original(restart=restart)
        if world.server.running["wal_buffers"] == -1:
            world.server.running["wal_buffers"] = 512

    world.server._activate = activate  # type: ignore[method-assign]
    world.apply(wal_buffers=-1, allow_restart=True)
    assert world.server.running["wal_buffers"] == 512
    assert world.apply(wal_buffers=-1, allow_restart=True).changes == ()
