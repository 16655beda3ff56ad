"""Intervals of the tables: pure functions on numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 20_000


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """With one digit."""
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of 0."""
        return self.low > 0 or self.high < 0


def bootstrap_mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean with its percentile bootstrap interval.

    Raises:
        ValueError: no value.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.size == 0:
        raise ValueError("no value to average")
    rng = np.random.default_rng(seed)
    means = rng.choice(found, (RESAMPLES, found.size)).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(found.mean()), float(low), float(high))


def rate_interval(successes: int, trials: int) -> tuple[float, float]:
    """Clopper's and Pearson's exact two-sided 95 % interval of a rate."""
    low = float(stats.beta.ppf(0.025, successes, trials - successes + 1)) if successes else 0.0
    high = (
        float(stats.beta.ppf(0.975, successes + 1, trials - successes))
        if successes < trials
        else 1.0
    )
    return low, high
