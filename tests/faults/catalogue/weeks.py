"""A long operation in accelerated time: what it takes up stays bounded."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from backend.domain.knobs import KnobConfig, KnobSpace
from backend.targets.simulated_load import LoadScript
from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import World
from tests.scripted_tuner import ScriptedRun
from tests.simulated_run import make_target

_HOUR_S = 3600.0
_WEEK_H = 7 * 24
_SOME_H = 3
_MOST_GROWTH_BYTES = 64 << 20
"""Of memory, after the first quarter of the time."""
_MOST_STORE_BYTES = 256 << 20


@dataclass(frozen=True)
class Taken:
    """What a tuner takes up after an hour."""

    memory_bytes: int
    store_bytes: int
    threads: int
    descriptors: int
    trials: int


@fault(12, "a week of operation in accelerated time (simulated)", repeats=1, in_ci=0)
def week(world: World, number: int) -> None:
    """Memory, disk, threads and open files stay bounded."""
    _operate(world, _WEEK_H)


@fault(12, "three hours of operation in accelerated time (simulated)", repeats=1)
def three_hours(world: World, number: int) -> None:
    """The same, shorter."""
    _operate(world, _SOME_H)


def _operate(world: World, hours: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = world.begin(operate, Path(folder), hours)
        taken = [life.hear(300.0) for _ in range(hours)]
        assert life.ended() == 0
    settled = taken[len(taken) // 4 :]
    assert taken[-1].trials > taken[0].trials > 0
    assert {(hour.threads, hour.descriptors) for hour in settled} == {
        (settled[0].threads, settled[0].descriptors)
    }
    assert max(h.memory_bytes for h in settled) < settled[0].memory_bytes + _MOST_GROWTH_BYTES
    assert max(h.store_bytes for h in taken) < _MOST_STORE_BYTES, taken[-1]


def operate(folder: Path, hours: int, told: Connection) -> None:
    """Live as a tuner on a simulated server whose load swings by day and night.

    Every candidate is another one, near what stands; tells what it takes up after each hour.
    """
    target = make_target(load=LoadScript(swing=0.5, period_s=24 * _HOUR_S))
    draws = np.random.default_rng(0)
    run = ScriptedRun(folder, target, lambda present: _near(target.space, present, draws))
    process = psutil.Process()
    for _ in range(hours):
        run.go(_HOUR_S)
        run.orchestrator.save_status()
        run.orchestrator.save_knobs()
        run.orchestrator.retain()
        told.send(
            Taken(
                process.memory_info().rss,
                sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
                process.num_threads(),
                process.num_fds(),
                len(run.store.trials(limit=100_000)),
            )
        )
    run.orchestrator.end()


def _near(space: KnobSpace, present: KnobConfig, draws: np.random.Generator) -> KnobConfig:
    vector = space.encode(present)
    config = space.decode(np.clip(vector + draws.normal(0, 0.3, len(vector)), -1, 1))
    fixed = [knob.name for knob in space if knob.context == "restart"]
    return config.replace({name: present[name] for name in fixed})
