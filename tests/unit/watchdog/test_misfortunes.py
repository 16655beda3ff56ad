"""What the watchdog survives, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from backend.errors import PrivilegeError, ServerConnectionError, StoreError
from backend.lease import holder_name
from backend.watchdog import run_watchdog
from tests.fake_server import FakeServer
from tests.unit.watchdog.scene import TTL_S, Scene, elsewhere


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
