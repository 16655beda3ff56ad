"""The process of an evolution: low priority, bounded in time and cores, ended cleanly by Ctrl-C.

Several processes share one study; the first also decides in the end. Each is ended by its own
clock, so none outlives a killed parent by more than an individual's learning run.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from multiprocessing.context import SpawnProcess

from sqlalchemy.engine import URL

from backend.domain.records import EventRecord
from backend.evolution.genome import Genome
from backend.evolution.outcome import EvolutionSettings, Outcome
from backend.evolution.problems import Curriculum
from backend.meta_learner import MetaLearner
from backend.protocols import Store
from backend.telemetry import open_store

CONCLUDING_SHARE = 0.2
"""Share of the time that is kept for judging the winner."""
MOST_OVERRUN = 1.5
"""Judging is given up, and nothing deployed, after so many times the evolution's time."""
NICE = 19


class TimeIsUpError(Exception):
    """Raised between two learning runs; not an error of anybody's."""


@dataclass(frozen=True)
class Task:
    """What a process of an evolution is given.

    Args:
        curriculum, incumbent, earlier, settings, storage: those of :class:`MetaLearner`.
        store: URL of the store for records.
    """

    curriculum: Curriculum
    incumbent: Genome
    earlier: tuple[Genome, ...]
    settings: EvolutionSettings
    storage: str
    store: URL


@dataclass(frozen=True)
class Progress:
    """How far an evolution is, for people."""

    share: float
    text: str


def evolve(
    task: Task,
    minutes: float,
    cores: int,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Evolve for so long on so many cores, then judge the winner.

    KeyboardInterrupt passes through; every finished individual is in the study by then.
    """
    be_nice()
    with contextlib.closing(open_store(task.store)) as store:
        outcome = _evolve(task, _learner(task, store), 60.0 * minutes, cores, on_progress)
        told = ". ".join(outcome.summary())
        store.add_event(EventRecord(datetime.now(timezone.utc), "info", "evolution", told))
        return outcome


def _evolve(
    task: Task,
    learner: MetaLearner,
    seconds: float,
    cores: int,
    on_progress: Callable[[Progress], None],
) -> Outcome:
    began_s = time.monotonic()
    evolving_s = (1.0 - CONCLUDING_SHARE) * seconds
    runs: list[float] = []

    def tick(until_s: float, doing: str) -> None:
        passed_s = time.monotonic() - began_s
        runs.append(passed_s)
        on_progress(Progress(min(1.0, passed_s / seconds), f"{doing}: {_told(learner)}"))
        if passed_s >= until_s:
            raise TimeIsUpError

    learner.begin()
    learner.on_run = lambda: tick(evolving_s, "evolving")
    with _helpers(task, evolving_s, cores - 1), contextlib.suppress(TimeIsUpError):
        while True:
            learner.step()
    left_s = seconds - (time.monotonic() - began_s)
    # How many runs judge is fixed before the first of them. On a machine that gets busier they
    # may take longer, within a bound.
    learner.on_run = lambda: tick(MOST_OVERRUN * seconds, "judging")
    return learner.conclude(int(left_s * len(runs) / runs[-1]))


def be_nice() -> None:
    """Give way to everything else on the machine, and keep numerics to one thread."""
    os.nice(NICE)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Every agent compiles functions of its own, and TensorFlow warns of that each time.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _learner(task: Task, store: Store) -> MetaLearner:
    return MetaLearner(
        curriculum=task.curriculum,
        incumbent=task.incumbent,
        earlier=task.earlier,
        settings=task.settings,
        storage=task.storage,
        store=store,
    )


def _told(learner: MetaLearner) -> str:
    best, par = learner.best(), learner.par()
    text = f"{learner.individuals} genomes, generation {learner.generations}"
    if best is None or par is None:
        return text
    return f"{text}, best misses {best.regret:.0%} of the gain, the present one {par.regret:.0%}"


@contextlib.contextmanager
def _helpers(task: Task, seconds: float, count: int) -> Iterator[None]:
    """So many more processes on the same study; ended with the block."""
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=_help, args=(task, seconds, number + 1, os.getpid()), daemon=True)
        for number in range(count)
    ]
    for helper in helpers:
        helper.start()
    try:
        yield
    finally:
        _end(helpers)


def _end(helpers: list[SpawnProcess]) -> None:
    for helper in helpers:
        helper.terminate()
    for helper in helpers:
        helper.join(10.0)


def _help(task: Task, seconds: float, number: int, parent: int) -> None:
    """One more process, with draws of its own: evolve until the time is up or the parent gone."""
    be_nice()
    settings = replace(task.settings, seed=task.settings.seed + number)
    task = replace(task, settings=settings)
    began_s = time.monotonic()

    def on_run() -> None:
        if time.monotonic() - began_s >= seconds or os.getppid() != parent:
            raise TimeIsUpError

    with (
        contextlib.closing(open_store(task.store)) as store,
        contextlib.suppress(TimeIsUpError, KeyboardInterrupt),
    ):
        learner = _learner(task, store)
        learner.on_run = on_run
        while True:
            learner.step()
