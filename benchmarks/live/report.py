"""The one table over all finished cells of a results file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rich.table import Table

from benchmarks.live.arithmetic import (
    NOTHING,
    BlockValues,
    Estimate,
    best_of,
    cumulative_regret,
    difference_interval,
    gain_interval,
    spread,
)
from benchmarks.live.methods import DEFAULTS, FIXED, NAMES, OURS, OURS_WARM, is_ours
from benchmarks.live.records import CellKey, Comparison, Pace, Part, Results
from benchmarks.live.workloads import description

ALL = "all"
"""Stands for the seed in the lines over all seeds of a workload."""


@dataclass(frozen=True)
class Line:
    """A line of the table; text only."""

    workload: str
    seed: str
    method: str
    trials: str = ""
    gain: str = ""
    regret: str = ""
    mean_index: str = ""
    harmful: str = ""
    worst: str = ""
    clamped: str = ""
    violations: str = ""
    durability: str = ""


@dataclass(frozen=True)
class Cell:
    """A finished (workload, seed): its comparison and the parts that it compares."""

    comparison: Comparison
    parts: Mapping[str, Part]

    @property
    def methods(self) -> list[str]:
        """The methods that were compared, fixed ones first, ours last."""
        return [method for method in NAMES if method in self.parts]

    def gain(self, method: str) -> Estimate:
        """A method's gain over the blocks; that of the defaults is 0 by definition."""
        return gain_interval([self.comparison.log_ratios(method)])

    @property
    def best_index(self) -> float:
        """The lowest index among all final configurations, at most 1."""
        gains = [gain.value for gain in map(self.gain, self.methods) if gain.blocks]
        return 1 - max([0.0, *gains])

    def regret(self, method: str) -> float | None:
        """Cumulative regret of a tuner's trials; None for a fixed configuration."""
        if method in FIXED:
            return None
        objectives = [e.objective for e in self.parts[method].evaluations]
        return cumulative_regret(objectives, self.best_index)

    def best_peer(self) -> str | None:
        """The peer with the highest gain, the defaults and fixed rules among them."""
        return best_of({m: self.gain(m).value for m in self.methods if not is_ours(m)})

    def pair(self, ours: str, peer: str) -> tuple[BlockValues, BlockValues]:
        """Log ratios of both, block by block."""
        return self.comparison.log_ratios(ours), self.comparison.log_ratios(peer)


def cells(results: Results) -> dict[CellKey, Cell]:
    """The cells whose comparison is about the parts that are in the file now."""
    found: dict[CellKey, Cell] = {}
    for key, comparison in sorted(results.comparisons.items()):
        parts = {
            method: part
            for method in comparison.finals
            if (part := results.parts.get((*key, method))) is not None
        }
        if parts and comparison.covers(parts, 0):
            found[key] = Cell(comparison, parts)
    return found


def _of(pace: Pace) -> str:
    return "" if pace.window_s is None else f" of {pace.window_s:g} s"


def _under(compared: Comparison) -> str:
    return ", the trials' statements" if compared.arrivals is None else ""


def lines(results: Results) -> list[Line]:
    """Cell by cell, then each workload over all its seeds."""
    found: list[Line] = []
    by_workload: dict[str, list[Cell]] = {}
    for (workload, _), cell in cells(results).items():
        by_workload.setdefault(workload, []).append(cell)
    for workload, group in by_workload.items():
        for cell in group:
            found += _cell_lines(cell)
        if len(group) > 1:
            found += _workload_lines(workload, group)
    return found


def _cell_lines(cell: Cell) -> list[Line]:
    workload, seed = cell.comparison.workload, str(cell.comparison.seed)
    found = []
    for method in cell.methods:
        part, tuned = cell.parts[method], method not in FIXED
        objectives = [e.objective for e in part.evaluations]
        regret = cell.regret(method)
        found.append(
            Line(
                workload,
                seed,
                f"{method} (overrun)" if part.overrun else method,
                trials=_trials(part) if tuned else "-",
                gain=_cell_gain(cell, method),
                regret="-" if regret is None else f"{regret:.2f}",
                mean_index=f"{fmean(objectives):.3f}" if objectives else "-",
                harmful=str(sum(e.harmful for e in part.evaluations)) if tuned else "-",
                worst=f"{max(objectives) - 1:+.2f}" if objectives else "-",
                clamped=f"{part.clamped}" + (f" ({part.refused} refused)" if part.refused else ""),
                violations=str(len(part.violations)),
                durability=str(len(part.durability)),
            )
        )
    peer = cell.best_peer()
    for ours in (m for m in cell.methods if is_ours(m)):
        if peer is not None:
            difference = difference_interval([cell.pair(ours, peer)])
            found.append(Line(workload, seed, f"{ours} - best peer ({peer})", gain=str(difference)))
    checked = cell.comparison
    found.append(
        Line(
            workload,
            seed,
            f"(comparison, {len(checked.blocks)} blocks{_of(checked.pace)}{_under(checked)})",
            violations=str(len(checked.violations)),
            durability=str(len(checked.durability)),
        )
    )
    return found


