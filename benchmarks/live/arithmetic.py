"""Gains, intervals and regret: pure functions on numbers.

A *ratio* is a latency index against the defaults measured in the same block (1: like the defaults,
lower is better), a *gain* is ``1 - ratio``. Ratios are averaged as logarithms, as everywhere in the
product. A block that could not be measured holds None.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

from scipy import stats

HARM = 0.10
"""A trial is *worse than the start* when its index lies above the defaults' by more than this."""
CONFIDENCE = 0.95

BlockValues = Sequence["float | None"]


@dataclass(frozen=True)
class Estimate:
    """A mean with its two-sided 95 % interval; infinite bounds where there is too little to tell.

    ``blocks`` is how many values it rests on.
    """

    value: float
    low: float
    high: float
    blocks: int

    def __str__(self) -> str:
        """Mean and interval with three digits."""
        if math.isnan(self.value):
            return "-"
        if math.isinf(self.low):
            return f"{self.value:+.3f}"
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


NOTHING = Estimate(math.nan, -math.inf, math.inf, 0)


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean of independent values with Student's interval."""
    return stratified_interval([values])


def stratified_interval(strata: Iterable[Sequence[float]]) -> Estimate:
    """The mean of the strata's means (all count alike), with an interval for measurement error.

    The standard error joins those of the strata, its degrees of freedom are Welch's and
    Satterthwaite's. How far the strata lie apart is not in it: see :func:`spread`.
    """
    filled = [list(values) for values in strata if values]
    if not filled:
        return NOTHING
    count = sum(map(len, filled))
    centre = fmean(fmean(values) for values in filled)
    if any(len(values) < 2 for values in filled):
        return Estimate(centre, -math.inf, math.inf, count)
    parts = [variance(values) / len(values) / len(filled) ** 2 for values in filled]
    total = sum(parts)
    if total == 0:
        return Estimate(centre, centre, centre, count)
    freedom = total**2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, filled, strict=True)
    )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return Estimate(centre, centre - half, centre + half, count)


def spread(values: Sequence[float]) -> float:
    """The standard deviation; 0 for fewer than two values."""
    return stdev(values) if len(values) > 1 else 0.0


def gain_interval(strata: Iterable[BlockValues]) -> Estimate:
    """``1 - exp(mean log ratio)`` with its interval; each stratum holds a seed's log ratios."""
    found = stratified_interval(_known(blocks) for blocks in strata)
    if found is NOTHING:
        return NOTHING
    return Estimate(
        -math.expm1(found.value), -math.expm1(found.high), -math.expm1(found.low), found.blocks
    )


def difference_interval(pairs: Iterable[tuple[BlockValues, BlockValues]]) -> Estimate:
    """Gain of ours minus gain of a peer, from (ours, peer) log ratios of each seed.

    Both were measured in the same blocks, so what is averaged is the log ratio of ours to the peer,
    *r*, in which the defaults' own noise is not: the difference is ``ratio of the peer * (1 -
    exp(r))``, positive where ours is faster. The interval is that of *r* at the peer's ratio.
    """
    against: list[list[float]] = []
    levels: list[list[float]] = []
    for ours, peer in pairs:
        both = [(a, b) for a, b in zip(ours, peer, strict=True) if a is not None and b is not None]
        against.append([a - b for a, b in both])
        levels.append([b for _, b in both])
    found = stratified_interval(against)
    if found is NOTHING:
        return NOTHING
    level = math.exp(stratified_interval(levels).value)
    low, value, high = (-level * math.expm1(r) for r in (found.high, found.value, found.low))
    return Estimate(value, low, high, found.blocks)


def _known(values: BlockValues) -> list[float]:
    return [value for value in values if value is not None]


def best_of(gains: Mapping[str, float]) -> str | None:
    """The name with the highest gain; None where none is a number. Ties go to the first."""
    known = {name: gain for name, gain in gains.items() if not math.isnan(gain)}
    return max(known, key=lambda name: known[name]) if known else None


def regret_so_far(objectives: Sequence[float]) -> list[float]:
    """How far each objective lies above the best that was known by then, the defaults' 1 included.

    What a run can know about itself; at least 0.
    """
    best, found = 1.0, []
    for objective in objectives:
        best = min(best, objective)
        found.append(objective - best)
    return found


def cumulative_regret(objectives: Iterable[float], best: float) -> float:
    """``sum(objective - best)``: what the way there cost against the best answer from the start.

    ``best`` is the lowest index that any method's final configuration of the cell came to, or 1.
    Single terms may be negative by chance and are not cut off, which would add up noise.
    """
    return sum(objective - best for objective in objectives)


def is_harmful(objective: float) -> bool:
    """Whether a trial was worse than the defaults by more than :data:`HARM`."""
    return objective > 1 + HARM
