"""Changes that the server refuses half-way, or does not start with."""

from __future__ import annotations

import time

from tests.faults.catalogue import lives
from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import WAIT_S, World
from tests.running_product import lives as lives_on
from tests.waiting import eventually

# Any more is refused as a value, before anything is restarted.
_UNSTARTABLE = {"shared_buffers": "7TB", "work_mem": 65536}
_THIRD_REFUSED = {
    "work_mem": 65536,
    "random_page_cost": 1.5,
    "effective_cache_size": "32TB",
    "jit": False,
    "cpu_tuple_cost": 0.02,
}


@fault(3, "server: does not start with what was tried", repeats=20)
def unstartable(world: World, number: int) -> float | None:
    """The embedded server comes back with what let it start last; nobody helps."""
    world.end_trials()
    began_s = time.monotonic()
    tuner = world.begin(lives.apply_once, world.place, _UNSTARTABLE)
    message = tuner.hear()
    assert "did not start" in message, message
    assert "stands again" in message, message
    took_s = time.monotonic() - began_s
    assert tuner.ended() == 0
    world.be_whole()
    return took_s


@fault(3, "server: does not start with what was tried, and the tuner dies over it", repeats=20)
def unstartable_and_killed(world: World, number: int) -> float | None:
    """The watchdog finds the server dead; measured from the tuner's death."""
    world.end_trials()
    postmaster = world.server_processes()[0]
    tuner = world.begin(lives.apply_once, world.place, _UNSTARTABLE)
    eventually(lambda: not lives_on(postmaster), "the server is down", WAIT_S, poll_s=0.005)
    return world.restored(tuner.kill())


@fault(4, "change: error on knob 3 of 5", repeats=50, in_ci=2)
def third_refused(world: World, number: int) -> None:
    """The server does not take the third value: what was written before is undone."""
    world.end_trials()
    tuner = world.begin(lives.apply_once, world.place, _THIRD_REFUSED)
    message = tuner.hear()
    assert "effective_cache_size = 4294967296 was refused" in message, message
    assert "stands again" in message, message
    assert tuner.ended() == 0
    world.be_whole()


@fault(7, "human: ALTER SYSTEM on a candidate's knob in mid-trial", repeats=20)
def human_in_between(world: World, number: int) -> float | None:
    """The human's value stays, all else goes back."""
    candidate = world.in_mid_trial()
    knob, value = "random_page_cost", "2.75"
    assert knob in {row.knob for row in candidate.changes}
    world.execute(f"ALTER SYSTEM SET {knob} = {value}")
    world.execute("SELECT pg_reload_conf()")
    began_s = time.monotonic()
    world.resume_trials()
    try:
        took_s = world.restored(began_s, but=(knob,))
        world.end_trials()
        state = world.server_state()
        assert (state.settings[knob], state.entries[knob]) == (value, f"'{value}'")
        assert "conflict" in {row.state.value for row in world.store.changes() if row.knob == knob}
    finally:
        world.end_trials()
        world.execute(f"ALTER SYSTEM RESET {knob}")
        world.execute("SELECT pg_reload_conf()")
        # The next tuner takes what it finds for what is deployed.
        world.tuner(ends=True).ended()
    world.be_whole()
    return took_s
