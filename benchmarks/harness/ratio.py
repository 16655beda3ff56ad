"""A ratio of two arms with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy import stats


@dataclass(frozen=True)
class Ratio:
    """One arm over the other: the geometric mean over blocks, and its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    blocks: int

    @classmethod
    def of(cls, name: str, log_ratios: Sequence[float]) -> Ratio:
        """From one log ratio a block (Student's t)."""
        centre, count = fmean(log_ratios), len(log_ratios)
        half = math.inf
        if count > 1:
            spread = stdev(log_ratios) / math.sqrt(count)
            half = float(stats.t.ppf(0.975, count - 1)) * spread
        return cls(name, math.exp(centre), math.exp(centre - half), math.exp(centre + half), count)
