"""Offline exploration of recorded matrices: ``python -m benchmarks.steering_matrix``.

Explorers choose (query, hint set) and a time-out, pay min(latency, time-out) out of the budget and
learn the latency, or that the time-out was passed. The score is the workload's total under the
fastest hint sets *measured* when the budget is spent. Definitions: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from backend.errors import ConfigError
from benchmarks.steering.matrix import LatencyMatrix, read_matrix, synthetic_matrix
from benchmarks.steering.peers import EXPLORERS
from benchmarks.steering.runs import Cell, Results, run_all
from benchmarks.steering.tables import print_tables
from benchmarks.surrogates.command import guarded

WHERE = (
    "The files: the project zixy17/LimeQO on GitHub offers latencies of PostgreSQL under 49 hint "
    "sets (dataset/ceb-matrix.csv, dataset/job-matrix.csv) under its own licence. Any CSV file "
    "will do: a header, then a query's name and its seconds under each hint set, the default first."
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.steering_matrix",
        description=(__doc__ or "").partition("\n")[0],
        epilog=WHERE,
    )
    add = made.add_argument
    add("--matrix", action="append", type=Path, default=[], metavar="FILE", help="repeat")
    add(
        "--synthetic", action="append", type=_shape, default=[], metavar="QUERIESxHINTSETS",
        help="a made-up matrix; repeat",
    )  # fmt: skip
    add(
        "--budgets", action="append", type=_budgets, required=True, metavar="S,S,...",
        help="seconds; once for all matrices, or once for each in order",
    )  # fmt: skip
    add("--methods", type=_methods, default=tuple(EXPLORERS), help=f"of {', '.join(EXPLORERS)}")
    add("--seeds", type=int, default=5, help="runs of each method (5)")
    add(
        "--queries", type=_share, default=1.0, metavar="SHARE",
        help="play on a random share of the queries, another for each seed; budgets shrink with "
        "the default total",
    )  # fmt: skip
    add("--hint-sets", type=_share, default=1.0, metavar="SHARE", help="and of the hint sets")
    add("--jobs", type=int, default=1, help="processes, of one thread each (1)")
    add("--out", type=Path, required=True, help="finished runs as JSON lines; none is run again")
    add("--redo", type=_methods, default=(), metavar="METHODS", help="run these again")
    return made


def plan(arguments: argparse.Namespace) -> list[tuple[Cell, LatencyMatrix]]:
    """All cells, seed by seed, so that an unfinished benchmark can be read.

    Raises:
        ConfigError: an option contradicts another, or a file holds no matrix.
    """
    matrices = [read_matrix(path) for path in arguments.matrix]
    matrices += [synthetic_matrix(*shape) for shape in arguments.synthetic]
    if not matrices or arguments.seeds < 1:
        raise ConfigError("at least one --matrix or --synthetic, and --seeds of 1 or more")
    budgets = arguments.budgets
    if len(budgets) not in (1, len(matrices)):
        raise ConfigError(f"{len(matrices)} matrices, but {len(budgets)} times --budgets")
    budgets = budgets * len(matrices) if len(budgets) == 1 else budgets
    return [
        (
            Cell(
                matrix.name, matrix.digest, method, seed, budgets_s,
                arguments.queries, arguments.hint_sets,
            ),
            matrix,
        )
        for seed in range(arguments.seeds)
        for matrix, budgets_s in zip(matrices, budgets, strict=True)
        for method in arguments.methods
    ]  # fmt: skip


def run_benchmark(arguments: argparse.Namespace, console: Console) -> None:
    """Run what is not finished yet and print the tables."""
    results = Results(arguments.out)
    cells = plan(arguments)
    done = results.read()
    pending = [
        (cell, matrix)
        for cell, matrix in cells
        if cell.key not in done or cell.method in arguments.redo
    ]
    console.print(f"{len(cells)} runs, {len(cells) - len(pending)} of them finished before")
    runs = run_all(pending, results, jobs=max(1, arguments.jobs))
    for count, run in enumerate(runs, start=1):
        totals = " / ".join(f"{mark.total_s:.1f}" for mark in run.spent)
        console.print(
            f"{count}/{len(pending)} {run.cell.matrix} {run.cell.method} seed {run.cell.seed}: "
            f"{totals} s, thinking {run.spent[-1].thinking_s:.1f} s"
        )
    wanted = {cell.key for cell, _ in cells}
    finished = [run for key, run in results.read().items() if key in wanted]
    print_tables(finished, arguments.methods, console)


def _budgets(text: str) -> tuple[float, ...]:
    budgets = tuple(sorted(float(part) for part in text.split(",")))
    if not budgets[0] > 0.0:
        raise argparse.ArgumentTypeError("budgets must be above 0 seconds")
    return budgets


def _methods(text: str) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := [method for method in methods if method not in EXPLORERS]:
        raise argparse.ArgumentTypeError(f"unknown: {unknown}; choose from {', '.join(EXPLORERS)}")
    return methods


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 < share <= 1.0:
        raise argparse.ArgumentTypeError("a share lies in (0, 1]")
    return share


def _shape(text: str) -> tuple[int, int]:
    queries, _, hint_sets = text.partition("x")
    shape = int(queries), int(hint_sets)
    if min(shape) < 2:
        raise argparse.ArgumentTypeError("two queries and two hint sets at least")
    return shape


def main() -> None:
    """Run what is missing and print."""
    run_benchmark(parser().parse_args(), Console(width=150))


if __name__ == "__main__":
    guarded(main)
