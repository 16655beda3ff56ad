"""The watchdog: who is dead, what it undoes, and what it survives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest

from backend.domain.modes import ChangeState
from backend.domain.records import LeaseRecord
from backend.errors import (
    PrivilegeError,
    ServerConnectionError,
    StaleEpochError,
    StoreError,
)
from backend.lease import LeaseTime, holder_name, why_ownerless
from backend.parameter_adjuster import ParameterAdjuster
from backend.watchdog import Watchdog, run_watchdog
from tests.fake_server import CATALOG, START, FakeClock, FakeJournal, FakeServer, Steps

TTL_S = 8.0


class Scene:
    """A tuner with an open change, and a watchdog beside it."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.clock = FakeClock()
        self.server = FakeServer(self.steps)
        self.journal = FakeJournal(self.steps, self.clock)
        self.connections = 0
        self.watchdog = Watchdog(self.journal, self.connect, self.clock, sleep=self.clock.sleep)
        self.tuner = ParameterAdjuster(
            self.server, self.journal, CATALOG, self.clock, sleep=self.clock.sleep
        )
        self.server.end_tuner_sessions = self.end_sessions  # type: ignore[method-assign]
        self.sessions = 1

    def connect(self) -> FakeServer:
        self.connections += 1
        if not self.server.up:
            raise ServerConnectionError("connection refused")
        return self.server

    def end_sessions(self) -> int:
        self.server.ended += 1
        there, self.sessions = self.sessions, 0
        return there

    def begin(self, holder: str) -> int:
        return self.journal.acquire_lease(holder, TTL_S)

    def open_change(self, epoch: int) -> None:
        self.tuner.apply({"work_mem": 65536, "jit": False}, actor="test", epoch=epoch)

    def pass_time(self, seconds: float) -> None:
        self.clock.seconds += seconds

    def ticks(self, number: int) -> None:
        for _ in range(number):
            self.watchdog.tick()
            self.pass_time(1.0)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def elsewhere() -> str:
    return f"another-machine-than-{socket.gethostname()}:1:1.00"


# -- who is dead ------------------------------------------------------------------------------


def lease_of(holder: str, *, released: bool = False) -> LeaseRecord:
    return LeaseRecord(1, holder, START + timedelta(seconds=TTL_S), released)


def test_a_living_holder_acts_until_its_lease_runs_out() -> None:
    mine = lease_of(holder_name())
    assert why_ownerless(mine, START) is None
    late = why_ownerless(mine, START + timedelta(seconds=TTL_S + 1))
    assert late is not None
    assert "hangs" in late


def test_a_killed_holder_is_noticed_at_once_even_before_it_is_reaped(
    other_process: subprocess.Popen[bytes],
) -> None:
    lease = lease_of(holder_name(other_process.pid))
    assert why_ownerless(lease, START) is None
    os.kill(other_process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(other_process.pid).status() == psutil.STATUS_ZOMBIE
    assert "died" in str(why_ownerless(lease, START))
    other_process.wait()
    assert "died" in str(why_ownerless(lease, START))


def test_a_reused_pid_is_not_the_holder() -> None:
    host, pid, started = holder_name().rsplit(":", 2)
    assert why_ownerless(lease_of(f"{host}:{pid}:{float(started) - 100:.2f}"), START) is not None


def test_a_step_of_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = lease_of(holder_name())
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 12345.0)
    assert why_ownerless(lease, START) is None


@pytest.mark.parametrize("holder", ["", "watchdog", "a:b:c", "host:-1:x", ":::", "h:1:nan"])
def test_holders_that_cannot_be_told_count_as_alive(holder: str) -> None:
    assert why_ownerless(lease_of(holder), START) is None


def test_a_holder_elsewhere_is_judged_by_its_lease_alone() -> None:
    assert why_ownerless(lease_of(elsewhere()), START) is None
    assert why_ownerless(lease_of(elsewhere()), START + timedelta(seconds=9)) is not None


@pytest.mark.parametrize("step_h", [-1, 1])
def test_a_step_of_the_clock_does_not_move_the_end_of_a_lease(step_h: int) -> None:
    clock, lease = FakeClock(), lease_of(elsewhere())
    time = LeaseTime(clock)
    clock.seconds = TTL_S - 1
    assert why_ownerless(lease, time.now(lease)) is None
    monotonic_s, now = clock.monotonic_s, clock.now
    clock.now = lambda: now() + timedelta(hours=step_h)  # type: ignore[method-assign]
    assert why_ownerless(lease, time.now(lease)) is None
    clock.monotonic_s = lambda: monotonic_s() + 1.5  # type: ignore[method-assign]
    assert "hangs" in str(why_ownerless(lease, time.now(lease)))
    renewed = replace(lease, expires_at=clock.now() + timedelta(seconds=TTL_S))
    assert why_ownerless(renewed, time.now(renewed)) is None


@pytest.mark.parametrize("step_h", [-1, 1])
def test_a_renewal_that_is_first_seen_after_a_step_of_the_clock(step_h: int) -> None:
    clock, lease = FakeClock(), lease_of(elsewhere())
    time = LeaseTime(clock)
    time.now(replace(lease, epoch=0))
    now = clock.now
    clock.now = lambda: now() + timedelta(hours=step_h)  # type: ignore[method-assign]
    clock.seconds = 1.0
    assert why_ownerless(lease, time.now(lease)) is None
    clock.seconds = TTL_S + 1.0
    assert "hangs" in str(why_ownerless(lease, time.now(lease)))


