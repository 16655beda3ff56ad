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

from backend.evolution.archive import standing_genome
from backend.evolution.genome import Genome, bounds_of
from backend.evolution.learning_run import PROBE_WINDOWS, LearningRun, learn
from backend.evolution.outcome import EvolutionSettings, Outcome
from backend.evolution.problems import Curriculum, ModelProblem, curriculum
from backend.meta_learner import LEAST_PAIRS, RUNS_A_PAIR, MetaLearner
from backend.targets.simulated_model import DEFAULT_SPACE
from backend.telemetry import open_store

DEFAULT = Genome.of()
TIMID = Genome(
    {
        **DEFAULT.values,
        "optimism": 0.0,
        "trust_start": 0.15,
        "moved_knobs": 1.0,
        "updates_per_tell": 5.0,
    }
)
"""It hardly dares to move."""


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
    missing = {
        name: sum(learn(p, genome, 1).regret for p in problems) / len(problems)
        for name, genome in (("default", DEFAULT), ("timid", TIMID))
    }
    assert missing["default"] < 0.9
    assert missing["default"] < missing["timid"]


def make_learner(
    folder: Path,
    incumbent: Genome = TIMID,
    other: Genome = DEFAULT,
    problems: Curriculum | None = None,
) -> MetaLearner:
    return MetaLearner(
        curriculum=problems or curriculum(None),
        incumbent=incumbent,
        earlier=(other,),
        settings=EvolutionSettings(
            population=4, mutation=0.1, crossover=0.7, bounds=bounds_of({}, incumbent)
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


SMALL = Genome(
    {
        **DEFAULT.values,
        "hidden_width": 16.0,
        "hidden_depth": 1.0,
        "ensemble_size": 3.0,
        "candidates": 200.0,
        "updates_per_tell": 10.0,
        "learning_rate": 3e-4,
        "critic_learning_rate": 3e-3,
        "optimism": 1.5,
        "trust_start": 0.4,
        "moved_knobs": 4.0,
        "far_knobs": 0.0,
    }
)
"""It learns steadily, with small networks: a learning run takes a second."""
DULL = Genome(
    {
        **SMALL.values,
        # Hardly anything is learnt from what is measured, ...
        "learning_rate": 3e-5,
        "critic_learning_rate": 3e-4,
        # ... so its proposals jump about, ...
        "optimism": 3.0,
        "trust_start": 1.0,
        "moved_knobs": 2.0,
        # ... and what is found must be large, and is proven slowly.
        "alpha": 0.001,
        "futility_alpha": 0.02,
        "min_improvement": 0.05,
        "min_blocks": 6.0,
        "max_blocks": 12.0,
    }
)
FEW_KNOBS = DEFAULT_SPACE.subset(DEFAULT_SPACE.names[:6])
SMALL_CASE = Curriculum(
    training=(ModelProblem(FEW_KNOBS, 8),),
    held_out=(ModelProblem(FEW_KNOBS, 4), ModelProblem(FEW_KNOBS, 5)),
    profile={},
    digest="a small case",
)


def compared(folder: Path, incumbent: Genome, other: Genome) -> tuple[MetaLearner, Outcome]:
    """Measure both, then hold the other one against the incumbent: ten pairs of real runs."""
    learner = make_learner(folder, incumbent, other, SMALL_CASE)
    learner.begin()
    for _ in range(2):
        learner.step()
    return learner, learner.conclude(runs=RUNS_A_PAIR * LEAST_PAIRS)


@pytest.mark.slow
def test_a_genome_that_learns_takes_the_place_of_one_that_does_not(tmp_path: Path) -> None:
    learner, outcome = compared(tmp_path, DULL, SMALL)
    assert outcome.deployed, outcome.reason
    assert outcome.winner == SMALL
    assert outcome.comparison is not None
    assert outcome.comparison.pairs == LEAST_PAIRS
    assert outcome.comparison.trials.high < 0
    assert standing_genome(learner.store, {}, DULL) == SMALL


@pytest.mark.slow
def test_a_genome_that_does_not_learn_takes_nobodys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The choice of a challenger would not let it come to a comparison; the gate must not either.
    monkeypatch.setattr(MetaLearner, "_finalists", lambda learner: [DULL])
    learner, outcome = compared(tmp_path, SMALL, DULL)
    assert not outcome.deployed
    assert outcome.comparison is not None
    assert outcome.comparison.objections
    assert standing_genome(learner.store, {}, SMALL) == SMALL


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
