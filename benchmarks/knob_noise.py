"""Knob tuners under the noise of a live server, simulated: ``python -m benchmarks.knob_noise``.

What ``benchmarks.knob_live`` measures in hours, in minutes and against known answers: a few dozen
evaluations, each off by a random factor, on the problems that Level 2 learns on (response models;
with ``--store`` also regressions of recorded workloads, expert rules included). Ours runs with the
settings that it has on a live server; ``ours-warm`` has learnt from what was recorded under all
workloads but the one it is tried on. What is left behind is chosen as in ``benchmarks.knob_live``:
the lowest measurement, for ours after its best were measured again; what it is worth is exact.
Definitions: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import URL

from backend.agent.pretrained import Pretrained
from backend.domain.knobs import KnobConfig, KnobSpace
from backend.evolution.genome import LIVE_KNOB
from backend.evolution.problems import ModelProblem, Problem, by_workload, fit
from backend.offline_training import UPDATES
from backend.protocols import AskTellAgent
from backend.rl_agent import KnobAgent, KnobAgentSettings
from backend.state_features import OFFERED_COLUMNS, STATE_WIDTH
from backend.targets.simulated_model import DEFAULT_SPACE
from backend.telemetry import open_store
from backend.training_data import Recorded, TrainingData, training_data
from benchmarks.live.tuning import CONFIRM_SHARE, CONFIRMED
from benchmarks.results_file import JsonLine, ResultsFile
from benchmarks.surrogates.command import guarded
from benchmarks.tuners import TUNERS, make_tuner

OURS, OURS_WARM = "ours", "ours-warm"
PEERS = tuple(name for name in TUNERS if not name.startswith(OURS))
NAMES = (*PEERS, OURS, OURS_WARM)
OUTLIER = 0.6
"""Standard deviation by which an outlier is off besides."""
EARLY = 10
HARM = math.log(1.10)
"""An evaluation worse than the default configuration by more than this counts as harm."""
MOST = 2.0
"""A trial whose index is higher is stopped on a server: it costs no more than that."""
MODELS = ((1, 2), (3, 4, 5, 6))
"""Response models of the first half, where settings are chosen, and of the second one."""
Settings = Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        problem, gain: its name and its log gain, which tells fits of other records apart.
        method: a peer, "ours", or the label of other settings of ours.
        seed: of tuner and luck.
        evaluations: after the default configuration.
        noise: standard deviation of the logarithm of the factor by which each is off.
        settings: changes to our settings on a live server.
        outliers: share of the evaluations that are off by much more.
        again: so many of the evaluations, the last ones, measure the best ones again.
    """

    problem: str
    gain: float
    method: str
    seed: int
    evaluations: int
    noise: float
    settings: Settings = field(default_factory=dict)
    outliers: float = 0.0
    again: int = 0

    @property
    def key(self) -> str:
        """The same for the same run."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Run(JsonLine):
    """A finished run: log indexes against the default configuration, exact and as measured."""

    cell: Cell
    exact: Sequence[float]
    measured: Sequence[float]

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Run:
        """The run behind what JSON made of it."""
        return cls(**{**fields, "cell": Cell(**fields["cell"])})

    @property
    def left(self) -> float:
        """Share of the latency that the configuration left behind saves; 0 is the default one."""
        asked = self.cell.evaluations - self.cell.again
        again = self.measured[asked:]
        if not again:
            return self._lowest(asked)
        best = confirmed_order(self.measured[:asked])
        means = [fmean(again[turn :: len(best)]) for turn in range(min(len(best), len(again)))]
        lowest = int(np.argmin(means))
        return -math.expm1(self.exact[best[lowest]]) if means[lowest] < 0.0 else 0.0

    @property
    def early(self) -> float:
        """The same after ten evaluations, by the lowest measurement."""
        return self._lowest(EARLY)

    def _lowest(self, evaluations: int) -> float:
        measured = self.measured[:evaluations]
        lowest = int(np.argmin(measured))
        return -math.expm1(self.exact[lowest]) if measured[lowest] < 0.0 else 0.0

    @property
    def found(self) -> float:
        """The same for the best configuration tried."""
        return -math.expm1(min(0.0, *self.exact))

    @property
    def cost(self) -> float:
        """Mean index of the evaluations, each capped; 1 is the default configuration's."""
        return fmean(min(math.exp(index), MOST) for index in self.exact)

    @property
    def harmful(self) -> float:
        """Evaluations worse than the default configuration by more than 10 %."""
        return float(sum(index > HARM for index in self.exact))


def confirmed_order(measured: Sequence[float]) -> list[int]:
    """Numbers of the evaluations whose configurations are measured again in turn, lowest first."""
    order = sorted(range(len(measured)), key=lambda number: measured[number])
    return [number for number in order if measured[number] < 0.0][:CONFIRMED]


