"""What the command lines of the surrogate benchmarks share."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from backend.errors import AutopilotError, ConfigError
from benchmarks.surrogates.problem import Goal
from benchmarks.surrogates.runs import Cell, Results, load, make_problem, run_all
from benchmarks.surrogates.tables import print_tables

WHERE = (
    "The files: the project PKU-DAIR/DBTune on GitHub offers measurements of MySQL under many "
    "configurations (SYSBENCH_20knob.csv, throughput, --goal max; JOB_5knob.csv, seconds, --goal "
    "min), under its own licence. Any CSV file will do: an index column, knobs, the target last; "
    "the first row counts as the default configuration."
)


@dataclass(frozen=True)
class Data:
    """A file and whether its target is better low or high."""

    path: Path
    goal: Goal


def parser_of(program: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that all surrogate benchmarks have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{program}", description=description, epilog=WHERE
    )
    add = parser.add_argument
    add(
        "--data",
        action="append",
        required=True,
        metavar="FILE",
        help="or FILE:min, FILE:max; repeat",
    )
    add(
        "--goal",
        action="append",
        choices=("min", "max"),
        default=[],
        help="of the files without one: one for all, or one for each in order",
    )
    add("--seeds", type=int, default=10, help="runs of each method (10)")
    add("--evaluations", type=int, default=200, help="a run (200)")
    add("--at", type=_numbers, default=(20, 50, 100, 200), help="shown after (20,50,100,200)")
    add("--mask", action="store_true", help="hide all names and shuffle the columns")
    add(
        "--fix", action="append", default=[], metavar="NAME=VALUE",
        help="leave a knob out of the space and hold it, where a file has it; may be repeated",
    )  # fmt: skip
    add(
        "--noise", type=float, default=0.0, metavar="SD",
        help="tell each value times exp(SD * N(0, 1)); what has the best of these values counts, "
        "with its exact one (0: exact values)",
    )  # fmt: skip
    add("--jobs", type=int, default=1, help="processes, of one thread each (1)")
    add("--out", type=Path, required=True, help="finished runs as JSON lines; none is run again")
    add(
        "--redo", type=_names, default=(), metavar="METHODS",
        help="run these again, though finished: the newest run counts",
    )  # fmt: skip
    return parser


def run_benchmark(
    arguments: argparse.Namespace,
    methods: Mapping[str, Mapping[str, Any]],
    checkpoint: Path | None = None,
) -> None:
    """Run what is not finished yet and print the tables.

    Args:
        arguments: what :func:`parser_of` gave.
        methods: by name, changes to our agent's settings (none for peers).
        checkpoint: for "ours-warm".
    """
    console = Console(width=150)
    results = Results(arguments.out)
    cache = arguments.out.parent / f"{arguments.out.stem}-forests"
    cells = plan(arguments, methods, cache)
    done = results.read()
    pending = [
        (cell, path)
        for cell, path in cells
        if cell.key not in done or cell.method in arguments.redo
    ]
    console.print(f"{len(cells)} runs, {len(cells) - len(pending)} of them finished before")
    runs = run_all(
        pending, results, cache=cache, checkpoint=checkpoint, jobs=max(1, arguments.jobs)
    )
    for count, run in enumerate(runs, start=1):
        cell, last = run.cell, run.score.share_at(run.cell.evaluations)
        console.print(
            f"{count}/{len(pending)} {cell.data} {cell.method} seed {cell.seed}: {last:.3f}, "
            f"CPU {sum(run.ask_tell_cpu_s):.0f} s"
        )
    wanted = {cell.key for cell, _ in cells}
    finished = [run for key, run in results.read().items() if key in wanted]
    at = [number for number in arguments.at if number <= arguments.evaluations]
    print_tables(finished, list(methods), at or [arguments.evaluations], console)


def plan(
    arguments: argparse.Namespace, methods: Mapping[str, Mapping[str, Any]], cache: Path
) -> list[tuple[Cell, Path]]:
    """All cells, seed by seed, so that an unfinished benchmark can be read; problems checked.

    Raises:
        ConfigError: an option contradicts another or a file.
    """
    if not 0.0 <= arguments.noise < math.inf:
        raise ConfigError(f"--noise {arguments.noise} must be a number from 0 on")
    if arguments.seeds < 1 or arguments.evaluations < 2:
        raise ConfigError("--seeds must be at least 1, --evaluations at least 2")
    fix = _fixed(arguments.fix)
    unused = set(fix)
    made: list[list[tuple[Cell, Path]]] = [[] for _ in range(arguments.seeds)]
    for data in data_of(arguments.data, arguments.goal):
        recording, _ = load(data.path, cache, Cell.trees, max(1, arguments.jobs))
        held = {name: value for name, value in fix.items() if name in recording.space}
        unused -= set(held)
        for seed in range(arguments.seeds):
            for method, settings in methods.items():
                cell = Cell(
                    recording.name, recording.digest, data.goal, method, seed,
                    arguments.evaluations, arguments.mask, held, settings,
                    noise=arguments.noise,
                )  # fmt: skip
                made[seed].append((cell, data.path))
        make_problem(made[0][-1][0], data.path, cache)  # a wrong goal or value is said at once
    if unused:
        raise ConfigError(f"--fix: no file has a knob named {', '.join(sorted(unused))}")
    return [cell for cells in made for cell in cells]


def data_of(files: Sequence[str], goals: Sequence[Goal]) -> list[Data]:
    """Files with their goals, from ``FILE:GOAL`` or from ``--goal``.

    Raises:
        ConfigError: a file has none.
    """
    parts = [text.rpartition(":") for text in files]
    named = [(head, tail) if tail in ("min", "max") else (text, "")
             for text, (head, _, tail) in zip(files, parts, strict=True)]  # fmt: skip
    bare = sum(not goal for _, goal in named)
    if len(goals) not in (1, bare):
        raise ConfigError(f"{bare} files without a goal, but {len(goals)} times --goal")
    others = iter(goals if len(goals) == bare else [*goals] * bare)
    return [Data(Path(path), goal or next(others)) for path, goal in named]


def guarded(main: Callable[[], None]) -> None:
    """Run a command; what a user can mend is said in a line, not in a traceback."""
    try:
        main()
    except AutopilotError as error:
        sys.exit(str(error))


def _fixed(texts: Sequence[str]) -> dict[str, str]:
    fixed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--fix {text} must be NAME=VALUE")
        fixed[name] = value
    return fixed


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(part) for part in text.split(",")))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
