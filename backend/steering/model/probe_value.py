"""What a probe promises: expected savings and costs of log-normal latencies with time-outs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]
LEAST = 1e-12


def outcome(
    mean: FloatArray, spread: FloatArray, bound: FloatArray, timeout_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """P(L < T | L > bound) and E[L 1(L < T) | L > bound], seconds.

    The logarithm of the latency L (seconds) is normal with ``mean`` and ``spread``; ``bound`` is
    the logarithm of a time-out that it passed, -inf where there was none. Shapes broadcast.
    """
    whole_s = np.exp(np.minimum(mean + 0.5 * spread**2, 50.0))
    low, high = (bound - mean) / spread, (np.log(timeout_s) - mean) / spread
    left = np.maximum(ndtr(-low), LEAST)
    ends: FloatArray = np.clip((ndtr(high) - ndtr(low)) / left, 0.0, 1.0)
    seconds = whole_s * np.maximum(ndtr(high - spread) - ndtr(low - spread), 0.0) / left
    return ends, np.minimum(seconds, ends * timeout_s)


def best_timeout(
    mean: FloatArray,
    spread: FloatArray,
    bound: FloatArray,
    best_s: FloatArray,
    *,
    shares: tuple[float, ...],
    retry: float,
    overhead: float,
    patience: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For each cell the best score over the time-outs, that time-out, and its return.

    With time-out T: gain = E[(best - L) 1(L < T)], cost = E[min(L, T)] + overhead x best;
    score = gain / cost^patience, return = gain / cost (saved seconds of one execution of the
    workload for each second of exploration).

    Args:
        mean, spread, bound: see :func:`outcome`, shape ``(queries, hint sets)``.
        best_s: the fastest measured so far, shape ``(queries, 1)``.
        shares: time-outs considered, as shares of ``best_s``.
        retry: a time-out must be longer than the one passed before by this factor.
        overhead, patience: see above.
    """
    score = np.full(mean.shape, -1.0)
    chosen_s, rate = np.zeros(mean.shape), np.zeros(mean.shape)
    for share in shares:
        timeout_s = share * best_s
        ends, seconds = outcome(mean, spread, bound, timeout_s)
        gain = np.maximum(best_s * ends - seconds, 0.0)
        cost = seconds + timeout_s * (1.0 - ends) + overhead * best_s
        worth = gain / cost**patience
        better = (np.log(timeout_s) >= bound + np.log(retry)) & (worth > score)
        score = np.where(better, worth, score)
        chosen_s = np.where(better, timeout_s, chosen_s)
        rate = np.where(better, gain / cost, rate)
    return score, chosen_s, rate
