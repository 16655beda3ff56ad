"""The benchmark of Level 2: what evolution may not see, what is kept, what is printed."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean

import numpy as np
import pytest
from rich.console import Console

from backend.domain.knobs import Knob, KnobSpace
from backend.domain.transition import Transition
from backend.evolution.learning_run import LearningRun
from backend.state_features import STATE_WIDTH
from backend.training_data import TrainingData
from benchmarks.meta_learning import DEFAULT, EVOLVED, Cell, Kept, interval, print_comparison, split

SPACE = KnobSpace([Knob("work_mem", "integer", 64, 1048576, "log", "kB", 4096)])


def data() -> TrainingData:
    state = np.zeros(STATE_WIDTH)
    episode = tuple(Transition(state, np.zeros(1), -1.0, state, 1.0) for _ in range(10))
    return TrainingData(SPACE, (episode,) * 11, tuple(f"w{n}" for n in range(11)), {})


def kept(genome: str, problem: str, seed: int, trials: float) -> Kept:
    run = LearningRun(problem, seed, trials, 0.3, 0.1, 0.2, 20, True, 1.0, 1000.0)
    return Kept(Cell(genome, problem, seed), asdict(run))


def test_the_evolution_does_not_see_what_it_is_tested_on() -> None:
    seen, hidden = split(data(), seed=0)
    assert len(hidden) == 4
    assert set(seen.workloads) | set(hidden) == set(data().workloads)
    assert not set(seen.workloads) & set(hidden)
    assert len(seen.episodes) == len(seen.workloads)
    assert split(data(), seed=1)[1] != hidden


def test_a_finished_run_comes_back_from_its_line() -> None:
    one = kept(DEFAULT, "p", 1, 12.0)
    again = Kept.of_line(one.line())
    assert again.cell.key == one.cell.key
    assert again.run.trials_to_95 == 12.0


def test_the_interval_is_wider_where_problems_differ() -> None:
    alike = interval({"a": [-2.0, -1.0, -3.0], "b": [-2.0, -1.0, -3.0]}, fmean)
    differ = interval({"a": [-6.0, -5.0, -7.0], "b": [2.0, 1.0, 3.0]}, fmean)
    assert alike[0] < -2.0 < alike[1] < 0
    assert differ[1] - differ[0] > 2 * (alike[1] - alike[0])


@pytest.mark.parametrize(("pairs", "told"), [(1, "Too few"), (3, "-10.0")])
def test_the_table_shows_the_paired_change(pairs: int, told: str) -> None:
    runs = [
        kept(genome, "p", seed, 30.0 if genome == DEFAULT else 20.0)
        for seed in range(pairs)
        for genome in (DEFAULT, EVOLVED)
    ]
    console = Console(width=130, record=True, quiet=True)
    with console.capture() as told_text:
        console.quiet = False
        print_comparison([*runs, Kept(Cell(EVOLVED), {"genes": {}})], console)
    assert told in told_text.get()
