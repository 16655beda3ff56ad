"""What single knobs do to the demo workload: ``python -m benchmarks.workload_knobs``.

Replays the same arrivals of a mix, one statement at a time over one connection, under the server's
defaults and under a few changed settings (of the session alone; nothing is written to the server's
configuration), and measures the CPU time of the whole server for each class of statements: the
backend, its parallel workers and the server's own processes. Every round replays each setting
once, in an order by lot; the table has the geometric mean over rounds of a setting's CPU over that
of the defaults in the same round, with Student's 95 % interval, and the classes that it changed
most. Writes are left out, lest the data change from replay to replay.

CPU time tells how much work a plan is, whatever else the machine does; it does not tell how long a
client waits. Definitions and figures: docs/demo-workload.md.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
from psycopg2 import sql
from rich.console import Console
from rich.table import Table

from backend.workload.connection import connect
from backend.workload.mixes import MIXES, mix_named
from backend.workload.schedule import Arrival, ArrivalSchedule
from backend.workload.shape import DEMO_SCALE, StoreShape
from backend.workload.statements import STATEMENTS
from benchmarks.harness.command_line import end_in_good_order
from benchmarks.harness.ratio import Ratio
from benchmarks.harness.server import data_folder, settings_in, shop_server

Settings = Mapping[str, str]
Times = Mapping[str, float]
"""Statement class to CPU seconds of one replay."""

DEFAULTS = "the server's defaults"
COLLAPSE: Settings = {"join_collapse_limit": "12", "from_collapse_limit": "12"}
PLANS: Settings = {"random_page_cost": "1.1", "work_mem": "32MB", **COLLAPSE}
ARMS: Sequence[Settings] = (
    {"random_page_cost": "1.1"},
    {"work_mem": "32MB"},
    {"hash_mem_multiplier": "8"},
    {"max_parallel_workers_per_gather": "0"},
    COLLAPSE,
    PLANS,
    {**PLANS, "max_parallel_workers_per_gather": "0"},
    {"cpu_tuple_cost": "0.05"},
    {"min_parallel_table_scan_size": "256MB"},
    {"work_mem": "1MB"},
    {"join_collapse_limit": "4"},
    {"random_page_cost": "8"},
    {"effective_cache_size": "64MB"},
)
MOST_CHANGED = 3
"""Classes named in a row of the table."""


@dataclass(frozen=True)
class Outcome:
    """What a setting did, against the defaults of the same rounds."""

    name: str
    ratio: Ratio
    ms_per_statement: float
    changed: Sequence[tuple[str, float, float]]
    """(class, CPU ms per statement at the defaults, and here), the greatest difference first."""


def arrivals_by_class(schedule: ArrivalSchedule, count: int) -> dict[str, list[Arrival]]:
    """The first ``count`` arrivals of a schedule that write nothing, by class."""
    reads = (a for a in schedule if STATEMENTS[a.class_name].kind != "write")
    grouped: dict[str, list[Arrival]] = {}
    for arrival in islice(reads, count):
        grouped.setdefault(arrival.class_name, []).append(arrival)
    return grouped


def server_cpu_s(postmaster: psutil.Process) -> float:
    """CPU seconds of a server since its start: its processes, and those that have ended."""
    own = postmaster.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in postmaster.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return float(total)


def replay(
    connection: Any,
    postmaster: psutil.Process,
    grouped: Mapping[str, Sequence[Arrival]],
    settings: Settings,
) -> dict[str, float]:
    """Run every arrival under the settings; CPU seconds of the server by class."""
    used_s = {}
    with connection.cursor() as cursor:
        cursor.execute("RESET ALL")
        for name, value in settings.items():
            cursor.execute(sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        for name, arrivals in grouped.items():
            before_s = server_cpu_s(postmaster)
            for arrival in arrivals:
                cursor.execute(STATEMENTS[name].sql, arrival.parameters)
                cursor.fetchall()
            used_s[name] = server_cpu_s(postmaster) - before_s
    return used_s


def name_of(settings: Settings) -> str:
    """A setting as the table names it."""
    return ", ".join(f"{name} {value}" for name, value in settings.items()) or DEFAULTS


def outcome(
    settings: Settings, here: Sequence[Times], defaults: Sequence[Times], counts: Mapping[str, int]
) -> Outcome:
    """Compare the replays of a setting with those of the defaults, round by round."""
    name = name_of(settings)
    logs = [
        math.log(sum(mine.values()) / sum(theirs.values()))
        for mine, theirs in zip(here, defaults, strict=True)
    ]

    def ms(times: Sequence[Times], class_name: str) -> float:
        return 1000 * fmean(t[class_name] for t in times) / counts[class_name]

    pairs = [(c, ms(defaults, c), ms(here, c)) for c in counts]
    pairs.sort(key=lambda pair: -abs(pair[2] - pair[1]) * counts[pair[0]])
    total_s = fmean(sum(t.values()) for t in here)
    return Outcome(
        name, Ratio.of(name, logs), 1000 * total_s / sum(counts.values()), pairs[:MOST_CHANGED]
    )


def measure(
    connection: Any,
    postmaster: psutil.Process,
    grouped: Mapping[str, Sequence[Arrival]],
    rounds: int,
    seed: int,
) -> list[Outcome]:
    """Replay the defaults and every arm once a round, after a replay that fills the caches."""
    arms: list[Settings] = [{}, *ARMS]
    seen: list[list[Times]] = [[] for _ in arms]
    replay(connection, postmaster, grouped, {})
    lot = random.Random(seed)
    for _ in range(rounds):
        order = list(range(len(arms)))
        lot.shuffle(order)
        for number in order:
            seen[number].append(replay(connection, postmaster, grouped, arms[number]))
    counts = {name: len(arrivals) for name, arrivals in grouped.items()}
    return [outcome(arm, times, seen[0], counts) for arm, times in zip(arms, seen, strict=True)]


def print_table(outcomes: Sequence[Outcome], title: str, console: Console) -> None:
    """One row a setting."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("settings", max_width=44)
    shown.add_column("CPU, relative")
    shown.add_column("ms a statement", justify="right")
    shown.add_column("changed most, CPU ms a statement")
    for row in outcomes:
        ratio, changed = "1", ""
        if row.name != DEFAULTS:
            ratio = f"{row.ratio.value:.2f} [{row.ratio.low:.2f}, {row.ratio.high:.2f}]"
            changed = ", ".join(f"{name} {a:.0f} -> {b:.0f}" for name, a, b in row.changed)
        shown.add_row(row.name, ratio, f"{row.ms_per_statement:.1f}", changed)
    console.print(shown)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.workload_knobs", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--mix", default="mixed", choices=sorted(MIXES))
    parser.add_argument("--arrivals", type=int, default=120, help="statements of a replay (120)")
    parser.add_argument("--rounds", type=int, default=5, help="replays of each setting (5)")
    parser.add_argument("--scale", type=float, default=DEMO_SCALE, help="of the demo store (0.25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, help="kept and used again; default: a fresh one")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    console = Console(width=140)
    schedule = ArrivalSchedule(
        mix_named(arguments.mix), seed=arguments.seed, shape=StoreShape.at_scale(arguments.scale)
    )
    grouped = arrivals_by_class(schedule, arguments.arrivals)
    end_in_good_order()
    sections = {"workload": {"data_scale_factor": arguments.scale}}
    with (
        data_folder(arguments.data_dir, "workload-knobs-") as data_dir,
        shop_server(settings_in(data_dir, sections), console.print) as server,
    ):
        pid = int((server.cluster_dir / "postmaster.pid").read_text().split()[0])
        connection = connect(server.dsn(), application_name="workload_knobs_benchmark")
        with contextlib.closing(connection):
            outcomes = measure(
                connection, psutil.Process(pid), grouped, arguments.rounds, arguments.seed
            )
        title = (
            f"Server CPU of {arguments.arrivals} statements of the mix {arguments.mix}, "
            f"{arguments.rounds} rounds, scale {arguments.scale:g}"
        )
        print_table(outcomes, title, console)


if __name__ == "__main__":
    main()