def recorded(store: Path) -> TrainingData:
    """What a store holds to learn from and to fit problems to."""
    opened = open_store(URL.create("sqlite", database=str(store)), read_only=True)
    try:
        return training_data([Recorded.read(opened, opened.address)], LIVE_KNOB.quality_floor)
    finally:
        opened.close()


class Teacher:
    """Trained agents, each without the workload that it is to be judged on."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data
        self._known: dict[str, Pretrained] = {}

    def without(self, workload: str) -> Pretrained:
        """What an agent learns from all other workloads, trained as ``run.py train`` does."""
        if workload not in self._known:
            data = self._data
            pairs = zip(data.workloads, data.episodes, strict=True)
            others = [episode for name, episode in pairs if name != workload]
            agent = KnobAgent(data.space, 0, settings=_settings({}), state_width=STATE_WIDTH)
            agent.pretrain(others, UPDATES)
            self._known[workload] = agent.pretrained()
        return self._known[workload]


def problems(data: TrainingData | None, half: int) -> list[Problem]:
    """Half of what there is; the regressions of the two halves share nothing."""
    if data is None:
        return [ModelProblem(KnobSpace(DEFAULT_SPACE.knobs), seed) for seed in MODELS[half]]
    workloads = by_workload(data)
    chosen = {name: workloads[name] for name in sorted(workloads)[half::2]}
    return [
        *fit(data.space, chosen), *(ModelProblem(data.space, seed) for seed in MODELS[half])
    ]  # fmt: skip


def run_cell(cell: Cell, problem: Problem, known: Pretrained | None = None) -> Run:
    """Tell the default configuration's index, then ask, measure and tell; then measure again."""
    tuner = _tuner(cell, problem, known)
    name = zlib.crc32(problem.name.encode())
    default = problem.space.default_config()
    tuner.tell(default, 1.0, problem.state(np.random.default_rng([cell.seed, 999])))
    exact: list[float] = []
    measured: list[float] = []

    def measure(config: KnobConfig, luck: np.random.Generator) -> None:
        exact.append(problem.log_index(config))
        off, further = luck.standard_normal(2)
        outlier = OUTLIER * further if luck.random() < cell.outliers else 0.0
        measured.append(exact[-1] + float(cell.noise * off + outlier))

    asked: list[KnobConfig] = []
    for number in range(cell.evaluations):
        # Drawn anew for each evaluation: whatever was tried before, all methods meet the same luck.
        luck = np.random.default_rng([cell.seed, number, name])
        if number < cell.evaluations - cell.again:
            state = problem.state(np.random.default_rng([cell.seed, number, name, 1]))
            asked.append(tuner.ask(state))
            measure(asked[-1], luck)
            tuner.tell(asked[-1], math.exp(measured[-1]), state)
        elif best := confirmed_order(measured[: len(asked)]):
            measure(asked[best[(number - len(asked)) % len(best)]], luck)
    return Run(cell, exact, measured)


def _tuner(cell: Cell, problem: Problem, known: Pretrained | None) -> AskTellAgent:
    if cell.method in PEERS:
        return make_tuner(
            cell.method, problem.space, cell.seed, budget=cell.evaluations, state_width=STATE_WIDTH
        )
    settings, priors = _settings(cell.settings), list(problem.priors)
    if known is not None:
        return KnobAgent.warm(known, problem.space, cell.seed, settings=settings, priors=priors)
    return KnobAgent(
        problem.space, cell.seed, settings=settings, priors=priors, state_width=STATE_WIDTH
    )


def _settings(changes: Settings) -> KnobAgentSettings:
    """Ours on a live server, with changes."""
    given: dict[str, Any] = {"recall_columns": OFFERED_COLUMNS, **changes}
    return dataclasses.replace(LIVE_KNOB, **given)


COLUMNS = (
    ("after 10", "early", 3),
    ("left behind", "left", 3),
    ("best tried", "found", 3),
    ("mean index", "cost", 3),
    ("> 10 % worse", "harmful", 1),
)
"""Heading, property of a run, digits."""


