"""Changes that the server refuses half-way, or does not start with."""

from __future__ import annotations

import time

from tests.faults.catalogue import lives
from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import WAIT_S, World
from tests.running_product import lives as lives_on
from tests.waiting import eventually

_ROLE = "half_a_tuner"
# Any more is refused as a value, before anything is restarted.
_UNSTARTABLE = {"shared_buffers": "7TB", "work_mem": 65536}


@fault(3, "server: does not start with what was tried", repeats=20)
def unstartable(world: World, number: int) -> float | None:
    """The embedded server comes back with what let it start last; nobody helps."""
    world.end_trials()
    began_s = time.monotonic()
    tuner = world.begin(lives.apply_once, world.place, None, _UNSTARTABLE)
    assert "stands again" in tuner.hear()
    took_s = time.monotonic() - began_s
    assert tuner.ended() == 0
    world.be_whole()
    return took_s


@fault(3, "server: does not start with what was tried, and the tuner dies over it", repeats=20)
def unstartable_and_killed(world: World, number: int) -> float | None:
    """The watchdog finds the server dead; measured from the tuner's death."""
    world.end_trials()
    postmaster = world.server_processes()[0]
    tuner = world.begin(lives.apply_once, world.place, None, _UNSTARTABLE)
    eventually(lambda: not lives_on(postmaster), "the server is down", WAIT_S, poll_s=0.005)
    return world.restored(tuner.kill())


@fault(4, "change: error on knob 3 of 5", repeats=50, in_ci=2)
def third_refused(world: World, number: int) -> float | None:
    """The role may set all but the third: what was written before is undone."""
    world.end_trials()
    allowed = [name for name in lives.CANDIDATE if name != list(lives.CANDIDATE)[2]]
    password = f"of fault {number}"
    _run(
        world,
        f"DROP ROLE IF EXISTS {_ROLE}",
        f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{password}' IN ROLE pg_read_all_settings",
        f"GRANT ALTER SYSTEM ON PARAMETER {', '.join(allowed)} TO {_ROLE}",
        f"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {_ROLE}",
        f"GRANT SELECT ON pg_file_settings TO {_ROLE}",
        f"GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {_ROLE}",
    )
    try:
        url = world.server.dsn().set(username=_ROLE, password=password)
        tuner = world.begin(lives.apply_once, world.place, url, lives.CANDIDATE)
        message = tuner.hear()
        assert "jit cannot be set" in message
        assert "stands again" in message
        assert tuner.ended() == 0
        world.be_whole()
    finally:
        _run(world, f"DROP OWNED BY {_ROLE}", f"DROP ROLE {_ROLE}")


def _run(world: World, *statements: str) -> None:
    for statement in statements:
        world.execute(statement)


@fault(7, "human: ALTER SYSTEM on a candidate's knob in mid-trial", repeats=20)
def human_in_between(world: World, number: int) -> float | None:
    """The human's value stays, all else goes back."""
    candidate = world.in_mid_trial()
    knob, value = "random_page_cost", "2.75"
    assert knob in {row.knob for row in candidate.changes}
    world.execute(f"ALTER SYSTEM SET {knob} = {value}")
    world.execute("SELECT pg_reload_conf()")
    began_s = time.monotonic()
    world.trials().resume()
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
