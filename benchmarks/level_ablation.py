"""What does each level add? ``python -m benchmarks.level_ablation --out FOLDER``.

The whole demonstration (the tuner's own loop, the shift of workload, the growth of data, the
injected harmful change) on simulated servers whose best answer is known, in simulated time: with
Level 0 alone, with Level 1's learning, and with a genome of Level 2 on top. All arms meet the same
servers and the same luck. Finished runs lie in the folder: an interrupted benchmark goes on.
Definitions and figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scipy import stats

from backend.domain.policies import GenomeRecord
from benchmarks.filter_experiment.intervals import Estimate
from benchmarks.levels.evolution import chosen, evolved
from benchmarks.levels.processes import in_own_process
from benchmarks.levels.runs import ARMS, Cell, Kept, Result, run
from benchmarks.results_file import ResultsFile

ROWS: tuple[tuple[str, str, int, float], ...] = (
    ("final_share", "final true gain, % of the reachable", 1, 100.0),
    ("saved", "latency truly saved at the end, %", 1, 100.0),
    ("regret", "gain missing over time, %", 1, 100.0),
    ("trials_to_80", "trials to 80 % of the gain", 1, 1.0),
    ("reached_80", "runs that reached 80 %, %", 0, 100.0),
    ("trials_to_95", "trials to 95 % of the gain", 1, 1.0),
    ("reached_95", "runs that reached 95 %, %", 0, 100.0),
    ("trials", "trials", 1, 1.0),
    ("harmful", "truly harmful trials", 1, 1.0),
    ("promotions", "promotions", 1, 1.0),
    ("wrong", "promotions of what is truly no better", 1, 1.0),
    ("of_policies", "promotions that Level 1's policy proposed", 1, 1.0),
    ("policies", "policies deployed by Level 1", 1, 1.0),
    ("rollbacks", "rollbacks, the injected change's included", 1, 1.0),
    ("injected_s", "seconds that the injected change stood", 0, 1.0),
    ("cpu_s", "processor seconds", 0, 1.0),
)
"""Field of a result, what it is, digits, factor."""


def missing_cells(cells: Sequence[Cell], done: Mapping[str, Kept]) -> list[Cell]:
    """The runs that are still to be made."""
    return [cell for cell in cells if cell.key not in done]


def cells_of(seeds: Sequence[int], days: float, genome: str) -> list[Cell]:
    """Every arm on every seed; without a genome there is no arm with Level 2."""
    arms = ARMS if genome else ARMS[:2]
    return [
        Cell(arm, seed, days, genome if arm == ARMS[2] else "") for seed in seeds for arm in arms
    ]


def table(results: Mapping[str, Mapping[int, Result]], title: str) -> Table | None:
    """Means with their standard deviation, and what each level changes, paired by seed.

    Args:
        results: of each arm by seed; seeds that an arm lacks are left out of all.

    Returns:
        None where fewer than two seeds are whole.
    """
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in results.values())))
    if len(seeds) < 2:
        return None
    arms = list(results)
    shown = Table(title=f"{title}, {len(seeds)} seeds", title_justify="left")
    shown.add_column("mean ± standard deviation")
    for arm in arms:
        shown.add_column(arm, justify="right", no_wrap=True)
    for before, after in pairwise(arms):
        shown.add_column(f"{after} minus {before}", justify="right", no_wrap=True)
    for field, told, digits, factor in ROWS:
        values = {
            arm: [factor * float(getattr(results[arm][seed], field)) for seed in seeds]
            for arm in arms
        }
        cells = [f"{fmean(v):.{digits}f} ± {stdev(v):.{digits}f}" for v in values.values()]
        for before, after in pairwise(arms):
            pairs = zip(values[after], values[before], strict=True)
            cells.append(str(students([new - old for new, old in pairs])))
        shown.add_row(told, *cells)
    return shown


def students(differences: Sequence[float]) -> Estimate:
    """Their mean with Student's two-sided 95 % interval; a bootstrap of ten is too narrow."""
    mean, count = fmean(differences), len(differences)
    half = float(stats.t.ppf(0.975, count - 1)) * stdev(differences) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def run_missing(
    cells: Sequence[Cell],
    genome: GenomeRecord | None,
    results: ResultsFile[Kept],
    console: Console,
) -> None:
    """Make the runs that the file lacks."""
    todo = missing_cells(cells, results.read())
    bar = Progress(
        BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"),
        console=console,
    )  # fmt: skip
    with bar:
        shown = bar.add_task("", total=len(cells), completed=len(cells) - len(todo))
        for cell in todo:
            bar.update(shown, description=f"levels {cell.arm}, seed {cell.seed}")
            result = in_own_process(run, cell, genome if cell.genome else None)
            results.append(Kept(cell, result))
            bar.advance(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Evolve, run what is missing, print one table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.level_ablation", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--seeds", type=int, default=10, help="simulated servers (10)")
    add("--first-seed", type=int, default=1, help="of them (1); the evolution's begin at 1001")
    add("--days", type=float, default=14.0, help="simulated days of a run (14)")
    add("--genome", type=Path, help="a store with a genome of Level 2; none: evolve one")
    add("--evolve-minutes", type=float, default=20.0, help="of that evolution (20)")
    add("--out", type=Path, required=True, help="folder; what it holds is not made again")
    given = parser.parse_args(arguments)
    console = Console(width=170)
    folder = given.out.resolve()
    store = given.genome or evolved(folder, given.evolve_minutes, console)
    genome, told = chosen(store)
    console.print(f"Genome of Level 2: {told}", highlight=False)
    name = "" if genome is None else genome.at.isoformat()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    cells = cells_of(seeds, given.days, name)
    results = ResultsFile(folder / "level_ablation.jsonl", Kept.of_line)
    run_missing(cells, genome, results, console)
    done = results.read()
    by_arm: dict[str, dict[int, Result]] = {}
    for cell in cells:
        by_arm.setdefault(cell.arm, {})[cell.seed] = done[cell.key].result
    shown = table(by_arm, f"{given.days:g} simulated days")
    console.print(shown or "Two seeds at least are needed to compare.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
