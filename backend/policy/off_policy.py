"""Off-policy evaluation of a knob policy against the one that it would replace.

Doubly robust (Dudik, Langford, Li 2011, https://arxiv.org/abs/1103.4601) with a kernel over
continuous actions (Kallus, Zhou 2018, https://arxiv.org/abs/1802.06037) and self-normalised
weights: what critics that never saw the held-out rows expect of both policies, corrected by how
wrong they were on held-out rows with configurations near a policy's own. docs/policy-learning.md
has every formula.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from backend.gate import Interval
from backend.policy.knob_policy import Critics
from backend.policy.recorded_trials import FOLDS, FloatArray, IntArray, RecordedTrials

BANDWIDTH = 0.15
"""Configurations are alike as far as critics expect their logarithms of latency to differ by less
than this, knob by knob, as a root of the sum of squares."""
FAR_SPREADS = 4.0
"""However little critics care: so many standard deviations of the recorded values are far."""
STILL = 0.05
"""The least standard deviation of a coordinate that counts as tried."""
PROBE_STEP = 0.25
"""Encoded units by which a coordinate is moved to see what critics make of it."""
BOOTSTRAPS = 2000
MIN_CLUSTERS = 5


@dataclass(frozen=True)
class Estimate:
    """What a policy is estimated to gain over another, from rows that it never saw.

    Args:
        interval: relative change of latency (-0.1: 10 % less) and its bounds; None where there
            are too few independent parts to tell.
        coverage: effective sample size of the policy's weights / rows, in [0, 1].
        effective: that effective sample size.
        rows: held-out rows.
    """

    interval: Interval | None
    coverage: float
    effective: float
    rows: int


def estimate(
    data: RecordedTrials,
    folds: IntArray,
    critics: Critics,
    candidate: FloatArray,
    incumbent: FloatArray,
    *,
    alpha: float,
    seed: int,
) -> Estimate:
    """Compare two policies on every row, by critics that never saw its fold.

    Args:
        data: what was recorded.
        folds: which fold holds each row out.
        critics: of each fold.
        candidate, incumbent: what each policy would do in each row's state, ``(n, width)``.
        alpha: chance that a side of the interval misses.
        seed: of the bootstrap.
    """
    rows = np.arange(len(data))
    expected = critics.gains(data.states, data.actions)[folds, rows]
    hoped = critics.gains(data.states, candidate)[folds, rows]
    stood = critics.gains(data.states, incumbent)[folds, rows]
    surprise = data.gains - expected
    for episode in np.unique(data.episodes):
        own = data.episodes == episode
        weights = (data.qualities * ~data.censored)[own]
        surprise[own] -= np.average(surprise[own], weights=weights + 1e-9)
    # A bound that lies above what was expected is no surprise.
    surprise = np.where(data.censored, np.minimum(surprise, 0.0), surprise)
    scales = _scales(data, folds, critics)
    new = _weights(data, folds, candidate, scales)
    old = _weights(data, folds, incumbent, scales)
    effective = float(new.sum() ** 2 / np.square(new).sum()) if new.any() else 0.0
    clusters = _clusters(data, folds)
    sums = np.array(
        [
            np.bincount(clusters, values)
            for values in (
                data.qualities * (hoped - stood), data.qualities,
                new * surprise, new, old * surprise, old,
            )
        ]
    )  # fmt: skip
    interval = _bootstrap(sums, alpha, np.random.default_rng(seed))
    return Estimate(interval, effective / max(len(data), 1), effective, len(data))


def _clusters(data: RecordedTrials, folds: IntArray) -> IntArray:
    """Rows that may resemble each other: whole episodes, or their blocks of time."""
    _, clusters = np.unique(data.episodes * FOLDS + folds, return_inverse=True)
    return np.asarray(clusters.ravel(), dtype=np.int64)


def _bootstrap(sums: FloatArray, alpha: float, rng: np.random.Generator) -> Interval | None:
    """Student's interval with the standard error of paired resampling of whole clusters."""
    count = sums.shape[1]
    if count < MIN_CLUSTERS:
        return None
    drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=BOOTSTRAPS)
    gains = _gain(drawn @ sums.T)
    margin = float(stats.t.ppf(1.0 - alpha, count - 1)) * gains.std(ddof=1)
    # Small samples: the bootstrap's variance is that of n, not of n - 1.
    margin *= (count / (count - 1)) ** 0.5
    return Interval.of_log(-float(_gain(sums.sum(axis=1)[None])[0]), margin)


def _gain(sums: FloatArray) -> FloatArray:
    """Expected difference, plus the candidate's mean surprise, less the incumbent's."""
    over = [
        np.divide(top, low, out=np.zeros_like(top), where=low > 0.0)
        for top, low in ((sums[:, i], sums[:, i + 1]) for i in (0, 2, 4))
    ]
    return np.asarray(over[0] + over[1] - over[2])


def _scales(data: RecordedTrials, folds: IntArray, critics: Critics) -> FloatArray:
    """What one encoded unit of each coordinate means, in bandwidths: ``(folds, width)``."""
    width = data.actions.shape[1]
    slopes = np.empty((FOLDS, width))
    for column in range(width):
        step = np.zeros(width)
        step[column] = PROBE_STEP
        up = critics.gains(data.states, data.actions + step)[:FOLDS]
        down = critics.gains(data.states, data.actions - step)[:FOLDS]
        slopes[:, column] = np.sqrt(np.square((up - down) / (2 * PROBE_STEP)).mean(axis=1))
    spread = np.maximum(data.actions.std(axis=0), STILL)
    return np.asarray(np.maximum(slopes / BANDWIDTH, 1.0 / (FAR_SPREADS * spread)))


def _weights(
    data: RecordedTrials, folds: IntArray, wanted: FloatArray, scales: FloatArray
) -> FloatArray:
    """How much each row tells about a policy: kernel over the density of what was tried.

    No propensity is recorded (Level 0 chooses by its critics), so the density of its choices in
    an episode is estimated with the same kernel.
    """
    weights = np.zeros(len(data))
    for fold in np.unique(folds):
        for episode in np.unique(data.episodes[folds == fold]):
            own = np.flatnonzero((folds == fold) & (data.episodes == episode))
            tried = data.actions[own] * scales[fold]
            near = _kernel(tried, wanted[own] * scales[fold])
            among = _kernels(tried) @ data.qualities[own]
            weights[own] = data.qualities[own] * near * len(own) / np.maximum(among, 1e-9)
    return weights


def _kernel(left: FloatArray, right: FloatArray) -> FloatArray:
    """Epanechnikov's kernel of the distances, row by row: nothing beyond one bandwidth."""
    return np.asarray(np.maximum(1.0 - np.square(left - right).sum(axis=1), 0.0))


def _kernels(points: FloatArray) -> FloatArray:
    """The same of all pairs, shape ``(n, n)``."""
    squares = np.square(points).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2.0 * points @ points.T
    return np.asarray(np.maximum(1.0 - np.maximum(distances, 0.0), 0.0))
