"""A long operation in accelerated time: what it takes up stays bounded."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import sqlalchemy as sa

from backend.domain.knobs import KnobConfig, KnobSpace
from backend.targets.simulated_load import LoadScript
from backend.telemetry import retention
from backend.telemetry.schema import metadata
from benchmarks.levels.processes import memory_folder
from tests.faults.catalogue.fault import fault
from tests.faults.catalogue.world import WAIT_S, World
from tests.scripted_tuner import SHORT, ScriptedRun
from tests.simulated_run import Run, make_target
from tests.waiting import eventually

_HOUR_S = 3600.0
_STEP_S = 2.5
_LOOKS = 7 * 24
"""So many times what is taken up is looked at, and the store pruned: hourly in a week."""
_USUAL_DAYS = 30.0
"""Of ``telemetry.retention_days``."""
_MOST_GROWTH_BYTES = 64 << 20
"""Of memory, after the first quarter of the time."""
_MOST_GROWTH_OF_STORE = 1.25
"""From the first four sevenths of the time to the rest; without retention it would be 1.75."""
_COME_AND_GO = ("windows", "window_queries", "trials", "changes", "events")
"""Tables of which what is old goes; policy versions and what they rest on stay."""

_LOSSES = 40
_MOST_SESSIONS = 3
_SLACK = 5
"""Threads or files that come late, such as a worker's; one a loss would be 20."""
_OURS = "FROM pg_stat_activity WHERE application_name = 'autopilot_tuner'"


@dataclass(frozen=True)
class Taken:
    """What a tuner takes up; files by kind in bytes, rows of the store by table."""

    memory_bytes: int
    files: dict[str, int]
    rows: dict[str, int]
    threads: int
    descriptors: int
    processor_s: float


@fault(12, "a week of operation in accelerated time (simulated)", repeats=1, in_ci=0)
def week(world: World, number: int) -> None:
    """Memory, disk, threads and open files stay bounded."""
    _operate(world, 7 * 24, learns=False)


@fault(12, "six hours with the agents in accelerated time (simulated)", repeats=1, in_ci=0)
def hours_with_agents(world: World, number: int) -> None:
    """The same with the knob agent and what Level 1 learns, as long as most of a day's trials."""
    _operate(world, 6, learns=True)


@fault(12, "three hours of operation in accelerated time (simulated)", repeats=1)
def three_hours(world: World, number: int) -> None:
    """The same as a week, shorter."""
    _operate(world, 3, learns=False)


@fault(12, "all connections lost 40 times: sessions, threads and open files", repeats=1)
def connections_lost(world: World, number: int) -> None:
    """A tuner that connects anew leaves nothing of the connections before."""
    tuner = psutil.Process(world.trials().process.pid)
    seen = []
    for _ in range(_LOSSES):
        lost = _sessions(world)
        world.execute(f"SELECT pg_terminate_backend(pid) {_OURS}")
        fresh = eventually(lambda lost=lost: _sessions(world) - lost, "it connects anew", WAIT_S)
        seen.append((len(fresh), tuner.num_threads(), tuner.num_fds()))
    sessions, threads, descriptors = zip(*seen, strict=True)
    assert max(sessions) <= _MOST_SESSIONS, seen
    for counts in (threads, descriptors):
        half = len(counts) // 2
        assert max(counts[half:]) <= max(counts[:half]) + _SLACK, seen


def _sessions(world: World) -> set[int]:
    return {pid for (pid,) in world.query(f"SELECT pid {_OURS}")}


def _operate(world: World, hours: int, *, learns: bool) -> None:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        life = world.begin(operate, Path(folder), hours, learns)
        taken = [life.hear(600.0) for _ in range(_LOOKS)]
        assert life.ended() == 0
    _be_bounded(taken)


def _be_bounded(taken: Sequence[Taken]) -> None:
    settled = taken[len(taken) // 4 :]
    early, late = slice(4 * len(taken) // 7), slice(4 * len(taken) // 7, None)
    assert {(look.threads, look.descriptors) for look in settled} == {
        (settled[0].threads, settled[0].descriptors)
    }
    growth = max(look.memory_bytes for look in settled) - settled[0].memory_bytes
    assert growth < _MOST_GROWTH_BYTES, settled[-1]
    sizes = [{"bytes": look.files["store"], **look.rows} for look in taken]
    for name in ("bytes", *_COME_AND_GO):
        before, after = (max(size[name] for size in sizes[part]) for part in (early, late))
        assert 0 < after < _MOST_GROWTH_OF_STORE * before, (name, before, after)


def operate(folder: Path, hours: int, learns: bool, told: Connection) -> None:
    """Live as a tuner on a simulated server whose load swings by day and night.

    Tells what it takes up :data:`_LOOKS` times. What is recorded is averaged after a seventh of the
    time and goes after two, and of changes as small a share of the usual number is kept, so that
    the bounds are met within this time. Without learning every candidate is another one, near what
    stands.
    """
    days = 2 * hours / 7 / 24
    retention.FULL_DETAIL *= days / 2
    retention.CHANGES_KEPT = round(retention.CHANGES_KEPT * days / _USUAL_DAYS)
    target = make_target(load=LoadScript(swing=0.5, period_s=24 * _HOUR_S))
    draws = np.random.default_rng(0)
    run = (
        Run(folder, target, **SHORT)
        if learns
        else ScriptedRun(folder, target, lambda present: _near(target.space, present, draws))
    )
    telemetry = run.settings.telemetry.model_copy(update={"retention_days": days})
    run.orchestrator.settings = run.settings.model_copy(update={"telemetry": telemetry})
    for _ in range(_LOOKS):
        _live(run, hours * _HOUR_S / _LOOKS, learns)
        told.send(_taken(run, folder))
    run.orchestrator.end()


def _live(run: Run, seconds: float, learns: bool) -> None:
    """Let its jobs run as the scheduler would, each often enough."""
    tuner = run.orchestrator
    for step in range(round(seconds / _STEP_S)):
        run.clock.advance(_STEP_S)
        tuner.tune()
        if step % 2:
            tuner.observe()
        if learns:
            tuner._running.policies.learn()
    tuner.save_status()
    tuner.save_knobs()
    tuner.retain()


def _taken(run: Run, folder: Path) -> Taken:
    files: Counter[str] = Counter()
    for file in folder.rglob("*"):
        if file.is_file():
            kind = "store" if ".db" in file.name else file.relative_to(folder).parts[0]
            files[kind] += file.stat().st_size
    with run.store._reading() as connection:
        rows = {
            table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar()
            for table in metadata.sorted_tables
        }
    process = psutil.Process()
    return Taken(
        process.memory_info().rss,
        dict(files),
        rows,
        process.num_threads(),
        process.num_fds(),
        sum(process.cpu_times()[:2]),
    )


def _near(space: KnobSpace, present: KnobConfig, draws: np.random.Generator) -> KnobConfig:
    vector = space.encode(present)
    config = space.decode(np.clip(vector + draws.normal(0, 0.3, len(vector)), -1, 1))
    fixed = [knob.name for knob in space if knob.context == "restart"]
    return config.replace({name: present[name] for name in fixed})
