"""An evolution's process as the supervisor starts it, for tests that kill it.

``python -m tests.faults.killed_evolution FOLDER SECONDS [quickly]``: evolves once, for so many
seconds at work. Quickly: a formula, in which less optimism is better, stands for a learning run, so
that an evolution of seconds comes to a verdict.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sqlalchemy import event
from sqlalchemy.engine import Engine

from backend.config import PathSettings, Settings, load_settings
from backend.evolution import fitness
from backend.evolution.genome import Genome
from backend.evolution.learning_run import LearningRun
from backend.evolution.problems import Problem
from backend.processes.evolution import evolution
from backend.run_options import RunOptions
from backend.supervisor import stop_event_for_child
from backend.telemetry import open_store

QUICKLY = "quickly"
BEST_OPTIMISM = 0.5
"""Of the formula; the default is 1.5."""


def settings_in(folder: Path, seconds: float) -> Settings:
    """Those of the process."""
    level2 = {"evaluation_minutes": seconds / 60.0, "population_size": 4}
    return load_settings(
        overrides={"paths": PathSettings.under(folder), "level2": level2}, environ={}
    )


def _by_formula(
    problem: Problem, genome: Genome, seed: int, windows: int, on_trial: Callable[[], None]
) -> LearningRun:
    on_trial()
    luck = 0.02 * float(np.random.default_rng(seed).standard_normal())
    regret = 0.2 + 0.3 * abs(genome.values["optimism"] - BEST_OPTIMISM) + luck
    return LearningRun(problem.name, seed, 40 * regret, regret, regret, 0.2, 15, True, 1.0, 1.0)


def _hurry(connection: sqlite3.Connection, _: object) -> None:
    """Do not wait for the disk: what a killed process has written is there without that."""
    connection.execute("PRAGMA synchronous = OFF")


def main(folder: Path, seconds: float, *, quickly: bool) -> int:
    """Evolve once."""
    if quickly:
        fitness.learn = _by_formula
        event.listen(Engine, "connect", _hurry)
    settings = settings_in(folder, seconds)
    stop = stop_event_for_child(int(sys.argv[-1]))
    return evolution(settings, RunOptions(), open_store(settings.store_url), stop)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), float(sys.argv[2]), quickly=QUICKLY in sys.argv))
