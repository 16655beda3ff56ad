"""The server restarts and crashes in mid-trial, and does not start with what was tried."""

from __future__ import annotations

import random
import time

import psutil

from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import World


@fault(2, "server: restarted in mid-trial", repeats=20)
def server_restarts(world: World, number: int) -> float | None:
    """As an administrator does it."""
    world.in_mid_trial()
    began_s = time.monotonic()
    world.server.restart()
    world.resume_trials()
    return world.restored(began_s)


@fault(2, "server: kill -9 of one of its processes in mid-trial", repeats=20)
def backend_killed(world: World, number: int) -> float | None:
    """All sessions end, and it recovers; measured from where it answers again."""
    world.in_mid_trial()
    backends = [
        pid
        for (pid,) in world.query(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = "
            "'client backend' AND pid <> pg_backend_pid()"
        )
    ]
    psutil.Process(random.Random(number).choice(backends)).kill()
    world.resume_trials()
    return world.restored_after_return()


@fault(2, "server: kill -9 of all of it in mid-trial", repeats=20, in_ci=0)
def server_killed(world: World, number: int) -> float | None:
    """Who finds the embedded server dead starts it; measured from where it answers again."""
    world.in_mid_trial()
    doomed = world.server_processes()
    for process in doomed:
        process.kill()
    world.resume_trials()
    return world.restored_after_return()
