"""Off-policy evaluation of a knob policy against the one that it would replace.

Doubly robust (Dudik, Langford, Li 2011, https://arxiv.org/abs/1103.4601) with a kernel over
continuous actions (Kallus, Zhou 2018, https://arxiv.org/abs/1802.06037) and self-normalised
weights: what critics that never saw the held-out rows expect of both policies, corrected by how
wrong they were on held-out rows with configurations near a policy's own. docs/policy-learning.md
has every formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from backend.gate import Interval
from backend.policy.knob_policy import Critics
from backend.policy.recorded_trials import FOLDS, FloatArray, IntArray, RecordedTrials

BANDWIDTH = 0.15
"""Configurations are alike as far as critics expect their logarithms of latency to differ by less
than this, knob by knob, as a root of the sum of squares."""
FAR_SPREADS = 3.0
"""Whatever critics think: values so many standard deviations of the recorded ones apart are not
alike, nor are configurations as far apart as two recorded ones are on average."""
STILL = 0.05
"""The least standard deviation of a coordinate that counts as tried."""
PROBE_STEP, PROBES = 0.25, 100
"""Encoded units by which a coordinate is moved to see what critics make of it, at so many rows."""
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

    def by_member(actions: FloatArray) -> FloatArray:
        return np.asarray(critics.gains(data.states, actions)[folds, :, rows].T)

    difference = by_member(candidate) - by_member(incumbent)
    surprise = data.gains - by_member(data.actions)
    for episode in np.unique(data.episodes):
        own = data.episodes == episode
        weights = (data.qualities * ~data.censored)[own] + 1e-9
        surprise[:, own] -= (surprise[:, own] @ weights / weights.sum())[:, None]
    # A bound that lies above what was expected is no surprise.
    surprise = np.where(data.censored, np.minimum(surprise, 0.0), surprise)
    scales = _scales(data, critics)
    new = _weights(data, folds, candidate, scales)
    old = _weights(data, folds, incumbent, scales)
    effective = float(new.sum() ** 2 / np.square(new).sum()) if new.any() else 0.0
    clusters = _clusters(data, folds)
    belongs = np.eye(int(clusters.max()) + 1)[clusters]
    shares = [(weights * values @ belongs, weights @ belongs) for weights, values in (
        (data.qualities, difference), (new, surprise), (old, -surprise),
    )]  # fmt: skip
    interval = _bootstrap(shares, alpha, np.random.default_rng(seed))
    return Estimate(interval, effective / max(len(data), 1), effective, len(data))


def _clusters(data: RecordedTrials, folds: IntArray) -> IntArray:
    """Rows that may resemble each other: whole episodes, or their blocks of time."""
    _, clusters = np.unique(data.episodes * FOLDS + folds, return_inverse=True)
    return np.asarray(clusters.ravel(), dtype=np.int64)


def _bootstrap(
    parts: Sequence[tuple[FloatArray, FloatArray]], alpha: float, rng: np.random.Generator
) -> Interval | None:
    """Student's interval with the standard error of paired resampling of clusters and critics.

    Args:
        parts: weighted sums ``(members, clusters)`` and weights ``(clusters,)``: the gain is the
            sum of the parts' weighted means.
        alpha: chance that a side misses.
        rng: draws.
    """
    members, count = parts[0][0].shape
    if count < MIN_CLUSTERS:
        return None
    drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=BOOTSTRAPS)
    judges = rng.integers(members, size=BOOTSTRAPS)
    gains, gain = np.zeros(BOOTSTRAPS), 0.0
    for sums, weights in parts:
        mass = drawn @ weights
        total = (drawn * sums[judges]).sum(axis=1)
        gains += np.divide(total, mass, out=np.zeros(BOOTSTRAPS), where=mass > 0.0)
        gain += float(sums.mean(axis=0).sum() / weights.sum()) if weights.any() else 0.0
    quantile = float(stats.t.ppf(1.0 - alpha, count - 1))
    # The bootstrap's variance divides by n, not by n - 1.
    margin = quantile * gains.std() * (count / (count - 1)) ** 0.5
    return Interval.of_log(-gain, margin)


def _scales(data: RecordedTrials, critics: Critics) -> FloatArray:
    """What one encoded unit of each coordinate means, in bandwidths: ``(folds, width)``."""
    width, some = data.actions.shape[1], slice(None, None, max(1, len(data) // PROBES))
    states, actions = data.states[some], data.actions[some]
    slopes = np.empty((FOLDS, width))
    for column in range(width):
        step = np.zeros(width)
        step[column] = PROBE_STEP
        up = critics.gains(states, actions + step)[:FOLDS].mean(axis=1)
        down = critics.gains(states, actions - step)[:FOLDS].mean(axis=1)
        slopes[:, column] = np.sqrt(np.square((up - down) / (2 * PROBE_STEP)).mean(axis=1))
    # Two independent draws differ by the root of twice the width, in standard deviations.
    return np.asarray(np.maximum(slopes / BANDWIDTH, 1.0 / (_spread(data) * (2 * width) ** 0.5)))


def _spread(data: RecordedTrials) -> FloatArray:
    return np.asarray(np.maximum(data.actions.std(axis=0), STILL))


def _weights(
    data: RecordedTrials, folds: IntArray, wanted: FloatArray, scales: FloatArray
) -> FloatArray:
    """How much each row tells about a policy: kernel over the density of what was tried.

    No propensity is recorded (Level 0 chooses by its critics), so the density of its choices in
    an episode is estimated with the same kernel.
    """
    weights = np.zeros(len(data))
    moved = np.abs(data.actions - wanted) / (FAR_SPREADS * _spread(data))
    tried_so_far = moved.max(axis=1) <= 1.0
    for fold in np.unique(folds):
        for episode in np.unique(data.episodes[folds == fold]):
            own = np.flatnonzero((folds == fold) & (data.episodes == episode))
            tried = data.actions[own] * scales[fold]
            near = _kernel(tried, wanted[own] * scales[fold]) * tried_so_far[own]
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
