"""Explorations of recorded matrices: one cell a run, kept as a line of JSON, never run twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.results_file import JsonLine, ResultsFile
from benchmarks.steering.matrix import LatencyMatrix
from benchmarks.steering.peers import make_explorer

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Cell:
    """One run: what makes it up, and nothing that does not change its outcome.

    Args:
        matrix, digest: the matrix's name and digest.
        method: a name of ``benchmarks.steering.peers.EXPLORERS``.
        seed: of the explorer, and of the part of the matrix.
        budgets_s: seconds of exploration for the whole matrix, ascending; a part of it gets its
            share of the default total.
        queries, hint_sets: share of the matrix that is played on.
    """

    matrix: str
    digest: str
    method: str
    seed: int
    budgets_s: tuple[float, ...]
    queries: float = 1.0
    hint_sets: float = 1.0

    @property
    def key(self) -> str:
        """The same for the same run."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Spent:
    """Where a run stood when a budget was spent.

    Args:
        total_s: of the workload under the served hint sets.
        probes, timed_out: runs made within the budget, and how many of them were stopped.
        thinking_s: CPU seconds of making the explorer and of all its asks and tells.
    """

    total_s: float
    probes: int
    timed_out: int
    thinking_s: float


@dataclass(frozen=True)
class Run(JsonLine):
    """A finished cell: one entry of ``spent`` for each budget."""

    cell: Cell
    default_s: float
    oracle_s: float
    spent: Sequence[Spent]

    def reached(self, budget: int) -> float:
        """Share of the reachable saving, in [0, 1]."""
        reachable_s = self.default_s - self.oracle_s
        return (self.default_s - self.spent[budget].total_s) / reachable_s if reachable_s else 1.0

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Run:
        """The run behind what JSON made of it."""
        cell = Cell(**{**fields["cell"], "budgets_s": tuple(fields["cell"]["budgets_s"])})
        spent = [Spent(**entry) for entry in fields["spent"]]
        return cls(**{**fields, "cell": cell, "spent": spent})


class Results(ResultsFile[Run]):
    """The finished runs of this benchmark."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Run.of_line)


def run_cell(cell: Cell, matrix: LatencyMatrix) -> Run:
    """Explore until the last budget is spent, or nothing is worth its cost any more.

    A probe costs min(latency, time-out). It counts where it ends within the budget; the explorer
    sees what it has paid for and no other cell.
    """
    played = matrix
    if cell.queries < 1.0 or cell.hint_sets < 1.0:
        played = matrix.part(cell.queries, cell.hint_sets, cell.seed)
    scale = played.default_total_s / matrix.default_total_s
    latency_s = played.latency_s
    default_s = latency_s[:, 0].copy()
    served_s = default_s.copy()
    started = time.process_time()
    explorer = make_explorer(cell.method, default_s, latency_s.shape[1], cell.seed)
    thinking_s = time.process_time() - started
    spent_s, probes, timed_out = 0.0, 0, 0
    marks: list[Spent] = []
    while len(marks) < len(cell.budgets_s):
        started = time.process_time()
        probe = explorer.ask()
        thinking_s += time.process_time() - started
        whole_s = float(latency_s[probe.query, probe.hint_set]) if probe else float("inf")
        cost_s = min(whole_s, probe.timeout_s) if probe else float("inf")
        for budget_s in cell.budgets_s[len(marks) :]:
            if spent_s + cost_s <= budget_s * scale:
                break
            marks.append(Spent(float(served_s.sum()), probes, timed_out, round(thinking_s, 3)))
        if probe is None or len(marks) == len(cell.budgets_s):
            break
        stopped = whole_s > probe.timeout_s
        spent_s, probes, timed_out = spent_s + cost_s, probes + 1, timed_out + stopped
        started = time.process_time()
        explorer.tell(probe, latency_s=cost_s, timed_out=stopped)
        thinking_s += time.process_time() - started
        served_s[probe.query] = latency_s[probe.query, explorer.serve(probe.query)]
    return Run(cell, played.default_total_s, played.oracle_total_s, marks)


def run_all(
    cells: Sequence[tuple[Cell, LatencyMatrix]], results: Results, *, jobs: int = 1
) -> Iterator[Run]:
    """Run the cells in processes of one thread each; every run is kept before it is yielded."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # inherited by the processes
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(run_cell, cell, matrix) for cell, matrix in cells]
        try:
            for future in as_completed(futures):
                run = future.result()
                results.append(run)
                yield run
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
