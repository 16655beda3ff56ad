"""Which (query, hint set) to try next, and for how long at most.

The default plan's latency of every query is known. Each probe runs one query under one hint set
until it ends or its time-out passes; what it costs is the time it ran. The explorer asks for the
probe that promises most saved time for the time spent, learns from the outcome, and serves for
each query the fastest hint set that was *measured*. Definitions: docs/steering-explorer.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from backend.steering.latency_model import (
    FloatArray,
    IntArray,
    LatencyModel,
    LatencyModelSettings,
)

FLOOR_S = 1e-4
"""Latencies below are counted as this: logarithms need it, and nobody gains by less."""
NEVER = -1.0


@dataclass(frozen=True)
class ExplorerSettings:
    """How probes are chosen; the same for every workload.

    Args:
        patience: exponent of the cost in the score. 1 is greed for saved seconds per second; less
            lets larger but costlier savings, which also teach more, come earlier.
        timeout_shares: time-outs considered, as shares of the query's best latency so far.
        overhead: cost that is added to each probe, as a share of the query's best latency: what
            keeps many very short probes from looking cheap.
        retry: a stopped cell is tried again with a time-out longer by this factor at least.
        refit_growth: the model is fitted anew when the number of outcomes has grown by this
            factor; in between, only the query concerned is updated.
        sweeps: of each such fit.
        least_return: expected saving of one execution of the workload per second of exploration
            below which nothing is worth its cost.
        model: priors of the latency model.
    """

    patience: float = 0.7
    timeout_shares: tuple[float, ...] = (0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.67, 1.0)
    overhead: float = 0.03
    lesson_share: float = 0.1
    lesson_start: float = 0.002
    lesson_queries: int = 64
    lesson_timeouts: tuple[float, ...] = (4.0,)
    retry: float = 1.5
    refit_growth: float = 1.1
    sweeps: int = 3
    least_return: float = 1e-4
    model: LatencyModelSettings = field(default_factory=LatencyModelSettings)


@dataclass(frozen=True)
class Probe:
    """One run to be made: this query, under this hint set, stopped after this many seconds."""

    query: int
    hint_set: int
    timeout_s: float


class OfflineExplorer:
    """Chooses probes, learns from their outcomes, serves what was measured fastest.

    Args:
        default_latency_s: measured under the default plan, shape ``(queries,)``, seconds.
        hint_set_count: number of hint sets; 0 is the default.
        seed: the same seed and outcomes give the same probes.
        settings: how probes are chosen.
        plan_ids: shape ``(queries, hint_set_count)``, whole numbers, where EXPLAIN has told which
            hint sets of a query lead to the same plan: equal numbers in a row are one arm, tried
            once. None where plans are unknown: equality is never guessed from latencies.
        plan_features: shape ``(queries, hint_set_count, features)``, numbers of the plans (see
            ``plan_features.py``); NaN where unknown.

    Raises:
        ValueError: an argument has a wrong shape or a value out of bounds.
    """

    def __init__(
        self,
        default_latency_s: ArrayLike,
        hint_set_count: int = 49,
        seed: int = 0,
        *,
        settings: ExplorerSettings | None = None,
        plan_ids: ArrayLike | None = None,
        plan_features: ArrayLike | None = None,
    ) -> None:
        default = np.array(default_latency_s, dtype=np.float64)
        if default.ndim != 1 or not len(default):
            raise ValueError(f"default_latency_s has shape {default.shape}, expected (queries,)")
        if not np.all(np.isfinite(default) & (default >= 0.0)):
            raise ValueError("default_latency_s must hold finite numbers of seconds, 0 or more")
        if hint_set_count < 1:
            raise ValueError(f"hint_set_count = {hint_set_count} must be at least 1")
        self.settings = settings or ExplorerSettings()
        shape = (len(default), int(hint_set_count))
        self._default_s = np.maximum(default, FLOOR_S)
        self._best_s = self._default_s.copy()
        self._served = np.zeros(len(default), dtype=np.intp)
        self._plans = _checked_plans(plan_ids, shape)
        self._model = LatencyModel(
            self._default_s,
            shape[1],
            np.random.default_rng(seed),
            self.settings.model,
            _standardised(plan_features, shape),
        )
        self._open = _first_of_plan(self._plans)
        self._outcomes = 0
        self._rng = np.random.default_rng(seed + 1)
        self._spent_s = self._lessons_s = 0.0
        self._pupils = self._draw()
        self._lesson: Probe | None = None
        self._refit_at = 1
        self._rows, self._columns = np.arange(shape[0]), np.arange(shape[1])
        self._score = np.full(shape, NEVER)
        self._timeout_s = np.zeros(shape)
        self._rescore(self._rows, self._columns)

    @property
    def best_latency_s(self) -> FloatArray:
        """The fastest measured latency of each query, shape ``(queries,)``, seconds."""
        return self._best_s.copy()

    def ask(self) -> Probe | None:
        """The probe that promises most; None when nothing is worth its cost.

        Until an outcome is told, the answer stays the same.
        """
        allowance = self.settings.lesson_share * self._spent_s + self.settings.lesson_start * self._default_s.sum()
        if self._lessons_s < allowance:
            self._lesson = self._lesson or self._next_lesson()
            if self._lesson:
                return self._lesson
        query, hint_set = divmod(int(np.argmax(self._score)), self._score.shape[1])
        if self._score[query, hint_set] <= 0.0:
            return None
        return Probe(query, hint_set, float(self._timeout_s[query, hint_set]))

    def tell(self, probe: Probe, latency_s: float | None = None, timed_out: bool = False) -> None:
        """Learn what became of a probe (asked for, or known from elsewhere).

        Args:
            probe: what was run.
            latency_s: how long it took, seconds; not needed when timed out.
            timed_out: it was stopped after ``probe.timeout_s``: its latency is greater.

        Raises:
            ValueError: the probe is outside the matrix, or its outcome is not a time.
        """
        queries, hint_sets = self._plans.shape
        if not (0 <= probe.query < queries and 0 <= probe.hint_set < hint_sets):
            raise ValueError(f"{probe} lies outside {queries} queries x {hint_sets} hint sets")
        seconds = probe.timeout_s if timed_out else latency_s
        if seconds is None or not np.isfinite(seconds) or seconds < 0.0:
            raise ValueError(f"{probe}: {seconds} is not a latency in seconds")
        query, seconds = probe.query, max(float(seconds), FLOOR_S)
        same = np.flatnonzero(self._plans[query] == self._plans[query, probe.hint_set])
        log_ratio = float(np.log(seconds / self._default_s[query]))
        if not timed_out:
            self._model.observe(query, same, log_ratio)
            if seconds < self._best_s[query]:
                self._best_s[query], self._served[query] = seconds, probe.hint_set
        elif not self._model.measured[query, probe.hint_set]:
            self._model.bound(query, same, log_ratio)
        self._outcomes += 1
        self._spent_s += seconds
        if probe == self._lesson:
            self._lessons_s += seconds
        self._lesson = None
        if self._outcomes >= self._refit_at:
            self._refit_at = max(
                self._outcomes + 1, int(self._outcomes * self.settings.refit_growth)
            )
            self._model.refit(self.settings.sweeps)
            self._pupils = self._draw()
            self._rescore(self._rows, self._columns)
        else:
            self._model.update(query, same)
            self._rescore(np.array([query]), self._columns)
            self._rescore(self._rows, same)

    def serve(self, query: int) -> int:
        """The hint set to serve: the fastest measured, 0 (the default) until one was faster."""
        return int(self._served[query])

    def _draw(self) -> IntArray:
        """Queries from which lessons may be taken until the next fit: of all lengths."""
        order = np.argsort(self._default_s, kind="stable")
        count = min(self.settings.lesson_queries, len(order))
        edges = np.linspace(0, len(order), count + 1)
        return order[(edges[:-1] + self._rng.random(count) * np.diff(edges)).astype(np.intp)]

    def _next_lesson(self) -> Probe | None:
        """The cell that teaches most about its hint set for its cost."""
        rows = self._pupils
        lesson = self._model.lesson(rows, self._best_s)
        mean, variance = self._model.predict(rows, self._columns)
        log_default = np.log(self._default_s[rows])[:, None]
        mean, spread = mean + log_default, np.sqrt(variance)
        open_ = self._open[rows] & ~self._model.measured[rows]
        bound = self._model.bounds[rows] + log_default
        whole = np.exp(np.minimum(mean + 0.5 * spread**2, 50.0))
        best, chosen = -1.0, None
        for share in self.settings.lesson_timeouts:
            timeout_s = share * self._default_s[rows][:, None] + 0.0 * mean
            z = (np.log(timeout_s) - mean) / spread
            ends = ndtr(z)
            cost = whole * ndtr(z - spread) + timeout_s * (1.0 - ends)
            worth = np.where(open_ & (np.log(timeout_s) > bound + 0.3), lesson * ends / cost, -1.0)
            at = int(worth.argmax())
            if worth.flat[at] > best:
                best = float(worth.flat[at])
                i, j = divmod(at, worth.shape[1])
                chosen = Probe(int(rows[i]), j, float(timeout_s[i, j]))
        return chosen if best > 0.0 else None

    def _rescore(self, rows: IntArray, columns: IntArray) -> None:
        """Time-out and score of each of these cells."""
        mean, variance = self._model.predict(rows, columns)
        log_default = np.log(self._default_s[rows])[:, None]
        cells = np.ix_(rows, columns)
        score, timeout_s, rate = _most_worth(
            mean + log_default,
            np.sqrt(variance),
            self._best_s[rows][:, None],
            self._model.bounds[cells] + log_default,
            self.settings,
        )
        worth = self._open[cells] & ~self._model.measured[cells]
        worth &= rate >= self.settings.least_return
        self._score[cells] = np.where(worth, score, NEVER)
        self._timeout_s[cells] = timeout_s


def _most_worth(
    mean: FloatArray,
    spread: FloatArray,
    best_s: FloatArray,
    bound: FloatArray,
    settings: ExplorerSettings,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """For each cell the best score over the time-outs, that time-out, and its rate of return.

    Latencies are log-normal with ``mean`` and ``spread`` (of the logarithm of seconds), cut off
    below ``bound``. With the time-out T: gain = E[(best - L) 1(L < T)], cost = E[min(L, T)].
    """
    whole = np.exp(np.minimum(mean + 0.5 * spread**2, 50.0))
    below = ndtr((bound - mean) / spread)
    below_s = whole * ndtr((bound - mean) / spread - spread)
    left = np.maximum(1.0 - below, 1e-12)
    best = np.full(mean.shape, NEVER)
    chosen_s, rate = np.zeros(mean.shape), np.zeros(mean.shape)
    for share in settings.timeout_shares:
        timeout_s = share * best_s
        z = (np.log(timeout_s) - mean) / spread
        ends = np.clip((ndtr(z) - below) / left, 0.0, 1.0)
        seconds = np.maximum(whole * ndtr(z - spread) - below_s, 0.0) / left
        gain = np.maximum(best_s * ends - seconds, 0.0)
        cost = seconds + timeout_s * (1.0 - ends) + settings.overhead * best_s
        score = gain / cost**settings.patience
        longer = np.log(timeout_s) >= bound + np.log(settings.retry)
        better = longer & (score > best)
        best = np.where(better, score, best)
        chosen_s = np.where(better, timeout_s, chosen_s)
        rate = np.where(better, gain / cost, rate)
    return best, chosen_s, rate


def _checked_plans(plan_ids: ArrayLike | None, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Plan numbers; without any, every hint set counts as a plan of its own."""
    if plan_ids is None:
        return np.broadcast_to(np.arange(shape[1]), shape)
    plans = np.asarray(plan_ids)
    if plans.shape != shape or not np.issubdtype(plans.dtype, np.integer):
        raise ValueError(f"plan_ids: {plans.dtype} of shape {plans.shape}, whole numbers {shape}")
    return plans.astype(np.int64)


def _first_of_plan(plans: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a cell is worth running: the first of its plan in the row, and not the default's."""
    count = plans.shape[1]
    first = np.ones(plans.shape, dtype=bool)
    for column in range(count):
        first[:, column] = ~(plans[:, :column] == plans[:, column : column + 1]).any(axis=1)
    first[:, 0] = False
    return first


def _standardised(features: ArrayLike | None, shape: tuple[int, int]) -> FloatArray | None:
    """Features as differences from the default plan's, mean 0 and spread 1; 0 where unknown."""
    if features is None:
        return None
    numbers = np.array(features, dtype=np.float64)
    if numbers.ndim != 3 or numbers.shape[:2] != shape or np.isinf(numbers).any():
        raise ValueError(
            f"plan_features of shape {numbers.shape}, expected finite numbers (or NaN) of shape "
            f"({shape[0]}, {shape[1]}, features)"
        )
    numbers = numbers - numbers[:, :1]
    known = np.isfinite(numbers)
    numbers = np.where(known, numbers, 0.0)
    count = np.maximum(known.sum(axis=(0, 1)), 1)
    spread = np.sqrt((numbers**2).sum(axis=(0, 1)) / count)
    return numbers / np.where(spread > 0.0, spread, 1.0)
