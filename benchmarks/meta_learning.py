"""Does Level 2 help? ``python -m benchmarks.meta_learning --store FILE --minutes M --out FILE``.

A genome is evolved on some of the recorded workloads and compared with the default one on the
others, which no part of the evolution saw, nor the fit of its problems, with seeds of their own.
Finished runs lie in the file of ``--out``: an interrupted benchmark goes on. Definitions:
docs/meta-learning.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import URL

from backend.evolution.genome import Genome, bounds_of
from backend.evolution.learning_run import LearningRun, learn
from backend.evolution.problems import ModelProblem, Problem, by_workload, curriculum, fit
from backend.telemetry import open_store
from backend.training_data import Recorded, TrainingData, training_data
from benchmarks.results_file import JsonLine, ResultsFile

WINDOWS = 300
TEST_SHARE = 0.37
"""Of the workloads: 4 of 11."""
TEST_MODELS = 2
FIRST_SEED = 5001
"""Evolution uses none above 1000."""
RESAMPLES = 10_000
DEFAULT, EVOLVED = "default", "evolved"


@dataclass(frozen=True)
class Cell:
    """A learning run of the comparison, or the evolution itself (``problem`` is empty)."""

    genome: str
    problem: str = ""
    seed: int = 0

    @property
    def key(self) -> str:
        """The same for the same run."""
        return f"{self.genome}|{self.problem}|{self.seed}"


@dataclass(frozen=True)
class Kept(JsonLine):
    """A finished cell with its numbers."""

    cell: Cell
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Kept:
        """The run behind what JSON made of it."""
        return cls(Cell(**fields["cell"]), fields["numbers"])

    @property
    def run(self) -> LearningRun:
        """As the learning run that it was."""
        return LearningRun(**self.numbers)


def split(data: TrainingData, seed: int) -> tuple[TrainingData, list[str]]:
    """The transitions that evolution may see, and the names of the workloads that it may not."""
    names = sorted(by_workload(data))
    np.random.default_rng([seed, 77]).shuffle(names)
    hidden = set(names[: round(TEST_SHARE * len(names))])
    seen = [number for number, name in enumerate(data.workloads) if name not in hidden]
    return (
        replace(
            data,
            episodes=tuple(data.episodes[number] for number in seen),
            workloads=tuple(data.workloads[number] for number in seen),
        ),
        sorted(hidden),
    )


def evolved(
    data: TrainingData, results: ResultsFile[Kept], minutes: float, cores: int, console: Console
) -> Mapping[str, Any]:
    """The best genome that an evolution finds, with what it cost; taken from the file if there."""
    cell = Cell(EVOLVED)
    if cell.key in (done := results.read()):
        return done[cell.key].numbers
    from backend.evolution.course import Course, Progress
    from backend.evolution.outcome import EvolutionSettings
    from backend.evolution.process import Task, be_nice, evolve

    incumbent = Genome.of()
    folder = results.path.parent
    store = URL.create("sqlite", database=str(folder / "meta_learning_store.db"))
    open_store(store).close()
    task = Task(
        curriculum=curriculum(data),
        incumbent=incumbent,
        earlier=(),
        settings=EvolutionSettings(
            population=8, mutation=0.1, crossover=0.7, bounds=bounds_of({}, incumbent)
        ),
        storage=f"sqlite:///{folder / 'meta_learning_study.db'}",
        store=store,
    )
    told: list[str] = []

    def on_progress(progress: Progress) -> None:
        if progress.text not in told:
            told.append(progress.text)
            console.print(f"{progress.share:4.0%} {progress.text}", highlight=False)

    be_nice()
    with closing(open_store(store)) as opened:
        course = Course(opened, 60.0 * minutes, on_progress=on_progress)
        outcome = evolve(task, course, opened, cores)
    if outcome is None:
        raise SystemExit(course.record.reason)
    for line in outcome.summary():
        console.print(line, highlight=False)
    numbers = {
        "genes": dict((outcome.challenger or incumbent).values),
        "found": outcome.challenger is not None,
        "deployed": outcome.deployed,
        "reason": outcome.reason,
        "individuals": outcome.individuals,
        "generations": outcome.generations,
        "cpu_s": outcome.cpu_s,
        "comparison": {} if outcome.comparison is None else outcome.comparison.as_numbers(),
    }
    results.append(Kept(cell, numbers))
    return numbers


def interval(
    differences: Mapping[str, Sequence[float]], of: Callable[[Sequence[float]], float]
) -> tuple[float, float]:
    """95 % by the bootstrap: problems are drawn with replacement, and seeds within them."""
    rng = np.random.default_rng(0)
    groups = [np.array(values) for values in differences.values()]
    drawn = []
    for _ in range(RESAMPLES):
        chosen = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        drawn.append(of([v for g in chosen for v in g[rng.integers(len(g), size=len(g))]]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def print_comparison(runs: Sequence[Kept], console: Console) -> None:
    """One table: means of both genomes, and the paired change with its interval."""
    by_genome = {
        name: {
            (kept.cell.problem, kept.cell.seed): kept.run
            for kept in runs
            if kept.cell.genome == name and kept.cell.problem
        }
        for name in (DEFAULT, EVOLVED)
    }
    keys = sorted(by_genome[DEFAULT].keys() & by_genome[EVOLVED].keys())
    if len(keys) < 2:
        console.print("Too few pairs of runs are finished to compare.")
        return
    problems = len({problem for problem, _ in keys})
    table = Table(title=f"{len(keys)} pairs of runs on {problems} problems, {WINDOWS} windows each")
    for column in ("", DEFAULT, EVOLVED, "change", "95 % interval"):
        table.add_column(column, justify="right")
    for name, label, shown in (
        ("trials_to_95", "trials to 95 % of the gain", "{:.1f}"),
        ("reached", "runs that reached 95 %", "{:.2f}"),
        ("regret", "missing share of the gain, over time", "{:.3f}"),
        ("final_regret", "missing share of the gain, at the end", "{:.3f}"),
        ("harmful", "share of harmful proposals", "{:.3f}"),
        ("cpu_s", "processor seconds a run", "{:.2f}"),
    ):
        pairs: dict[str, list[float]] = {}
        for key in keys:
            old, new = (float(getattr(by_genome[n][key], name)) for n in (DEFAULT, EVOLVED))
            pairs.setdefault(key[0], []).append(new - old)
        means = [fmean(float(getattr(by_genome[n][k], name)) for k in keys)
                 for n in (DEFAULT, EVOLVED)]  # fmt: skip
        low, high = interval(pairs, fmean)
        table.add_row(
            label,
            *(shown.format(mean) for mean in means),
            shown.format(means[1] - means[0]),
            f"{shown.format(low)} to {shown.format(high)}",
        )
    console.print(table)


def main() -> None:
    """Evolve, run what is missing, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.meta_learning", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--store", action="append", required=True, help="a SQLite file with transitions; repeat")
    add("--minutes", type=float, default=30.0, help="of the evolution, judging included (30)")
    add("--cores", type=int, default=1, help="processes of the evolution (1)")
    add("--seeds", type=int, default=6, help="runs of each genome on each problem (6)")
    add("--split", type=int, default=0, help="which workloads the evolution does not see (0)")
    add("--out", type=Path, required=True, help="finished runs as JSON lines; none is run again")
    arguments = parser.parse_args()
    console = Console(width=130)
    found = []
    for path in arguments.store:
        store = open_store(URL.create("sqlite", database=path))
        found.append(Recorded.read(store, store.address))
        store.close()
    data = training_data(found, quality_floor=0.0)
    seen, hidden = split(data, arguments.split)
    console.print(f"The evolution does not see: {', '.join(hidden)}", highlight=False)
    results = ResultsFile(arguments.out, Kept.of_line)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    winner = evolved(seen, results, arguments.minutes, arguments.cores, console)
    console.print(f"Evolution: {json.dumps(dict(winner), indent=1)}", highlight=False)
    genomes = {DEFAULT: Genome.of(), EVOLVED: Genome(winner["genes"])}
    known = by_workload(data)
    problems: list[Problem] = [
        *fit(data.space, {name: known[name] for name in hidden}),
        *(ModelProblem(data.space, 9000 + number) for number in range(TEST_MODELS)),
    ]
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
        for problem in problems:
            for name, genome in genomes.items():
                cell = Cell(name, problem.name, seed)
                if cell.key not in results.read():
                    run = learn(problem, genome, seed, WINDOWS)
                    results.append(Kept(cell, asdict(run)))
        console.print(f"seed {seed} is done", highlight=False)
    print_comparison(list(results.read().values()), console)


if __name__ == "__main__":
    main()
