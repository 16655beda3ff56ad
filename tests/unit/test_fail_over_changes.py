"""After a fail-over: what was changed on the former server is neither undone nor forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.adjustment.elsewhere import brought_along, what_stands_here, what_was_left
from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState
from backend.domain.server import ServerIdentity
from backend.errors import StaleEpochError
from backend.parameter_adjuster import ParameterAdjuster
from backend.watchdog import Watchdog
from tests.adjuster_world import World
from tests.fake_server import CATALOG, FakeServer, Steps

OLD = ServerIdentity("7301/1", "10.0.0.1:5432")
NEW = ServerIdentity("7301/2", "10.0.0.2:5432")


@pytest.fixture
def world() -> World:
    """A tuner that has put a candidate on the old primary, and died."""
    world = World()
    adjuster = on(world, OLD)
    world.server.foreign_set("jit", False, reload=True)
    adjuster.apply({"work_mem": 65536, "jit": True}, actor="test", epoch=world.epoch, trial_id=1)
    return world


def on(world: World, identity: ServerIdentity, server: FakeServer | None = None):
    """An adjuster on that server."""
    return ParameterAdjuster(
        server or world.server,
        world.journal,
        CATALOG,
        world.clock,
        identity=identity,
        sleep=world.clock.sleep,
    )


def promoted() -> FakeServer:
    """The stand-by that took over: an entry of its own, none of the candidate's."""
    server = FakeServer(Steps())
    server.foreign_set("work_mem", 8192, reload=True)
    return server


def test_each_change_tells_its_server(world: World) -> None:
    rows = world.journal.rows.values()
    assert {(row.timeline, row.place) for row in rows} == {(OLD.timeline, OLD.place)}


def test_nothing_is_written_to_the_server_that_took_over(world: World) -> None:
    server = promoted()
    result = on(world, NEW, server).reconcile(world.epoch)
    assert {row.knob for row in result.left_behind} == {"work_mem", "jit"}
    assert result.clean
    assert (server.writes, server.reloads, server.entries) == (0, 0, {"work_mem": "8192"})
    assert set(world.states()) == {ChangeState.LEFT_BEHIND}
    assert not world.journal.open_changes()


def test_the_former_server_is_put_right_when_it_is_back(world: World) -> None:
    on(world, NEW, promoted()).reconcile(world.epoch)
    result = on(world, OLD).reconcile(world.epoch)
    assert {row.knob for row in result.taken_up} == {"work_mem", "jit"}
    assert world.server.entries == {"jit": "off"}
    assert set(world.states()) == {ChangeState.ROLLED_BACK}


def test_a_value_of_a_human_stays_on_the_former_server_too(world: World) -> None:
    on(world, NEW, promoted()).reconcile(world.epoch)
    world.server.foreign_set("work_mem", 12345, reload=True)
    on(world, OLD).reconcile(world.epoch)
    assert world.server.entries == {"jit": "off", "work_mem": "12345"}


@pytest.mark.parametrize("identity", [ServerIdentity(), replace(OLD, place="10.9.9.9:6432")])
def test_an_unknown_server_and_another_address_count_as_the_same(
    world: World, identity: ServerIdentity
) -> None:
    result = on(world, identity).reconcile(world.epoch)
    assert not result.left_behind
    assert world.server.entries == {"jit": "off"}


def test_who_may_not_act_leaves_nothing_behind(world: World) -> None:
    with pytest.raises(StaleEpochError):
        on(world, NEW, promoted()).reconcile(world.epoch - 1)
    assert set(world.states()) == {ChangeState.APPLIED}


def test_what_undoes_it_is_told_as_sql() -> None:
    world = World()
    world.server.entries["work_mem"] = "it's 4MB"
    adjuster = on(world, OLD)
    adjuster.apply({"work_mem": 65536, "jit": False}, actor="test", epoch=world.epoch, trial_id=1)
    adjuster.apply({"work_mem": 32768}, actor="test", epoch=world.epoch, trial_id=1)
    rows = list(world.journal.rows.values())
    for told in (what_was_left(rows), what_stands_here(rows)):
        assert "10.0.0.1:5432 (timeline 7301/1)" in told
        assert told.endswith(
            "ALTER SYSTEM RESET jit; ALTER SYSTEM SET work_mem = 'it''s 4MB'; "
            "SELECT pg_reload_conf();"
        )
    assert what_was_left(()) == what_stands_here(()) == ""


def test_the_watchdog_leaves_it_behind_and_says_where(world: World) -> None:
    server = promoted()
    describe = server.describe
    server.describe = lambda: replace(describe(), identity=NEW)  # type: ignore[method-assign]
    watchdog = Watchdog(world.journal, lambda: server, world.clock, sleep=world.clock.sleep)
    world.journal.release_lease(world.epoch)
    watchdog.tick()
    assert server.writes == 0
    assert [event.kind for event in world.journal.events] == ["left_behind"]
    assert "10.0.0.1:5432" in world.journal.events[0].message


def test_what_a_server_brought_along_without_proof_is_told(world: World) -> None:
    """A stand-by that was copied in mid-trial holds the candidate."""
    copy = FakeServer(Steps())
    copy.foreign_set("work_mem", 65536, reload=True)
    left = on(world, NEW, copy).reconcile(world.epoch).left_behind
    readings = copy.read_knobs(["work_mem", "jit"])

    def told(**deployed: KnobValue) -> list[str]:
        return [row.knob for row in brought_along(left, readings, CATALOG, deployed)]

    assert told() == ["work_mem"]  # jit stands there as it was before
    assert told(work_mem=65536) == []  # it is deployed, so it was proven since
