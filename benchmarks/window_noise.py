"""How far windows of an unchanged server lie apart: ``python -m benchmarks.window_noise``.

PostgreSQL's defaults under a load of ``benchmarks.knob_live``; nothing is tuned, so whatever two
windows differ by is noise. Run it before a live comparison, to see what the machine can tell apart,
and with ``--ever-new``, to see how much of the noise are the statements and how much the host.
Definitions and figures: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backend.data_collector import window_between
from backend.domain.metrics import MetricsSnapshot, MetricsWindow, QueryKey
from backend.errors import AutopilotError
from backend.sample_filter import Reference, latency_index, paired_log_ratio
from benchmarks.harness.command_line import end_in_good_order, positive, whole
from benchmarks.harness.server import Say, data_folder
from benchmarks.knob_live import WARM_UP_S, WINDOW_S, protocol_of, settings_for
from benchmarks.live.records import Protocol
from benchmarks.live.server import LiveServer
from benchmarks.live.tuning import stage
from benchmarks.live.workloads import NAMES, PGBENCH_SCRIPTS, LiveWorkload

LENGTHS = (5, 10, 20, 30)
"""Of windows, in snapshots; one is taken each second."""
STORE_NAMES = tuple(name for name in NAMES if name not in PGBENCH_SCRIPTS)
"""Workloads whose statements are ours to repeat."""
HEAVIEST = 3
"""So many statement classes are told with their part in the noise."""


@dataclass(frozen=True)
class Noise:
    """What windows of one length differ by.

    Args:
        windows: how many there are, one after the other.
        index_sd: standard deviation of the logarithm of their latency index.
        pair_sd: of the log ratio of the first to the second, third to fourth, and so on.
        steal_percent: mean CPU share that other machines on the host took.
        steal_correlation: of that share with the index; nan where either never moves.
    """

    windows: int
    index_sd: float
    pair_sd: float
    steal_percent: float
    steal_correlation: float


@dataclass(frozen=True)
class ClassNoise:
    """A statement class's share of the execution time, and of the variance of the index."""

    key: QueryKey
    time_share: float
    variance_share: float


def windows_of(snapshots: Sequence[MetricsSnapshot], length: int) -> list[MetricsWindow]:
    """Windows one after the other, each over ``length`` steps between snapshots."""
    ends = zip(snapshots[::length], snapshots[length::length], strict=False)
    windows = (window_between(first, last) for first, last in ends)
    return [window for window in windows if window is not None]


def noise_of(windows: Sequence[MetricsWindow], shares: Reference) -> Noise:
    """What these windows differ by; those in which nothing can be compared are left out."""
    seen = [
        (math.log(index.value), window.gauges.get("host_steal_percent", 0.0))
        for window in windows
        if (index := latency_index([window], shares)) is not None
    ]
    logs, steal = (np.array([each[column] for each in seen]) for column in (0, 1))
    pairs = [paired_log_ratio([b], [a], shares) for a, b in _pairs(windows)]
    ratios = np.array([pair[0] for pair in pairs if pair is not None])
    moves = len(logs) > 2 and logs.std() > 0 and steal.std() > 0
    return Noise(
        windows=len(logs),
        index_sd=_deviation(logs),
        pair_sd=_deviation(ratios),
        steal_percent=float(steal.mean()) if len(steal) else math.nan,
        steal_correlation=float(np.corrcoef(logs, steal)[0, 1]) if moves else math.nan,
    )


def _pairs(windows: Sequence[MetricsWindow]) -> list[tuple[MetricsWindow, MetricsWindow]]:
    return list(zip(windows[::2], windows[1::2], strict=False))


