"""Runs of tuners on surrogates: one cell a run, kept in a file of JSON lines, never run twice."""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backend.protocols import AskTellAgent
from backend.rl_agent import KnobAgent, KnobAgentSettings
from benchmarks.results_file import JsonLine, ResultsFile
from benchmarks.surrogates.forest import TREES, Surrogate, fit_surrogate
from benchmarks.surrogates.problem import Goal, Problem, Score
from benchmarks.surrogates.recording import Recording, read_recording
from benchmarks.tuners import make_tuner

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
CELLS_A_PROCESS = 12
"""Processes are replaced now and then: TensorFlow keeps every graph it has compiled."""


@dataclass(frozen=True)
class Cell:
    """One run: what makes it up, and nothing that does not change its outcome.

    Args:
        data, digest: the recording's name and the digest of its file.
        goal: ``min`` or ``max``.
        method: a name of ``benchmarks.tuners.TUNERS``, or an ablation's label.
        seed: of the tuner, and of the mask.
        evaluations: tells.
        mask: whether names are hidden and columns shuffled.
        fix: values held, by knob.
        settings: changes to our agent's settings, by name.
        trees: of the surrogate.
        noise: of what the tuner is told: the standard deviation of the logarithm of the factor by
            which each value is off, the first one's aside; 0 for exact values.
    """

    data: str
    digest: str
    goal: Goal
    method: str
    seed: int
    evaluations: int
    mask: bool = False
    fix: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    trees: int = TREES
    noise: float = 0.0

    @property
    def key(self) -> str:
        """The same for the same run."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Run(JsonLine):
    """A finished cell: exact objectives in order (lower is better) and CPU seconds of ask + tell.

    The first evaluation was told and not asked: ``ask_tell_cpu_s`` is one shorter. ``measured`` is
    what the tuner was told, where that was noisy; empty where it was told the exact objectives.
    """

    cell: Cell
    default: float
    best: float
    objectives: Sequence[float]
    ask_tell_cpu_s: Sequence[float]
    measured: Sequence[float] = field(default_factory=list)

    @property
    def score(self) -> Score:
        """What it is worth."""
        objectives, measured = np.array(self.objectives), np.array(self.measured)
        chosen_by = measured if len(measured) else objectives
        return Score(objectives, self.default, self.best, chosen_by)

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Run:
        """The run behind what JSON made of it."""
        return cls(**{**fields, "cell": Cell(**fields["cell"])})


class Results(ResultsFile[Run]):
    """The finished runs of this benchmark."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Run.of_line)


@functools.lru_cache(maxsize=8)
def load(path: Path, cache: Path | None, trees: int, jobs: int = 1) -> tuple[Recording, Surrogate]:
    """A recording and its surrogate, once for each process."""
    recording = read_recording(path)
    return recording, fit_surrogate(recording, cache, trees=trees, jobs=jobs)


def make_problem(cell: Cell, path: Path, cache: Path | None) -> Problem:
    """What the cell's tuner plays against."""
    recording, surrogate = load(path, cache, cell.trees)
    mask_seed = cell.seed if cell.mask else None
    return Problem(recording, surrogate, cell.goal, fix=cell.fix, mask_seed=mask_seed)


def run_cell(
    cell: Cell, path: Path, cache: Path | None = None, checkpoint: Path | None = None
) -> Run:
    """Tell the default configuration's value, then ask, evaluate and tell.

    The default counts as the first evaluation, alike for all.
    """
    problem = make_problem(cell, path, cache)
    tuner = _tuner(cell, problem, checkpoint)
    tuner.tell(problem.space.default_config(), problem.default_objective)
    objectives: list[float] = [problem.default_objective]
    measured: list[float] = [problem.default_objective]
    # One draw an evaluation, whatever is tried: all methods meet the same luck.
    luck = np.random.default_rng([cell.seed, zlib.crc32(cell.digest.encode())])
    spent_s: list[float] = []
    for _ in range(cell.evaluations - 1):
        start = time.process_time()
        config = tuner.ask()
        asked = time.process_time()
        objectives.append(problem(config))
        measured.append(objectives[-1] * math.exp(cell.noise * luck.standard_normal()))
        evaluated = time.process_time()
        tuner.tell(config, measured[-1])
        told = time.process_time()
        spent_s.append(round(told - evaluated + asked - start, 5))
    return Run(
        cell, problem.default_objective, problem.best_objective, objectives, spent_s,
        measured if cell.noise > 0.0 else [],
    )  # fmt: skip


def _tuner(cell: Cell, problem: Problem, checkpoint: Path | None) -> AskTellAgent:
    if cell.settings:
        changed = KnobAgentSettings(**cell.settings)
        return KnobAgent(problem.space, seed=cell.seed, settings=changed)
    return make_tuner(
        cell.method, problem.space, cell.seed, budget=cell.evaluations, checkpoint=checkpoint
    )


def run_all(
    cells: Sequence[tuple[Cell, Path]],
    results: Results,
    *,
    cache: Path,
    checkpoint: Path | None = None,
    jobs: int = 1,
) -> Iterator[Run]:
    """Run the cells in processes of one thread each; every run is kept before it is yielded."""
    # Inherited by the processes; this one has long been started. SMAC3 iterates over sets, so
    # that without a fixed hash the same seed gives another course in every process.
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"), PYTHONHASHSEED="0")
    context = multiprocessing.get_context("spawn")
    batch = jobs * CELLS_A_PROCESS
    for at in range(0, len(cells), batch):
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            futures = [
                pool.submit(run_cell, cell, path, cache, checkpoint)
                for cell, path in cells[at : at + batch]
            ]
            try:
                for future in as_completed(futures):
                    run = future.result()
                    results.append(run)
                    yield run
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
