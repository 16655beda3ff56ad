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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess

from sqlalchemy.engine import URL

from backend.evolution.course import Course, Rest
from backend.evolution.genome import Genome
from backend.evolution.outcome import EvolutionSettings, Outcome
from backend.evolution.problems import Curriculum
from backend.meta_learner import JUDGING_RUNS, MetaLearner
from backend.protocols import Store
from backend.telemetry import open_store

CONCLUDING_SHARE, MOST_CONCLUDING_SHARE = 0.2, 0.5
"""Share of the time that is kept for judging the winner; more where a comparison takes more."""
MOST_OVERRUN = 1.5
"""Judging is given up, and nothing deployed, after so many times the evolution's time."""
NICE = 19
TOO_BUSY = "Not deployed: the machine is too busy to judge the winner in time"


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


def evolve(task: Task, course: Course, store: Store, cores: int = 1) -> Outcome | None:
    """Evolve on so many cores until the course's time is up, then judge the winner.

    Args:
        task: what to evolve.
        course: its time; told what came of it.
        store: for records; the course's.
        cores: processes.

    Returns:
        None where the machine was too busy to judge the winner: then nothing was deployed.

    Raises:
        StoppedError: the course was stopped; as with KeyboardInterrupt every finished individual is
            in the study by then.
    """
    learner = _learner(task, store)
    learner.on_trial = course.attend
    learner.on_outcome = lambda outcome: course.end(
        ". ".join(outcome.summary()), deployed=outcome.deployed
    )
    try:
        return _evolve(task, learner, course, cores)
    except TimeIsUpError:
        course.end(TOO_BUSY)
        return None


def _evolve(task: Task, learner: MetaLearner, course: Course, cores: int) -> Outcome:
    seconds, runs, used_before_s = course.seconds, 0, course.used_s

    def run_s() -> float:
        """Seconds of a learning run, as far as is known."""
        return (course.used_s - used_before_s) / max(runs, 1)

    def evolve_on() -> None:
        nonlocal runs
        runs += 1
        course.tell(f"evolving: {_told(learner)}")
        least, most = CONCLUDING_SHARE * seconds, MOST_CONCLUDING_SHARE * seconds
        if course.left_s <= min(max(least, JUDGING_RUNS * run_s()), most):
            raise TimeIsUpError

    def judge_on() -> None:
        course.tell(f"judging: {_told(learner)}")
        if course.left_s <= (1.0 - MOST_OVERRUN) * seconds:
            raise TimeIsUpError

    learner.begin()
    learner.on_run = evolve_on
    with _helpers(task, course.left_s, cores - 1), contextlib.suppress(TimeIsUpError):
        while True:
            learner.step()
    # How many runs judge is fixed before the first of them. On a machine that gets busier they
    # may take longer, within a bound.
    learner.on_run = judge_on
    return learner.conclude(int(course.left_s / run_s()))


def be_nice() -> None:
    """Give way to everything else on the machine, and keep numerics to one thread."""
    os.nice(NICE)
    if hasattr(os, "SCHED_IDLE"):  # on Linux: only what nobody else wants
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
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
        learner.on_run, learner.on_trial = on_run, Rest(store).attend
        while True:
            learner.step()