def _deviation(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def heaviest(windows: Sequence[MetricsWindow], shares: Reference) -> list[ClassNoise]:
    """The classes with the largest part in the variance of the index, largest first.

    The index is a sum over classes: a class's part is its covariance with that sum.
    """
    if len(windows) < 2:
        return []
    costs = {
        key: np.array([share * _mean_ms(window, key, base_ms) for window in windows])
        for key, (share, base_ms) in shares.per_class.items()
    }
    total = np.sum(list(costs.values()), axis=0)
    variance = float(total.var(ddof=1)) or math.inf  # where nothing varies, no class has a part
    found = [
        ClassNoise(
            key,
            time_share=float(cost.mean() / total.mean()),
            variance_share=float(np.cov(cost, total)[0, 1]) / variance,
        )
        for key, cost in costs.items()
    ]
    return sorted(found, key=lambda each: -each.variance_share)[:HEAVIEST]


def _mean_ms(window: MetricsWindow, key: QueryKey, otherwise_ms: float) -> float:
    query = window.queries.get(key)
    return query.mean_ms if query is not None and query.calls else otherwise_ms


def observe(
    live: LiveServer, seed: int, protocol: Protocol
) -> tuple[list[MetricsSnapshot], Reference]:
    """Watch the defaults under the load for the protocol's minutes, a snapshot each second."""
    with stage(live, seed, protocol) as running:
        collector, clock = live.collector(), live.clock
        began_s = clock.monotonic_s()
        snapshots = [collector.collect()]
        seconds = range(1, round(60 * protocol.minutes) + 1)
        for second in track(seconds, "watching", console=Console(stderr=True)):
            clock.sleep(max(0.0, began_s + second - clock.monotonic_s()))
            snapshots.append(collector.collect())
        return snapshots, running.shares


def tables(snapshots: Sequence[MetricsSnapshot], shares: Reference) -> list[Table]:
    """What was seen, by length of window and by statement class."""
    lengths = Table(title="windows of the same configuration", title_justify="left")
    for heading in ("window", "windows", "sd of log index", "sd of log ratio of two",
                    "steal", "correlation with steal"):  # fmt: skip
        lengths.add_column(heading, justify="right")
    for length in LENGTHS:
        found = noise_of(windows_of(snapshots, length), shares)
        lengths.add_row(
            f"{length} s", str(found.windows), f"{found.index_sd:.3f}", f"{found.pair_sd:.3f}",
            f"{found.steal_percent:.1f} %", f"{found.steal_correlation:+.2f}",
        )  # fmt: skip
    classes = Table(title="classes with the largest part in it, windows of 10 s")
    for heading in ("query id", "share of time", "share of variance"):
        classes.add_column(heading, justify="right")
    for each in heaviest(windows_of(snapshots, 10), shares):
        classes.add_row(
            str(each.key.queryid), f"{each.time_share:.2f}", f"{each.variance_share:.2f}"
        )
    return [lengths, classes]


def run(arguments: argparse.Namespace, say: Say) -> list[Table]:
    """Watch and say what was seen.

    Raises:
        AutopilotError: with the remedy.
    """
    workload = LiveWorkload.named(
        arguments.workload, repeat_s=None if arguments.ever_new else arguments.window
    )
    with data_folder(arguments.data_dir, "window-noise-") as data_dir:
        settings = settings_for(data_dir, workload, allow_restart=False)
        live = LiveServer(settings, workload, say)
        with live.running():
            protocol = protocol_of(live, settings, arguments)
            return tables(*observe(live, arguments.seed, protocol))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.window_noise", description=(__doc__ or "").partition("\n\n")[0]
    )
    add = parser.add_argument
    add("--workload", choices=STORE_NAMES, default="mixed", help="what the clients send (mixed)")
    add("--minutes", type=positive, default=5.0, help="how long to watch (5)")
    add("--ever-new", action="store_true",
        help="new statements all the time; else those of 10 s again, as knob_live")  # fmt: skip
    add("--seed", type=whole, default=0, help="of the arrivals (0)")
    add("--data-dir", type=Path,
        help="kept and used again, with the loaded data; a folder for knob_live and this benchmark "
        "alone. Default: a temporary one")  # fmt: skip
    parser.set_defaults(window=WINDOW_S, warm_up=WARM_UP_S)
    arguments = parser.parse_args(argv)
    if arguments.minutes * 60 < 4 * LENGTHS[-1]:
        parser.error(f"--minutes {arguments.minutes:g}: at least {4 * LENGTHS[-1] / 60:g}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Watch and print; returns the exit code."""
    arguments = parse(argv)
    end_in_good_order()
    console = Console(width=120)
    try:
        for table in run(arguments, lambda text: console.print(text, highlight=False)):
            console.print(table)
    except AutopilotError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("ended before anything could be said\n")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
