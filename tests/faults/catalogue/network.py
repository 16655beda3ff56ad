"""The network between tuner and server fails; the watchdog may have another way."""

from __future__ import annotations

import signal
import time

from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import World

AWAY_S = 3.0
SILENT_S = 25.0
"""Longer than a statement's deadline, a lease and what is promised together."""


@fault(6, "connection: lost between ALTER SYSTEM and reload", repeats=20)
def lost_before_reload(world: World, number: int) -> float | None:
    """The entries are written, nobody has told the server; it comes back after some seconds."""
    tuner = world.trials()
    tuner.send(signal.SIGUSR1)
    tuner.stopped()
    assert world.proxy is not None
    began_s = time.monotonic()
    world.proxy.cut()
    tuner.resume()
    time.sleep(AWAY_S)
    world.proxy.heal()
    return world.restored(began_s)


@fault(6, "network: silent in mid-trial, no answer and no reset", repeats=20)
def silent(world: World, number: int) -> float | None:
    """The tuner gives up after its deadlines; the watchdog has a way of its own."""
    world.in_mid_trial()
    assert world.proxy is not None
    began_s = time.monotonic()
    world.proxy.silence()
    try:
        world.resume_trials()
        return world.restored(began_s)
    finally:
        world.proxy.heal()
