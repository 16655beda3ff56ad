"""Gaussian process regression of recorded log latency indexes on knobs and workload.

A workload's answer to a knob mostly adds up over the knobs, and workloads resemble each other, so
the covariance of two measurements is a sum over the knobs, shared by all workloads, plus a share
that each workload has for itself, with an interaction of all knobs in it:

    k((x, w), (x', w')) = (1 + own [w = w']) sum_j a_j exp(-(x_j - x'_j)^2 / 2 l^2)
                          + joint [w = w'] exp(-|x - x'|^2 / 2 d l^2) + offset [w = w']

The ``a_j`` (which knobs matter), ``own``, ``joint``, ``offset`` and the noise are those of the
highest marginal likelihood (Rasmussen and Williams, 2006, chapter 5, gaussianprocess.org/gpml).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]
LENGTH = 0.8
"""Of the covariance, in encoded units (a knob's range is 2)."""
LEAST_NOISE, MOST_NOISE = 0.01, 0.3
"""Standard deviations of a log index."""
ITERATIONS = 60


class Regression:
    """The fitted process.

    Args:
        actions: encoded configurations, shape ``(rows, width)``.
        groups: the number of each row's workload.
        log_indexes: shape ``(rows,)``, natural logarithms.

    Attributes:
        noise: standard deviation of one measurement.

    Raises:
        ValueError: there are fewer than three rows.
    """

    def __init__(
        self, actions: FloatArray, groups: NDArray[np.int64], log_indexes: FloatArray
    ) -> None:
        if len(actions) < 3:
            raise ValueError(f"a regression needs at least 3 rows, not {len(actions)}")
        self._actions, self._groups = actions, groups
        self._width = actions.shape[1]
        squares = (actions[:, None, :] - actions[None, :, :]) ** 2
        each = np.exp(-squares / (2.0 * LENGTH**2)).transpose(2, 0, 1)
        joint = np.exp(-squares.sum(axis=2) / (2.0 * self._width * LENGTH**2))
        same = (groups[:, None] == groups[None, :]).astype(np.float64)
        spread = max(float(np.std(log_indexes)), 0.05)
        start = np.log(
            [*[spread**2 / self._width] * self._width, 0.5, 0.3 * spread**2, 0.1 * spread**2,
             (0.2 * spread) ** 2]
        )  # fmt: skip

        def loss(theta: FloatArray) -> tuple[float, FloatArray]:
            """Negative log posterior and its gradient: likelihood, and a wide prior at start."""
            a, own, join, offset, noise = _parts(theta, self._width)
            shared = np.tensordot(a, each, axes=1)
            covariance = (1.0 + own * same) * shared + same * (join * joint + offset)
            covariance[np.diag_indices_from(covariance)] += noise + 1e-8
            try:
                factor = cho_factor(covariance, lower=True)
            except np.linalg.LinAlgError:
                return 1e10, np.zeros_like(theta)
            alpha = cho_solve(factor, log_indexes)
            inverse = cho_solve(factor, np.eye(len(log_indexes)))
            value = 0.5 * float(log_indexes @ alpha) + float(np.log(np.diag(factor[0])).sum())
            pull = inverse - np.outer(alpha, alpha)  # 2 d(loss)/d(covariance)
            scaled = pull * (1.0 + own * same)
            gradient = np.array(
                [
                    *(0.5 * a * np.tensordot(each, scaled, axes=2)),
                    0.5 * own * float((pull * same * shared).sum()),
                    0.5 * join * float((pull * same * joint).sum()),
                    0.5 * offset * float((pull * same).sum()),
                    0.5 * noise * float(np.trace(pull)),
                ]
            )
            away = (theta - start) / 3.0
            return value + 0.5 * float(away @ away), gradient + away / 3.0

        limits: list[tuple[float | None, float | None]] = [(-14.0, 4.0)] * (self._width + 3)
        limits.append((2.0 * math.log(LEAST_NOISE), 2.0 * math.log(MOST_NOISE)))
        start[-1] = float(np.clip(start[-1], *limits[-1]))
        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=limits,
            options={"maxiter": ITERATIONS},
        )  # fmt: skip
        self._weights, self._own, self._joint, self._offset, noise = _parts(found.x, self._width)
        self.noise = math.sqrt(noise)
        shared = np.tensordot(self._weights, each, axes=1)
        covariance = (1.0 + self._own * same) * shared + same * (self._joint * joint + self._offset)
        covariance[np.diag_indices_from(covariance)] += noise + 1e-8
        self._alpha = cho_solve(cho_factor(covariance, lower=True), log_indexes)

    def predict(self, actions: FloatArray, group: int) -> FloatArray:
        """The expected log index of each encoded configuration in a workload, ``(rows,)``."""
        squares = (actions[:, None, :] - self._actions[None, :, :]) ** 2
        shared = np.exp(-squares / (2.0 * LENGTH**2)) @ self._weights
        joint = np.exp(-squares.sum(axis=2) / (2.0 * self._width * LENGTH**2))
        same = (self._groups == group)[None, :]
        covariance = (1.0 + self._own * same) * shared + same * (self._joint * joint + self._offset)
        return np.asarray(covariance @ self._alpha, dtype=np.float64)


def _parts(theta: FloatArray, width: int) -> tuple[FloatArray, float, float, float, float]:
    values = np.exp(theta)
    return values[:width], *(float(value) for value in values[width:])  # type: ignore[return-value]
