"""How fast a workload seen before is answered: ``python -m benchmarks.workload_shift``.

The load shifts between workloads with different best configurations (transactional by day,
analytical by night, and back). After each return: how far are the first configuration asked,
and the best of the first 2 and 5, from the best one known for that workload?

``simulated`` runs every method on simulated servers, where the noise-free answer is known;
``live`` does the same on the embedded server. Definitions and figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from backend.domain.knobs import KnobSpace
from backend.protocols import AskTellAgent
from backend.rl_agent import KnobAgentSettings
from backend.state_features import OFFERED_COLUMNS, STATE_WIDTH
from benchmarks.harness.command_line import end_in_good_order
from benchmarks.shift import live, simulated
from benchmarks.shift.measuring import Bench, tell_again
from benchmarks.shift.returns import AFTER, FIRST_ASKED, PhaseFile, Return, Row, returns_of, row_of
from benchmarks.surrogates.command import guarded
from benchmarks.tuners import make_tuner


@dataclass(frozen=True)
class Method:
    """A tuner, and whether it is given states."""

    name: str
    tuner: str
    sees_state: bool
    shown: str


METHODS = {
    method.name: method
    for method in (
        Method("ours", "ours", True, "ours"),
        Method("ours-blind", "ours", False, "ours without state"),
        Method("ddpg", "ddpg", True, "plain DDPG"),
        Method("smac3", "smac3", False, "SMAC3"),
        Method("tpe", "tpe", False, "TPE"),
        Method("random", "random", False, "random"),
    )
}


def made(method: Method, space: KnobSpace, seed: int, budget: int) -> AskTellAgent:
    """A fresh tuner of this method."""
    width = STATE_WIDTH if method.sees_state else 0
    settings = KnobAgentSettings(recall_columns=OFFERED_COLUMNS)
    return make_tuner(
        method.tuner, space, seed, budget=budget, state_width=width, settings=settings
    )


def run_simulated(
    method: Method, seed: int, workloads: Sequence[str], cycles: int, trials: int, file: PhaseFile
) -> None:
    """One run in simulated time; kept when it is whole."""
    schedule = list(workloads) * cycles
    if len(file.run(method.name, seed)) >= len(schedule):
        return
    site = simulated.SimulatedSite(seed, workloads)
    bench = Bench(site)
    tuner = made(method, site.space, seed, len(schedule) * trials)
    phases = file.run(method.name, seed)
    if phases:
        raise SystemExit(
            f"{method.name}, seed {seed}: cut in the middle of the file; use a new one"
        )
    for workload in schedule:
        about = (method.name, seed, workload)
        phases.append(
            bench.run_phase(tuner, phases, about, sees_state=method.sees_state, trials=trials)
        )
    file.add(phases)


def run_live(
    method: Method,
    seed: int,
    cycles: int,
    minutes: float,
    site: live.LiveSite,
    file: PhaseFile,
    console: Console,
) -> None:
    """One run on the embedded server, from where an earlier process left it."""
    schedule = list(live.WORKLOADS) * cycles
    phases = file.run(method.name, seed)
    bench = Bench(site)
    tuner = made(method, site.space, seed, len(schedule) * max(1, round(minutes * 1.5)))
    tell_again(tuner, phases, method.sees_state)
    bench.go_on_after(phases)
    for workload in schedule[len(phases) :]:
        about = (method.name, seed, workload)
        phase = bench.run_phase(
            tuner,
            phases,
            about,
            sees_state=method.sees_state,
            seconds=60.0 * minutes,
            compare=True,
        )
        phases.append(phase)
        file.add([phase])
        console.print(
            f"{method.shown}, seed {seed}, phase {len(phases)} of {len(schedule)} ({workload}): "
            f"{len(phase.trials)} trials"
        )


# -- the table --------------------------------------------------------------------------------


def percent(share: float | None) -> str:
    """A share as whole percents."""
    return "" if share is None else f"{100.0 * share:.0f} %"


def excess(row: Row, after: int) -> str:
    """Mean excess over the best known configuration, and the spread between runs."""
    spread = 100.0 * math.expm1(row.spread[after])
    return f"{100.0 * row.excess[after]:+.1f} ± {spread:.1f} %"


def print_table(title: str, rows: Sequence[Row], console: Console) -> None:
    """One table, every method a row."""
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    table.add_column("returns", justify="right")
    for after in AFTER:
        table.add_column(f"after {after}", justify="right", no_wrap=True)
        table.add_column("within 5 %", justify="right")
    table.add_column("of best tried", justify="right")
    table.add_column("first asked:\n" + " / ".join(FIRST_ASKED), justify="right", no_wrap=True)
    table.add_column("gain known", justify="right")
    table.add_column("gain of first", justify="right")
    table.add_column("tried again", justify="right")
    for row in rows:
        cells = [METHODS[row.method].shown, str(row.returns)]
        for after in AFTER:
            cells += [excess(row, after), percent(row.within[after])]
        cells += [percent(row.within_tried), " / ".join(map(str, row.first))]
        cells += [percent(row.known_gain)]
        cells += [percent(row.first_gain), f"{100.0 * row.again:.1f} %"]
        table.add_row(*cells)
    console.print(table)


def print_misses(returns: Sequence[Return], console: Console) -> None:
    """Each return whose first configuration was not within 5 %."""
    for one in returns:
        if not one.within(AFTER[0]):
            ratio = math.exp(one.log_ratios[AFTER[0]])
            console.print(
                f"{METHODS[one.method].shown}, seed {one.seed}, phase {one.phase} "
                f"({one.workload}): {ratio:.2f} times the best known, "
                f"first asked: {one.first}"
            )


def report(
    title: str, methods: Sequence[Method], seeds: Sequence[int], file: PhaseFile, misses: bool
) -> None:
    """Print what the file holds of these runs."""
    console = Console(width=180)
    rows: list[Row] = []
    missed: list[Return] = []
    for method in methods:
        returns = [one for seed in seeds for one in returns_of(file.run(method.name, seed))]
        if returns:
            rows.append(row_of(method.name, returns))
            missed += returns
    print_table(title, rows, console)
    if misses:
        print_misses(missed, console)


# -- the command line -------------------------------------------------------------------------


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workload_shift", description=(__doc__ or "").partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    simulation = commands.add_parser("simulated", help="on simulated servers")
    simulation.add_argument("--seeds", type=int, default=10, help="runs of each method (10)")
    simulation.add_argument(
        "--workloads", type=int, choices=(2, 3), default=2, help="in the schedule (2)"
    )
    simulation.add_argument("--cycles", type=int, default=4, help="visits of each workload (4)")
    simulation.add_argument("--trials", type=int, default=15, help="in each phase (15)")
    server = commands.add_parser("live", help="on the embedded server")
    server.add_argument("--minutes-per-phase", type=float, default=10.0, help="of real time (10)")
    server.add_argument("--cycles", type=int, default=3, help="visits of each workload (3)")
    server.add_argument("--seeds", type=int, default=1, help="runs of each method (1)")
    server.add_argument("--data-dir", type=Path, required=True, help="kept and used again")
    server.add_argument("--scale", type=float, default=0.25, help="of the demo store (0.25)")
    for command, default in ((simulation, list(METHODS)), (server, ["ours", "smac3"])):
        command.add_argument(
            "--methods",
            nargs="+",
            choices=list(METHODS),
            default=default,
            help=f"({' '.join(default)})",
        )
        command.add_argument("--first-seed", type=int, default=0, help="of the runs (0)")
        command.add_argument("--results", type=Path, help="JSON lines; what they hold is not rerun")
        command.add_argument("--misses", action="store_true", help="list the returns that failed")
    return parser.parse_args()


def main() -> None:
    """Run what is missing, print the table."""
    arguments = _arguments()
    methods = [METHODS[name] for name in arguments.methods]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    if arguments.command == "simulated":
        counts = {name: getattr(arguments, name) for name in ("workloads", "cycles", "trials")}
        file = PhaseFile(arguments.results, {"command": "simulated", **counts})
        workloads = list(simulated.WORKLOADS)[: arguments.workloads]
        for seed in seeds:
            for method in methods:
                run_simulated(method, seed, workloads, arguments.cycles, arguments.trials, file)
        foreign = simulated.foreign_index(seeds, workloads)
        title = (
            f"Returns to a known workload, simulated, {arguments.trials} trials a phase (index of "
            f"the best configuration in its own workload {1 - simulated.GAIN:g}, in another one "
            f"{foreign:.2f}; of the default 1)"
        )
    else:
        data_dir = arguments.data_dir.resolve()
        settings = live.live_settings(data_dir, arguments.scale)
        counts = {
            name: getattr(arguments, name) for name in ("minutes_per_phase", "cycles", "scale")
        }
        path = arguments.results or data_dir / "workload_shift.jsonl"
        file = PhaseFile(path, {"command": "live", **counts})
        minutes, cycles = arguments.minutes_per_phase, arguments.cycles
        end_in_good_order()
        for seed in seeds:
            for method in methods:
                done = len(file.run(method.name, seed))
                if done < cycles * len(live.WORKLOADS):
                    with live.live_site(settings, seed, fresh=done == 0) as site:
                        run_live(method, seed, cycles, minutes, site, file, Console())
        title = f"Returns to a known workload, embedded server, {minutes:g} minutes a phase"
    report(title, methods, seeds, file, arguments.misses)


if __name__ == "__main__":
    guarded(main)
