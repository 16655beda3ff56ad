"""Level 2 with everything real: the knob agent learns, NSGA-II selects, the gate judges."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from backend.evolution.genome import Genome, bounds_of
from backend.evolution.learning_run import PROBE_WINDOWS, LearningRun, learn
from backend.evolution.outcome import EvolutionSettings
from backend.evolution.problems import ModelProblem, curriculum
from backend.meta_learner import MetaLearner
from backend.targets.simulated_model import DEFAULT_SPACE
from backend.telemetry import open_store

DEFAULT = Genome.of()
TIMID = {"optimism": 0.0, "trust_start": 0.15, "moved_knobs": 1.0, "updates_per_tell": 5.0}
"""Genes of a genome that hardly dares to move."""


def without_cost(run: LearningRun) -> LearningRun:
    return dataclasses.replace(run, cpu_s=0.0)


def test_a_run_is_the_same_for_the_same_seed_and_not_for_another() -> None:
    problem = ModelProblem(DEFAULT_SPACE, 3)
    one, two, other = (learn(problem, DEFAULT, seed, windows=30) for seed in (1, 1, 2))
    assert without_cost(one) == without_cost(two)
    assert without_cost(one) != without_cost(other)
    assert one.proposals <= 30 / PROBE_WINDOWS
    assert one.cpu_s > 0
    assert one.memory_bytes > 10_000


@pytest.mark.slow
def test_the_default_genome_learns_and_a_timid_one_learns_less() -> None:
    problems = [ModelProblem(DEFAULT_SPACE, seed) for seed in (3, 4)]
    timid = Genome({**DEFAULT.values, **TIMID})
    missing = {
        name: sum(learn(p, genome, 1).regret for p in problems) / len(problems)
        for name, genome in (("default", DEFAULT), ("timid", timid))
    }
    assert missing["default"] < 0.9
    assert missing["default"] < missing["timid"]


def make_learner(folder: Path) -> MetaLearner:
    timid = Genome({**DEFAULT.values, **TIMID})
    return MetaLearner(
        curriculum=curriculum(None),
        incumbent=timid,
        earlier=(DEFAULT,),
        settings=EvolutionSettings(
            population=4, mutation=0.1, crossover=0.7, bounds=bounds_of({}, timid)
        ),
        storage=f"sqlite:///{folder / 'study.db'}",
        store=open_store(URL.create("sqlite", database=str(folder / "telemetry.db"))),
    )


@pytest.mark.slow
def test_evolution_finds_what_misses_less_of_the_gain_than_a_timid_genome(tmp_path: Path) -> None:
    learner = make_learner(tmp_path)
    learner.begin()
    while learner.individuals < 6:
        learner.step()
    best, par = learner.best(), learner.par()
    assert best is not None
    assert par is not None
    assert best.regret < par.regret


CHILD = """
import sys
from pathlib import Path
from tests.learning.test_evolution import make_learner
learner = make_learner(Path(sys.argv[1]))
learner.begin()
while True:
    learner.step()
    print(learner.individuals, flush=True)
"""


@pytest.mark.slow
def test_a_killed_evolution_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    finished = int(child.stdout.readline())
    time.sleep(0.5)  # the next individual has begun: it is meant to be lost
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    learner = make_learner(tmp_path)
    learner.begin()
    assert learner.individuals >= finished >= 1
    assert len(learner.store.genomes()) == learner.individuals
    while learner.individuals < finished + 2:
        learner.step()
    assert learner.par() is not None
