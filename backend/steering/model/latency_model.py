"""What is believed about latencies that nobody has measured yet.

A Bayesian low-rank model of the matrix queries × hint sets. With ``y`` the logarithm of a cell's
latency over the default's, ``x`` the centred logarithm of the default's latency:

    y[q, h] = a[h] + b[h] x[q] + u[q] · v[h] + w · f[q, h] + e[q, h]

``a + b x`` is what a hint set does to short and to long queries, ``u · v`` what alike queries
share, ``f`` are plan features where they are known, ``e`` is the cell's own. Fitted by coordinate
ascent on Gaussian posteriors of ``u[q]`` and ``(a, b, v)[h]`` (variational Bayes: Lim & Teh 2007);
a time-out is an observation "greater than", taken in through the curvature of its likelihood.
Formulas and what was tried: docs/steering-explorer.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
FIXED = 2
"""Coefficients of a hint set that belong to known regressors: 1 and x."""
TINY = 1e-9


@dataclass(frozen=True)
class LatencyModelSettings:
    """Priors, in logarithms of latency ratios; the same for every workload.

    Args:
        rank: width of ``u`` and ``v``.
        level, level_spread: of ``a`` over hint sets.
        slope, slope_spread: of ``b``; -1 would be a latency that does not depend on the default's.
        correlation: of ``a`` and ``b``: what harms short queries most does most for long ones,
            whose default plan is likely to be a mistake.
        shared: mean of the first coordinate of ``v``: what a query has in common under all hint
            sets (its default plan was lucky or not).
        factor_spread: of the whole of ``u · v``.
        noise: variance of ``e`` before anything was measured; it stays within ``noise_range``.
        noise_weight: how many observations that counts for.
        prior_weight: how many hint sets the priors count for.
        tail: degrees of freedom of Student's t for ``e``; 0 for normal noise.
        long_spread: by how much ``u`` and ``e`` spread more with each unit of positive ``x``.
    """

    rank: int = 4
    level: float = 0.7
    level_spread: float = 0.9
    slope: float = -0.35
    slope_spread: float = 0.33
    correlation: float = -0.8
    shared: float = 0.3
    factor_spread: float = 0.6
    noise: float = 0.12
    noise_range: tuple[float, float] = (0.02, 0.2)
    noise_weight: float = 60.0
    prior_weight: float = 6.0
    tail: float = 4.0
    long_spread: float = 0.35


class LatencyModel:
    """Beliefs about every cell, from cells measured and cells timed out.

    Args:
        default_latency_s: shape ``(queries,)``, seconds, positive.
        hint_set_count: columns; column 0 is the default and holds y = 0.
        rng: draws the first loadings.
        settings: priors.
        plan_features: shape ``(queries, hint sets, features)``, standardised, 0 where unknown.
    """

    def __init__(
        self,
        default_latency_s: FloatArray,
        hint_set_count: int,
        rng: np.random.Generator,
        settings: LatencyModelSettings | None = None,
        plan_features: FloatArray | None = None,
    ) -> None:
        self.settings = s = settings or LatencyModelSettings()
        log_default = np.log(default_latency_s)
        x = log_default - log_default.mean()
        queries, width = len(x), FIXED + s.rank
        shape = (queries, hint_set_count)
        self._fixed = np.stack([np.ones(queries), x], axis=1)
        self._spread = 1.0 + s.long_spread * np.maximum(x, 0.0)
        self._features = plan_features
        self._feature_part = np.zeros(shape)

        self.measured = np.zeros(shape, dtype=bool)
        self.bounds = np.full(shape, -np.inf)
        self._values = np.zeros(shape)
        self._precision = np.zeros(shape)
        self._targets = np.zeros(shape)

        self._factors = np.zeros((queries, s.rank))
        self._factor_cov = np.eye(s.rank) * self._spread[:, None, None] ** 2
        self._first_mean = np.zeros(width)
        self._first_mean[:FIXED] = s.level, s.slope
        self._first_mean[FIXED] = s.shared
        both = s.correlation * s.level_spread * s.slope_spread
        self._first_cov = np.eye(width) * s.factor_spread**2 / s.rank
        self._first_cov[:FIXED, :FIXED] = [[s.level_spread**2, both], [both, s.slope_spread**2]]
        self._prior_mean, self._prior_cov = self._first_mean.copy(), self._first_cov.copy()
        self._loadings = np.tile(self._prior_mean, (hint_set_count, 1))
        self._loadings[:, FIXED:] += 0.1 * rng.normal(size=(hint_set_count, s.rank))
        self._loading_cov = np.tile(self._prior_cov, (hint_set_count, 1, 1))
        self._noise = np.full(hint_set_count, s.noise)
        self._columns = np.arange(hint_set_count)
        self._latent_moments = np.zeros((hint_set_count, s.rank**2))
        self._cov_flat = np.zeros((hint_set_count, width**2))
        self._cross_flat = np.zeros((hint_set_count, s.rank * FIXED))
        self._remember(self._columns)

    def observe(self, query: int, hint_sets: IntArray, log_ratio: float) -> None:
        """A measured cell (or several of one plan)."""
        self.measured[query, hint_sets] = True
        self.bounds[query, hint_sets] = -np.inf
        self._values[query, hint_sets] = log_ratio

    def bound(self, query: int, hint_sets: IntArray, log_ratio: float) -> None:
        """A cell that was stopped: its log ratio is greater."""
        self.bounds[query, hint_sets] = np.maximum(self.bounds[query, hint_sets], log_ratio)

    def predict(self, rows: IntArray, columns: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of log ratios, shape ``(rows, columns)`` each.

        For a timed-out cell: before its own time-out is taken into account; the caller cuts the
        distribution off at ``bounds``.
        """
        mean, variance = self._moments(rows, columns)
        cells = np.ix_(rows, columns)
        stopped = np.isfinite(self.bounds[cells])
        # Take the cell's own contribution out of the posterior; never more than half of it.
        own = np.where(stopped, np.minimum(self._precision[cells] * variance, 0.5), 0.0)
        mean = (mean - own * self._targets[cells]) / (1.0 - own)
        variance = variance / (1.0 - own)
        return mean, variance + self._noise_of(rows)[:, columns]

    def lesson(self, rows: IntArray, weight: FloatArray) -> FloatArray:
        """How much measuring a cell would teach about its hint set, shape ``(rows, hint sets)``.

        The expected fall of the variance that the hint set's uncertain loadings cause in
        predictions, averaged over all queries with ``weight`` (non-negative, shape ``(queries,)``).
        """
        share = weight / weight.sum()
        known = np.concatenate([self._fixed, self._factors], axis=1)
        wanted = known.T @ (known * share[:, None])
        wanted[FIXED:, FIXED:] += np.einsum("q,qrs->rs", share, self._factor_cov)
        seen = known[rows]
        reach = np.einsum("hij,qj->qhi", self._loading_cov, seen)
        fall = np.einsum("qhi,ij,qhj->qh", reach, wanted, reach, optimize=True)
        _, variance = self._moments(rows, self._columns)
        lesson: FloatArray = fall / (variance + self._noise_of(rows))
        return lesson

    def update(self, query: int, hint_sets: IntArray) -> None:
        """Take in what is new about one query and what it says of the hint sets it tried."""
        row = np.array([query])
        for _ in range(2):
            self._sites(row)
            self._update_factors(row)
        self._sites(row)
        rows = np.flatnonzero((self._precision[:, hint_sets] > 0.0).any(axis=1))
        self._update_loadings(rows, hint_sets)

    def refit(self, sweeps: int) -> None:
        """Everything anew: queries, hint sets, priors, noise."""
        rows = np.flatnonzero((self.measured | np.isfinite(self.bounds)).any(axis=1))
        for _ in range(sweeps):
            self._sites(rows)
            self._update_factors(rows)
            self._sites(rows)
            self._update_loadings(rows, self._columns)
            self._update_features(rows)
            self._update_priors(rows)
        self._sites(rows)
        self._update_factors(rows)

    # -- the parts of a sweep -----------------------------------------------------------------

    def _noise_of(self, rows: IntArray) -> FloatArray:
        noise: FloatArray = self._noise * (self._spread[rows] ** 2)[:, None]
        return noise

    def _remember(self, columns: IntArray) -> None:
        """Second moments of the loadings, flattened: used at every update of a query."""
        latent, cov = self._loadings[columns, FIXED:], self._loading_cov[columns]
        outer = latent[:, :, None] * latent[:, None, :] + cov[:, FIXED:, FIXED:]
        self._latent_moments[columns] = outer.reshape(len(columns), -1)
        self._cov_flat[columns] = cov.reshape(len(columns), -1)
        self._cross_flat[columns] = cov[:, FIXED:, :FIXED].reshape(len(columns), -1)

    def _moments(self, rows: IntArray, columns: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance without the cells' own noise."""
        known = np.concatenate([self._fixed[rows], self._factors[rows]], axis=1)
        mean = known @ self._loadings[columns].T + self._feature_part[np.ix_(rows, columns)]
        outer = (known[:, :, None] * known[:, None, :]).reshape(len(rows), -1)
        variance = outer @ self._cov_flat[columns].T
        variance += self._factor_cov[rows].reshape(len(rows), -1) @ self._latent_moments[columns].T
        return mean, np.maximum(variance, TINY)

    def _sites(self, rows: IntArray) -> None:
        """Each observation as a Gaussian: its precision and where it pulls to."""
        mean, variance = self._moments(rows, self._columns)
        noise = self._noise_of(rows)
        measured = self.measured[rows]
        targets = np.where(measured, self._values[rows], 0.0)
        weight = np.ones_like(mean)
        if tail := self.settings.tail:
            weight = (tail + 1.0) / (tail + ((targets - mean) ** 2 + variance) / noise)
        precision = np.where(measured, weight / noise, 0.0)
        i, j = np.nonzero(np.isfinite(self.bounds[rows]))
        if len(i):
            # log Phi(z) of a time-out is concave in the mean: its slope and curvature make a site.
            scale = np.sqrt(noise[i, j])
            z = (mean[i, j] - self.bounds[rows[i], j]) / scale
            slope = np.exp(-0.5 * z * z - 0.5 * np.log(2.0 * np.pi) - log_ndtr(z))
            curvature = np.maximum(slope * (slope + z), 1e-8)
            precision[i, j] = curvature / noise[i, j]
            targets[i, j] = mean[i, j] + slope / curvature * scale
        self._precision[rows], self._targets[rows] = precision, targets

    def _update_factors(self, rows: IntArray) -> None:
        rank, count = self.settings.rank, len(rows)
        precision, fixed = self._precision[rows], self._fixed[rows]
        prior = np.eye(rank) / (self._spread[rows] ** 2)[:, None, None]
        rest = self._targets[rows] - self._feature_part[rows] - fixed @ self._loadings[:, :FIXED].T
        information = (precision @ self._latent_moments).reshape(count, rank, rank) + prior
        pull = (precision * rest) @ self._loadings[:, FIXED:]
        cross = (precision @ self._cross_flat).reshape(count, rank, FIXED)
        pull -= np.einsum("qrf,qf->qr", cross, fixed)
        self._factor_cov[rows] = np.linalg.inv(information)
        self._factors[rows] = np.einsum("qrs,qs->qr", self._factor_cov[rows], pull)

    def _update_loadings(self, rows: IntArray, columns: IntArray) -> None:
        width = FIXED + self.settings.rank
        known = np.concatenate([self._fixed[rows], self._factors[rows]], axis=1)
        outer = known[:, :, None] * known[:, None, :]
        cells = np.ix_(rows, columns)
        precision = self._precision[cells]
        outer[:, FIXED:, FIXED:] += self._factor_cov[rows]
        prior = np.linalg.inv(self._prior_cov)
        information = (precision.T @ outer.reshape(len(rows), -1)).reshape(-1, width, width) + prior
        rest = self._targets[cells] - self._feature_part[cells]
        pull = (precision * rest).T @ known + prior @ self._prior_mean
        cov = np.linalg.inv(information)
        self._loading_cov[columns] = cov
        self._loadings[columns] = np.einsum("hij,hj->hi", cov, pull)
        self._remember(columns)

    def _update_features(self, rows: IntArray) -> None:
        """Ridge regression of what is left on the plan features."""
        if self._features is None:
            return
        seen = self._features[rows]
        mean, _ = self._moments(rows, self._columns)
        rest = self._targets[rows] - (mean - self._feature_part[rows])
        precision = self._precision[rows]
        information = np.einsum("qhf,qh,qhg->fg", seen, precision, seen, optimize=True)
        information += np.eye(seen.shape[2]) / self.settings.factor_spread**2
        weights = np.linalg.solve(information, np.einsum("qhf,qh->f", seen, precision * rest))
        self._feature_part = self._features @ weights

    def _update_priors(self, rows: IntArray) -> None:
        """Empirical Bayes: what hint sets have in common, and how large the cells' own part is."""
        s = self.settings
        tried = np.flatnonzero((self._precision[rows] > 0.0).any(axis=0))
        total = s.prior_weight + len(tried)
        # Only a, b and the shared coordinate have a mean; the others have no sign of their own.
        tied = slice(0, FIXED + 1)
        sums = self._loadings[tried].sum(axis=0)
        self._prior_mean[tied] = ((s.prior_weight * self._first_mean + sums) / total)[tied]
        apart = self._loadings[tried] - self._prior_mean
        scatter = apart.T @ apart + self._loading_cov[tried].sum(axis=0)
        cov = (s.prior_weight * self._first_cov + scatter) / total
        self._prior_cov[:FIXED, :FIXED] = cov[:FIXED, :FIXED]

        mean, variance = self._moments(rows, self._columns)
        measured = self.measured[rows]
        squares = (self._values[rows] - mean) ** 2 + variance
        weighed = self._precision[rows] * self._noise_of(rows) * squares
        weighed /= (self._spread[rows] ** 2)[:, None]
        own = np.where(measured, weighed, 0.0).sum(axis=0)
        seen = measured.sum(axis=0)
        common = (s.noise_weight * s.noise + own.sum()) / (s.noise_weight + seen.sum())
        noise = (s.noise_weight * common + own) / (s.noise_weight + seen)
        self._noise = np.clip(noise, *s.noise_range)
