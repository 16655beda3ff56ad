"""What the watchdog undoes when a tuner is gone, and what it leaves alone."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil
import pytest

from backend.domain.modes import ChangeState
from backend.errors import StaleEpochError, StoreError
from backend.lease import holder_name
from tests.unit.watchdog.scene import TTL_S, Scene, elsewhere


def test_a_tuner_that_lives_is_left_alone_and_a_connection_kept_ready(scene: Scene) -> None:
    epoch = scene.begin(holder_name())
    scene.open_change(epoch)
    for _ in range(30):
        scene.journal.renew_lease(epoch, TTL_S)
        scene.ticks(1)
    assert scene.server.running["work_mem"] == 65536
    assert scene.journal.current_epoch() == epoch
    assert scene.connections == 1
    assert scene.journal.events == []


def test_a_dead_tuner_is_rolled_back_on_the_first_look(
    scene: Scene, other_process: subprocess.Popen[bytes]
) -> None:
    epoch = scene.begin(holder_name(other_process.pid))
    scene.open_change(epoch)
    other_process.kill()
    other_process.wait()
    scene.ticks(1)
    assert scene.server.entries == {}
    assert scene.server.running["work_mem"] == 4096
    assert scene.server.ended >= 2
    assert {row.state for row in scene.journal.rows.values()} == {ChangeState.ROLLED_BACK}
    [event] = scene.journal.events
    assert (event.level, event.kind) == ("warning", "watchdog_rollback")
    assert event.detail["rolled_back"] == ["jit", "work_mem"]
    lease = scene.journal.lease()
    assert lease is not None
    assert lease.released
    scene.ticks(3)
    assert len(scene.journal.leases) == 2
    assert len(scene.journal.events) == 1


def test_a_hung_tuner_is_rolled_back_when_its_lease_runs_out_and_may_not_act_again(
    scene: Scene,
) -> None:
    epoch = scene.begin(holder_name())
    scene.open_change(epoch)
    scene.ticks(8)
    assert scene.server.running["work_mem"] == 65536
    scene.ticks(2)
    assert scene.server.entries == {}
    with pytest.raises(StaleEpochError):
        scene.open_change(epoch)
    assert scene.server.entries == {}
    assert not scene.journal.renew_lease(epoch, TTL_S)


def test_it_looks_again_just_when_the_lease_runs_out(scene: Scene) -> None:
    scene.open_change(scene.begin(elsewhere()))
    scene.pass_time(TTL_S - 0.5)
    scene.watchdog.tick()
    due_s = scene.watchdog.due_in_s(1.0)
    assert 0.5 < due_s < 0.6
    assert scene.watchdog.due_in_s(0.1) == 0.1
    scene.pass_time(due_s)
    scene.watchdog.tick()
    assert scene.server.entries == {}
    assert scene.watchdog.due_in_s(1.0) == 1.0


def test_a_hung_tuner_that_holds_the_store_is_killed_and_undone_in_one_look(
    scene: Scene, other_process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.open_change(scene.begin(holder_name(other_process.pid)))
    scene.pass_time(TTL_S + 1)
    acquire = scene.journal.acquire_lease

    def locked_while_it_lives(holder: str, ttl_s: float) -> int:
        if psutil.Process(other_process.pid).status() != psutil.STATUS_ZOMBIE:
            raise StoreError("database is locked")
        return acquire(holder, ttl_s)

    def killed(self: psutil.Process) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(scene.journal, "acquire_lease", locked_while_it_lives)
    monkeypatch.setattr(psutil.Process, "kill", killed)
    scene.watchdog.tick()
    assert scene.server.entries == {}


def test_a_tuner_that_waits_for_a_restart_does_not_hang(scene: Scene) -> None:
    epoch = scene.begin(holder_name())
    restart = scene.server.restart

    def slowly() -> None:
        scene.ticks(30)
        restart()

    scene.server.restart = slowly  # type: ignore[method-assign]
    scene.tuner.apply({"shared_buffers": 131072}, actor="test", epoch=epoch, allow_restart=True)
    assert scene.server.running["shared_buffers"] == 131072
    [batch] = {row.batch_id for row in scene.journal.open_changes()}
    scene.tuner.roll_back(batch, epoch=epoch, reason="test")
    assert scene.server.running["shared_buffers"] == 16384
    assert scene.journal.current_epoch() == epoch
    assert scene.journal.events == []


def test_a_hung_tuner_without_open_changes_keeps_its_epoch(scene: Scene) -> None:
    epoch = scene.begin(holder_name())
    scene.ticks(20)
    assert scene.journal.current_epoch() == epoch


def test_a_tuner_that_ended_in_good_order_needs_no_connection(scene: Scene) -> None:
    scene.journal.release_lease(scene.begin(holder_name()))
    scene.ticks(20)
    assert scene.connections == 0


def test_without_any_lease_nothing_happens(scene: Scene) -> None:
    scene.ticks(3)
    assert scene.connections == 0
    assert scene.journal.leases == []


def test_a_human_who_changed_a_knob_of_the_dead_tuner_keeps_it(scene: Scene) -> None:
    epoch = scene.begin(elsewhere())
    scene.open_change(epoch)
    scene.server.foreign_set("work_mem", 12345, reload=True)
    scene.pass_time(TTL_S + 1)
    scene.ticks(1)
    assert scene.server.entries == {"work_mem": "12345"}
    assert scene.journal.events[0].detail["conflicts"] == ["work_mem"]
