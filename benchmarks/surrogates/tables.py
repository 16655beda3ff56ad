"""The tables of the surrogate benchmarks: one for each data set, and one of the means over them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.surrogates.runs import Run
from benchmarks.tuners import TUNERS

FloatArray = NDArray[np.float64]
OURS = ("ours", "ours-warm")
PEERS = tuple(name for name in TUNERS if name not in OURS)


@dataclass(frozen=True)
class Row:
    """The numbers of one run, or of the mean of several."""

    shares: tuple[float, ...]
    worse: float
    regret: float
    cpu_ms: float

    @classmethod
    def of(cls, run: Run, at: Sequence[int]) -> Row:
        """Shares reached after each number of evaluations, and what it cost."""
        score = run.score
        return cls(
            tuple(score.share_at(evaluations) for evaluations in at),
            float(score.worse),
            score.regret,
            1000.0 * float(np.mean(run.ask_tell_cpu_s)),
        )

    @classmethod
    def of_numbers(cls, numbers: FloatArray) -> Row:
        """The row whose :attr:`numbers` these are."""
        *shares, worse, regret, cpu_ms = numbers.tolist()
        return cls(tuple(shares), worse, regret, cpu_ms)

    @property
    def numbers(self) -> tuple[float, ...]:
        """All of them in the order of the columns."""
        return (*self.shares, self.worse, self.regret, self.cpu_ms)


ByData = Mapping[str, Mapping[str, Mapping[int, Row]]]
"""Rows by data set, method and seed."""


def print_tables(
    runs: Sequence[Run], methods: Sequence[str], at: Sequence[int], console: Console
) -> None:
    """Print what the runs show: mean ± standard error over the seeds."""
    by_data: dict[str, dict[str, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        by_data[run.cell.data][run.cell.method][run.cell.seed] = Row.of(run, at)
    for data, rows in by_data.items():
        one = next(run for run in runs if run.cell.data == data)
        sign = 1.0 if one.cell.goal == "min" else -1.0
        title = (
            f"{data}: share of the recorded best gain; 0 = {sign * one.default:.4g} (surrogate at "
            f"the file's first row), 1 = {sign * one.best:.4g} (surrogate's best recorded row)"
        )
        _print(title, {method: list(rows[method].values()) for method in methods}, at, console)
    means = {method: mean_rows(by_data, method) for method in methods}
    if len(by_data) > 1:
        _print(f"mean over {len(by_data)} data sets", means, at, console)
    for method in methods:
        if method in OURS and means[method] and any(means.get(peer) for peer in PEERS):
            leads = (lead(means, method, column) for column in range(len(at)))
            parts = [
                f"@{evaluations} {ahead:+.3f} ± {error:.3f} ({peer})"
                for evaluations, (peer, ahead, error) in zip(at, leads, strict=True)
            ]
            console.print(f"{method} - best peer, mean over the data sets: {', '.join(parts)}")
    switched = [method for method in methods if method not in TUNERS]
    if OURS[0] in methods and switched:
        _print_gaps(by_data, switched, at, console)


def mean_rows(by_data: ByData, method: str) -> list[Row]:
    """For every seed that is finished on all data sets, the mean over them."""
    return list(_means_by_seed(by_data, method).values())


def gaps(by_data: ByData, other: str) -> list[Row]:
    """Ours less another method, for every seed that both finished on all data sets.

    The seed is the same, and with it the design and what luck there is: the gaps vary less than
    either method does.
    """
    ours, theirs = (_means_by_seed(by_data, method) for method in (OURS[0], other))
    found = []
    for seed in sorted(ours.keys() & theirs.keys()):
        less = np.array(ours[seed].numbers) - np.array(theirs[seed].numbers)
        found.append(Row.of_numbers(less))
    return found


def _means_by_seed(by_data: ByData, method: str) -> dict[int, Row]:
    finished = [rows.get(method, {}) for rows in by_data.values()]
    return {
        seed: Row.of_numbers(np.mean([seen[seed].numbers for seen in finished], axis=0))
        for seed in sorted(set.intersection(*(set(rows) for rows in finished)))
    }


def lead(rows: Mapping[str, Sequence[Row]], ours: str, column: int) -> tuple[str, float, float]:
    """The best peer in a column of shares, how far ahead of it we are, and the standard error."""
    shares = {method: np.array([row.shares[column] for row in rows[method]]) for method in rows}
    peers = {name: seen for name, seen in shares.items() if name in PEERS and len(seen)}
    best = max(peers, key=lambda name: float(peers[name].mean()))
    errors = [
        seen.std(ddof=1) / len(seen) ** 0.5 if len(seen) > 1 else np.nan
        for seen in (shares[ours], peers[best])
    ]
    return best, float(shares[ours].mean() - peers[best].mean()), float(np.hypot(*errors))


def _print_gaps(
    by_data: ByData, methods: Sequence[str], at: Sequence[int], console: Console
) -> None:
    """What each switch costs, seed by seed: less noisy than two means side by side."""
    rows = {f"ours less: {method}": gaps(by_data, method) for method in methods}
    _print(f"paired by seed, mean over {len(by_data)} data sets", rows, at, console)


def _print(
    title: str, rows: Mapping[str, Sequence[Row]], at: Sequence[int], console: Console
) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    table.add_column("runs", justify="right")
    for evaluations in at:
        table.add_column(f"@{evaluations}", justify="right")
    for heading in (">10 % worse than default", "cumulative regret", "CPU ms an ask + tell"):
        table.add_column(heading, justify="right")
    for method, seeds in rows.items():
        if not seeds:
            table.add_row(method, "0")
            continue
        numbers = np.array([row.numbers for row in seeds])
        mean = numbers.mean(axis=0)
        error = numbers.std(axis=0, ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else None
        digits = (*(3 for _ in at), 1, 1, 1)
        shown = [
            f"{mean[i]:.{digits[i]}f}" + ("" if error is None else f" ± {error[i]:.{digits[i]}f}")
            for i in range(len(mean))
        ]
        table.add_row(method, str(len(seeds)), *shown)
    console.print(table)