def _trials(part: Part) -> str:
    """How many proposals were tried, and how many trials measured good ones again."""
    again = sum(evaluation.again for evaluation in part.evaluations)
    searched = len(part.evaluations) - again
    return f"{searched} + {again}" if again else str(searched)


def _cell_gain(cell: Cell, method: str) -> str:
    if method == DEFAULTS:
        return "0 (reference)"
    return str(cell.gain(method)) if cell.parts[method].final else "0 (the defaults)"


def _workload_lines(workload: str, group: Sequence[Cell]) -> list[Line]:
    """Over the seeds: the mean of their means, its interval, and the seeds' standard deviation."""
    shared = [m for m in group[0].methods if all(m in cell.methods for cell in group)]
    gains = {m: [cell.gain(m).value for cell in group] for m in shared}
    found = []
    for method in shared:
        parts = [cell.parts[method] for cell in group]
        trials = [e for part in parts for e in part.evaluations]
        regrets = [r for cell in group if (r := cell.regret(method)) is not None]
        whole = gain_interval(cell.comparison.log_ratios(method) for cell in group)
        tuned = method not in FIXED
        found.append(
            Line(
                workload,
                ALL,
                method,
                trials=f"{len(trials) / len(group):.1f}" if tuned else "-",
                gain="0 (reference)" if method == DEFAULTS else _with_spread(whole, gains[method]),
                regret=f"{fmean(regrets):.2f} sd {spread(regrets):.2f}" if regrets else "-",
                mean_index=f"{fmean(e.objective for e in trials):.3f}" if trials else "-",
                harmful=str(sum(e.harmful for e in trials)) if tuned else "-",
                worst=f"{max(e.effect for e in trials):+.2f}" if trials else "-",
                clamped=str(sum(part.clamped for part in parts)),
                violations=str(sum(len(part.violations) for part in parts)),
                durability=str(sum(len(part.durability) for part in parts)),
            )
        )
    peers = {m: fmean(values) for m, values in gains.items() if not is_ours(m)}
    peer = best_of(peers)
    for ours in (m for m in (OURS, OURS_WARM) if m in shared):
        if peer is not None:
            pairs = [cell.pair(ours, peer) for cell in group]
            each = [difference_interval([pair]).value for pair in pairs]
            text = _with_spread(difference_interval(pairs), each)
            found.append(Line(workload, ALL, f"{ours} - best peer ({peer})", gain=text))
    return found


def _with_spread(whole: Estimate, means: Sequence[float]) -> str:
    return str(whole) if whole is NOTHING else f"{whole} sd {spread(means):.3f}"


def table(results: Results) -> Table:
    """The lines as a table for the terminal."""
    found = Table(
        title=_title(results),
        title_justify="left",
        caption=_caption(results),
        caption_justify="left",
    )
    for column, justify in (
        ("workload", "left"), ("seed", "left"), ("method", "left"), ("trials", "right"),
        ("gain [95 %]", "left"), ("regret", "right"), ("mean index", "right"),
        ("> 10 % worse", "right"), ("worst", "right"), ("clamped", "right"),
        ("over budget", "right"), ("durability", "right"),
    ):  # fmt: skip
        found.add_column(column, justify=justify)  # type: ignore[arg-type]
    last = None
    for line in lines(results):
        if last is not None and last != (line.workload, line.seed):
            found.add_section()
        last = line.workload, line.seed
        found.add_row(*vars(line).values())
    return found


def _title(results: Results) -> str:
    count = len(cells(results))
    done: Iterable[Part] = results.parts.values()
    minutes = sorted({part.protocol.minutes for part in done})
    told = " and ".join(f"{value:g}" for value in minutes)
    damaged = f"; {results.damaged_lines} damaged lines left out" if results.damaged_lines else ""
    return f"{count} finished cells; {told or '?'} minutes a method{damaged}"


def _caption(results: Results) -> str:
    """What each workload of the table is, and at what rate it was offered."""
    offered = {(w, part.protocol.rate_per_s) for (w, _, _), part in results.parts.items()}
    return "\n".join(f"{w}: {description(w)}, {rate:g}/s" for w, rate in sorted(offered))