def table(runs: Sequence[Run], methods: Sequence[str]) -> Table:
    """Means over the cells that every method has, and ours less each method with its error."""
    by_cell: dict[tuple[str, int], dict[str, Run]] = {}
    for run in runs:
        by_cell.setdefault((run.cell.problem, run.cell.seed), {})[run.cell.method] = run
    cells = [found for found in by_cell.values() if all(name in found for name in methods)]
    count = len({run.cell.problem for found in cells for run in found.values()})
    made = Table(title=f"{len(cells)} runs of each method on {count} problems")
    for heading in ("method", *(heading for heading, _, _ in COLUMNS)):
        made.add_column(heading, justify="right")
    if OURS in methods:
        made.add_column("ours less it: left behind", justify="right")
        made.add_column("mean index", justify="right")
    for name in methods if cells else ():
        shown = [
            f"{fmean(getattr(found[name], column) for found in cells):.{digits}f}"
            for _, column, digits in COLUMNS
        ]
        for column in ("left", "cost") if OURS in methods else ():
            gaps = [getattr(f[OURS], column) - getattr(f[name], column) for f in cells]
            error = stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else math.nan
            shown.append("" if name == OURS else f"{fmean(gaps):+.3f} ± {error:.3f}")
        made.add_row(name, *shown)
    return made


def _variant(text: str) -> tuple[str, dict[str, float]]:
    label, _, listed = text.partition(":")
    try:
        pairs = (part.split("=") for part in listed.split(","))
        own = dataclasses.asdict(LIVE_KNOB)
        settings = {name: type(own[name])(value) for name, value in pairs}
        dataclasses.replace(LIVE_KNOB, **settings)
    except (ValueError, TypeError, KeyError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}; LABEL:SETTING=NUMBER,...") from error
    if label in TUNERS:
        raise argparse.ArgumentTypeError(f"{label} is a method's name")
    return label, settings


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.knob_noise", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--methods", default="tpe,smac3,ours", metavar="A,B,...",
        help=f"of {', '.join(NAMES)} (tpe,smac3,ours)")  # fmt: skip
    add("--variant", type=_variant, action="append", default=[], metavar="LABEL:SETTING=NUMBER,...",
        help="ours with other settings, as a method of this name; may be repeated")  # fmt: skip
    add("--store", type=Path, help="recorded transitions: a SQLite file")
    add("--half", type=int, choices=(0, 1), default=1,
        help="0: the problems on which settings are chosen, 1: the others (1)")  # fmt: skip
    add("--seeds", type=int, default=3, help="runs of each method on each problem (3)")
    add("--first-seed", type=int, default=200, help="the others follow it (200)")
    add("--evaluations", type=int, default=40, help="of a run (40)")
    add("--noise", type=float, default=0.15, metavar="SD",
        help="of the logarithm of each measurement (0.15)")  # fmt: skip
    add("--outliers", type=float, default=0.0, metavar="P",
        help=f"share of the measurements off by another {OUTLIER:g} N(0, 1) (0)")  # fmt: skip
    add("--again", type=int, help="evaluations of ours that measure its best ones again "
        f"(a share of {CONFIRM_SHARE:g} of all)")  # fmt: skip
    add("--out", type=Path, required=True, help="finished runs as JSON lines; none is run again")
    arguments = parser.parse_args(argv)
    arguments.methods = [name.strip() for name in arguments.methods.split(",")]
    if unknown := [name for name in arguments.methods if name not in NAMES]:
        parser.error(f"unknown: {unknown}; choose from {', '.join(NAMES)}")
    if OURS_WARM in arguments.methods and arguments.store is None:
        parser.error(f"{OURS_WARM} learns from --store")
    if min(arguments.seeds, arguments.evaluations) < 1 or not 0 <= arguments.noise < math.inf:
        parser.error("--seeds and --evaluations must be at least 1, --noise at least 0")
    if arguments.again is None:
        arguments.again = round(CONFIRM_SHARE * arguments.evaluations)
    if not 0 <= arguments.again < arguments.evaluations or not 0 <= arguments.outliers <= 1:
        parser.error("--again must be less than --evaluations, --outliers between 0 and 1")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing and print."""
    arguments = parse(argv)
    console = Console(width=130)
    results: ResultsFile[Run] = ResultsFile(arguments.out, Run.of_line)
    methods = {name: {} for name in arguments.methods} | dict(arguments.variant)
    done = results.read()
    runs = []
    data = recorded(arguments.store) if arguments.store is not None else None
    teacher = Teacher(data) if data is not None else None
    posed = problems(data, arguments.half)
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for problem in posed:
            for method, settings in methods.items():
                cell = Cell(
                    problem.name, round(problem.gain, 6), method, seed,
                    arguments.evaluations, arguments.noise, settings, arguments.outliers,
                    0 if method in PEERS else arguments.again,
                )  # fmt: skip
                if (run := done.get(cell.key)) is None:
                    warm = teacher if method == OURS_WARM else None
                    known = warm.without(problem.name) if warm is not None else None
                    run = run_cell(cell, problem, known)
                    results.append(run)
                    console.print(f"{problem.name}, {method}, seed {seed}: {run.left:.3f}")
                runs.append(run)
    console.print(table(runs, list(methods)))


if __name__ == "__main__":
    guarded(main)
