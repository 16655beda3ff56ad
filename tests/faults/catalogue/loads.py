"""The clients' load changes in mid-trial: on the simulated server, where the truth is known."""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from backend.domain.knobs import KnobConfig
from backend.domain.modes import TrialKind, Verdict
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_load import LoadScript
from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import World
from tests.scripted_tuner import ScriptedRun, promise

_NOISE = Noise(sigma=0.03, shared_sigma=0.03, per_call=0.5)
_QUICK = {"window_s": 3, "settle_s": 0, "rest_s": 0}
_VOLUMES = (1.0, 2.0, 0.5, 0.0)
_LONGEST_S = 1800.0


class Clients(LoadScript):
    """Clients whose number a test turns."""

    def turn_to(self, volume: float) -> None:
        """So many times the model's own arrivals, from now on."""
        object.__setattr__(self, "volume", volume)


@fault(8, "load: doubles, halves, stops in a trial of what is worse (simulated)", repeats=100)
def load_changes_under_the_worse(world: World, number: int) -> None:
    """It is never deployed."""
    assert _verdict(number, worse=True) is not Verdict.ACCEPT


@fault(8, "load: doubles, halves, stops in a trial of what is better (simulated)", repeats=100)
def load_changes_under_the_better(world: World, number: int) -> None:
    """It is never found worse: accepted, or not decided."""
    assert _verdict(number, worse=False) is not Verdict.REJECT


@fault(8, "load: stops in mid-trial, and comes back", repeats=20, in_ci=0)
def load_stops(world: World, number: int) -> None:
    """On the real server: the candidate leaves, without a verdict on nothing."""
    world.in_mid_trial()
    tuner = world.trials()
    world.stop_load()
    tuner.resume()
    world.restored(time.monotonic())


def _verdict(number: int, *, worse: bool) -> Verdict | None:
    draws = random.Random(number)
    clients, model = Clients(), ResponseModel(seed=number)
    target = SimulatedDatabase(model, load=clients, noise=_NOISE, seed=number)
    with tempfile.TemporaryDirectory() as folder:
        run = ScriptedRun(Path(folder), target, lambda present: present, **_QUICK)
        with closing(run.store):
            run.go(200, until=lambda: run.loop.workloads.ready)
            promise(run.loop, _changes(model, worse=worse))
            run.go(_LONGEST_S, until=lambda: run.loop.trial is not None)
            end_s = run.clock.monotonic_s() + _LONGEST_S
            while run.loop.trial is not None and run.clock.monotonic_s() < end_s:
                run.go(draws.uniform(2, 12), until=lambda: run.loop.trial is None)
                clients.turn_to(draws.choice(_VOLUMES))
            (trial,) = run.of_kind(TrialKind.PROMOTION)
            assert not any("was not made" in reason for reason in trial.reasons)
            deployed = run.entries if trial.verdict is Verdict.ACCEPT else {}
            run.orchestrator.end()
            assert dict(run.entries) == dict(deployed)
            assert not run.store.open_changes()
            return trial.verdict


def _changes(model: ResponseModel, *, worse: bool) -> KnobConfig:
    """What is better than the default one, or as far on its other side."""
    space, default = model.space, model.space.default_config()
    best = space.encode(model.best_config)
    vector = best if not worse else 2 * space.encode(default) - best
    config = space.decode(np.clip(vector, -1, 1))
    changes = {
        knob.name: config[knob.name]
        for knob in space
        if knob.context != "restart"
        and knob.name != "max_parallel_workers_per_gather"  # bounded by the machine's cores
        and config[knob.name] != default[knob.name]
    }
    assert (model.index_of(default.replace(changes)) > 1) == worse
    return KnobConfig(changes)