# -- what it does -----------------------------------------------------------------------------


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


# -- what it survives -------------------------------------------------------------------------


def test_a_lost_server_is_tried_again_until_it_is_back(scene: Scene) -> None:
    epoch = scene.begin(elsewhere())
    scene.open_change(epoch)
    scene.server.up = False
    scene.pass_time(TTL_S + 1)
    scene.ticks(40)
    assert scene.server.entries != {}
    assert scene.connections < 20
    assert [e.kind for e in scene.journal.events] == ["watchdog_waits"]
    scene.server.up = True
    scene.ticks(6)
    assert scene.server.entries == {}
    assert scene.journal.events[-1].kind == "watchdog_rollback"


def test_a_connection_that_breaks_while_undoing_is_made_again(scene: Scene) -> None:
    scene.open_change(scene.begin(elsewhere()))
    scene.pass_time(TTL_S + 1)
    scene.steps.fail_at("wrote work_mem", lambda: ServerConnectionError("gone"))
    scene.ticks(2)
    scene.steps.clear()
    scene.ticks(4)
    assert scene.server.entries == {}
    assert scene.connections >= 2


def test_a_new_tuner_takes_the_work_from_it(scene: Scene) -> None:
    scene.open_change(scene.begin(elsewhere()))
    scene.server.up = False
    scene.pass_time(TTL_S + 1)
    scene.ticks(2)
    scene.server.up = True
    newer = scene.begin(holder_name())
    scene.tuner.reconcile(newer)
    scene.tuner.apply({"work_mem": 8192}, actor="test", epoch=newer)
    for _ in range(20):
        scene.journal.renew_lease(newer, TTL_S)
        scene.ticks(1)
    assert scene.server.entries == {"work_mem": "8192"}
    assert scene.journal.current_epoch() == newer


def test_sessions_that_may_not_be_ended_do_not_stop_it(scene: Scene) -> None:
    def refused() -> int:
        raise PrivilegeError("permission denied for function pg_terminate_backend")

    scene.server.end_tuner_sessions = refused  # type: ignore[method-assign]
    scene.open_change(scene.begin(elsewhere()))
    scene.pass_time(TTL_S + 1)
    scene.ticks(1)
    assert scene.server.entries == {}


@pytest.mark.parametrize("error", [StoreError("database is locked"), RuntimeError("a bug")])
def test_a_store_in_trouble_does_not_end_it(scene: Scene, error: Exception) -> None:
    scene.open_change(scene.begin(elsewhere()))
    scene.pass_time(TTL_S + 1)
    scene.steps.fail_at("open changes", lambda: error)
    scene.ticks(5)
    scene.steps.clear()
    scene.ticks(8)
    assert scene.server.entries == {}


def test_what_cannot_be_undone_yet_is_tried_again(scene: Scene) -> None:
    scene.open_change(scene.begin(elsewhere()))
    scene.server.refused.add("jit")
    scene.pass_time(TTL_S + 1)
    scene.ticks(10)
    assert scene.server.entries == {"jit": "off"}
    scene.server.refused.clear()
    scene.ticks(10)
    assert scene.server.entries == {}


def test_run_watchdog_ends_when_told_and_releases_what_it_holds(scene: Scene) -> None:
    scene.open_change(scene.begin(elsewhere()))
    scene.server.up = False
    scene.pass_time(TTL_S + 1)
    stop = threading.Event()
    original = scene.connect

    def connect() -> FakeServer:
        stop.set()
        return original()

    run_watchdog(scene.journal, connect, stop_event=stop, poll_interval_s=0.0, clock=scene.clock)
    lease = scene.journal.lease()
    assert lease is not None
    assert lease.released


def test_a_tuner_that_dies_while_all_is_ended_is_still_undone(
    scene: Scene, other_process: subprocess.Popen[bytes]
) -> None:
    scene.open_change(scene.begin(holder_name(other_process.pid)))
    stop = threading.Event()
    stop.set()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        """The tuner lives on for a moment, and then ends without having undone its change."""
        slept.append(seconds)
        scene.pass_time(seconds)
        if len(slept) == 3:
            other_process.kill()
            other_process.wait()

    scene.clock.sleep = sleep  # type: ignore[method-assign]
    run_watchdog(scene.journal, scene.connect, stop_event=stop, clock=scene.clock)
    assert scene.server.entries == {}
    assert scene.journal.open_changes() == []


def test_it_ends_although_a_living_tuner_keeps_its_change(scene: Scene) -> None:
    scene.open_change(scene.begin(holder_name()))
    stop = threading.Event()
    stop.set()
    renew = scene.clock.sleep

    def sleep(seconds: float) -> None:
        renew(seconds)
        assert scene.journal.renew_lease(1, TTL_S)

    scene.clock.sleep = sleep  # type: ignore[method-assign]
    run_watchdog(scene.journal, scene.connect, stop_event=stop, clock=scene.clock)
    assert scene.server.entries != {}


def test_it_stays_small() -> None:
    """No TensorFlow, no dashboard: it must start fast and cost next to nothing."""
    code = (
        "import sys, backend.watchdog; "
        "print([m for m in ('tensorflow', 'keras', 'dash', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
