"""Tuner and watchdog are killed or hang; two tuners at once."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time

import psutil

from tests.faults import killed_deployments
from tests.faults.catalogue import lives
from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import World
from tests.running_product import REPOSITORY

_LONGEST_LIFE_S = 2.0
_LEAST_DEATHS = 200
STOP = signal.SIGSTOP


@fault(1, "tuner: kill -9 at each step of the journal", repeats=200, in_ci=6)
def killed_at_a_step(world: World, number: int) -> float | None:
    """It dies at a step; the watchdog is left."""
    tuner = world.tuner(signal_at=world.step_of(number))
    return world.restored(tuner.died())


@fault(1, "tuner: kill -9 at random moments", repeats=200, in_ci=4)
def killed_at_random(world: World, number: int) -> float | None:
    """It dies anywhere, also inside a statement or a transaction."""
    tuner = world.tuner()
    tuner.hear()
    time.sleep(random.Random(number).uniform(0, _LONGEST_LIFE_S))
    return world.restored(tuner.kill())


@fault(1, "tuner: kill -9 at every step of a deployment (server in memory)", repeats=1, in_ci=0)
def killed_deploying(world: World, number: int) -> None:
    """All steps of all kinds of deployment in turn, each followed by the next start."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", killed_deployments.__name__, folder],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    lives_after = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lives_after) > _LEAST_DEATHS
    assert [life for life in lives_after if life["open"] or not life["consistent"]] == []


@fault(1, "tuner: SIGSTOP at each step of the journal, later SIGCONT", repeats=50)
def hung_at_a_step(world: World, number: int) -> float | None:
    """It hangs at a step; when it wakes up it may not act any more."""
    tuner = world.tuner(signal_at=world.step_of(number), number=STOP)
    took_s = world.restored(tuner.stopped())
    # Where nothing was open it may go on; else its epoch is over, or its session, or its life.
    tuner.resume()
    if took_s is not None:
        assert tuner.ended() != 0
    tuner.kill()
    world.restored(time.monotonic())
    return took_s


@fault(1, "watchdog: kill -9 in mid-trial; the tuner goes on", repeats=50)
def watchdog_killed(world: World, number: int) -> None:
    """The tuner takes its candidate off itself."""
    tuner = world.tuner(signal_at=world.step_of(number), number=STOP, ends=True)
    tuner.stopped()
    with world.without_watchdog():
        tuner.resume()
        assert tuner.ended() == 0
        world.be_whole()


@fault(1, "tuner and watchdog: kill -9; the watchdog is started again", repeats=50)
def both_killed_watchdog_returns(world: World, number: int) -> float | None:
    """As the supervisor does; measured from there."""
    with world.without_watchdog():
        world.tuner(signal_at=world.step_of(number)).died()
        again_s = time.monotonic()
    return world.restored(again_s)


@fault(1, "watchdog: SIGSTOP, and the tuner dies; the supervisor is left", repeats=20)
def watchdog_hangs(world: World, number: int) -> float | None:
    """It hears no heartbeat any more, kills the watchdog and starts another."""
    with world.without_watchdog():
        supervisor = world.begin(lives.supervise, world.place)
        watchdog = psutil.Process(supervisor.hear())
        tuner = world.tuner(signal_at=lives.step_in_trial(number), number=STOP)
        tuner.stopped()
        watchdog.suspend()
        took_s = world.restored(tuner.kill())
        children = psutil.Process(supervisor.process.pid).children()
        supervisor.kill()
        for process in (watchdog, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    return took_s


@fault(1, "tuner and watchdog: kill -9; the next tuner reconciles", repeats=50)
def both_killed_tuner_returns(world: World, number: int) -> float | None:
    """On the next start, with nobody else; measured from there."""
    with world.without_watchdog():
        world.tuner(signal_at=world.step_of(number)).died()
        off, again_s = world.complaints(), time.monotonic()
        # Stopped before its first step, so that it changes nothing new.
        tuner = world.tuner(signal_at=1, number=STOP)
        tuner.stopped()
        took_s = time.monotonic() - again_s
        world.be_whole()
        tuner.kill()
    return took_s if off else None


@fault(10, "a second tuner on the same server, with a store of its own", repeats=20)
def second_tuner(world: World, number: int) -> None:
    """It declines, and the first one's candidate stays as it is."""
    tuner = world.tuner(signal_at=world.step_of(number), number=STOP, ends=True)
    tuner.stopped()
    before = world.server_state()
    second = world.begin(lives.begin_and_end, world.beside("second"))
    message = second.hear()
    assert "another tuner acts on" in message, message
    assert second.ended() == 0
    assert not world.server_state().differences(before)
    tuner.resume()
    assert tuner.ended() == 0
    world.be_whole()
