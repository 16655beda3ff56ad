"""Online normalisation of states, and the ranks that critics learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

FloatArray = NDArray[np.float64]


class RunningNormaliser:
    """Mean and spread of vectors seen so far (Welford's recurrence, one vector at a time).

    Args:
        width: length of the vectors.
        clip: normalised coordinates are clipped to [-clip, clip], so that one wild reading (a
            counter after a reset, say) cannot drown all others.
    """

    def __init__(self, width: int, clip: float = 5.0) -> None:
        self.width = width
        self.clip = clip
        self.count = 0
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)

    def update(self, vector: FloatArray) -> None:
        """Take one raw vector of shape ``(width,)`` into account."""
        self.count += 1
        delta = vector - self.mean
        self.mean = self.mean + delta / self.count
        self.squares = self.squares + delta * (vector - self.mean)

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """Normalise raw vectors of shape ``(..., width)`` to mean 0 and spread 1.

        A coordinate that never varied becomes 0: it carries no information.
        """
        spread = np.sqrt(self.squares / max(self.count, 1))
        varies = spread > 1e-9 * (1.0 + np.abs(self.mean))
        scale = np.where(varies, spread, 1.0)
        normal = np.where(varies, (vectors - self.mean) / scale, 0.0)
        return np.asarray(np.clip(normal, -self.clip, self.clip), dtype=np.float64)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that :meth:`restore` needs."""
        return {
            "count": np.array(self.count),
            "mean": self.mean.copy(),
            "squares": self.squares.copy(),
        }

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from what :meth:`arrays` gave.

        Raises:
            ValueError: the arrays are of another width.
        """
        mean = np.asarray(arrays["mean"], dtype=np.float64)
        squares = np.asarray(arrays["squares"], dtype=np.float64)
        if mean.shape != (self.width,) or squares.shape != (self.width,):
            raise ValueError(f"normaliser of width {mean.shape}, expected {self.width}")
        self.count = int(arrays["count"])
        self.mean, self.squares = mean, squares


def rank_gumbel(values: FloatArray) -> FloatArray:
    """Replace values by the standardised Gumbel quantiles of their ranks; ties share one.

    The critics then see targets of mean about 0 and spread about 1 whatever the unit, the skew or
    the outliers of the objective, and those among the best lie further apart than those among the
    worst: how bad a bad configuration is matters little. Blom's offsets; the quantile function is
    ``-log(-log(p))``, see
    https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.gumbel_r.html.
    """
    if values.size == 0:
        return values
    shares = (rankdata(values) - 0.375) / (values.size + 0.25)
    quantiles = -np.log(-np.log(shares))
    return np.asarray((quantiles - np.euler_gamma) * math.sqrt(6.0) / math.pi, dtype=np.float64)


def standardised(values: FloatArray) -> FloatArray:
    """Values with mean 0 and spread 1; what is infinite counts as the worst finite one."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.zeros_like(values)
    filled = np.where(np.isfinite(values), values, finite.min())
    spread = filled.std()
    return np.asarray((filled - filled.mean()) / (spread if spread > 0.0 else 1.0))
