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

from backend.steering.model.latency_model import (
    FloatArray,
    IntArray,
    LatencyModel,
    LatencyModelSettings,
)
from backend.steering.model.probe_value import best_timeout, outcome
from backend.steering.model.track_record import TrackRecord

FLOOR_S = 1e-4
"""Latencies below are counted as this: logarithms need it, and nobody gains by less."""
NEVER = -1.0


@dataclass(frozen=True)
class ExplorerSettings:
    """How probes are chosen; the same for every workload.

    Args:
        patience: exponent of the cost in the score. 1 is greed for saved seconds per second; less
            lets larger but costlier savings come earlier.
        timeout_shares: time-outs considered, as shares of the query's best latency so far.
        overhead: cost that is added to each probe, as a share of the query's best latency: what
            keeps many very short probes from looking cheap.
        retry: a stopped cell is tried again with a time-out longer by this factor at least.
        query_prior, hint_set_prior, memory: see :class:`TrackRecord`.
        lesson_share: share of the time spent that goes to lessons: probes of short queries that
            teach what a hint set does.
        lesson_start: lessons before anything else, as a share of the default total.
        lesson_queries: queries, of all lengths, that lessons choose from until the next fit.
        lesson_timeout: of a lesson, as a multiple of the query's default latency.
        refit_growth: the model is fitted anew when the number of outcomes has grown by this
            factor; in between, only the query and the hint set concerned are updated.
        sweeps: of each such fit.
        least_return: expected saving of one execution of the workload per second of exploration
            below which nothing is worth its cost.
        model: priors of the latency model.
    """

    patience: float = 0.85
    timeout_shares: tuple[float, ...] = (0.05, 0.08, 0.12, 0.2, 0.3, 0.45, 0.67, 1.0)
    overhead: float = 0.03
    retry: float = 1.5
    query_prior: float = 1.0
    hint_set_prior: float = 5.0
    memory: float = 0.9
    lesson_share: float = 0.1
    lesson_start: float = 0.002
    lesson_queries: int = 64
    lesson_timeout: float = 4.0
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
        default_s = np.array(default_latency_s, dtype=np.float64)
        if default_s.ndim != 1 or not len(default_s):
            raise ValueError(f"default_latency_s has shape {default_s.shape}, expected (queries,)")
        if not np.all(np.isfinite(default_s) & (default_s >= 0.0)):
            raise ValueError("default_latency_s must hold finite numbers of seconds, 0 or more")
        if hint_set_count < 1:
            raise ValueError(f"hint_set_count = {hint_set_count} must be at least 1")
        self.settings = s = settings or ExplorerSettings()
        queries, hint_sets = shape = len(default_s), int(hint_set_count)
        self._rows, self._columns = np.arange(queries), np.arange(hint_sets)
        self._rng = np.random.default_rng(seed)
        self._default_s = np.maximum(default_s, FLOOR_S)
        self._best_s = self._default_s.copy()
        self._served = np.zeros(queries, dtype=np.intp)
        self._plans = _checked_plans(plan_ids, shape)
        self._open = _first_of_plan(self._plans)
        features = _standardised(plan_features, shape)
        self._model = LatencyModel(self._default_s, hint_sets, self._rng, s.model, features)
        self._record = TrackRecord(
            queries,
            hint_sets,
            query_prior=s.query_prior,
            hint_set_prior=s.hint_set_prior,
            memory=s.memory,
        )
        self._outcomes, self._refit_at = 0, 1
        self._spent_s, self._lessons_s = 0.0, 0.0
        self._lesson_queries = self._draw_lesson_queries()
        self._score = np.full(shape, NEVER)
        self._timeout_s = np.zeros(shape)
        self._rescore(self._rows, self._columns)
        self._next = self._choose()

    @property
    def best_latency_s(self) -> FloatArray:
        """The fastest measured latency of each query, shape ``(queries,)``, seconds."""
        return self._best_s.copy()

    def ask(self) -> Probe | None:
        """The probe that promises most; None when nothing is worth its cost.

        Until an outcome is told, the answer stays the same.
        """
        return self._next[0]

    def tell(self, probe: Probe, latency_s: float | None = None, timed_out: bool = False) -> None:
        """Learn what became of a probe (asked for, or known from elsewhere).

        Args:
            probe: what was run.
            latency_s: how long it took, seconds; not needed when timed out.
            timed_out: it was stopped after ``probe.timeout_s``: its latency is greater.

        Raises:
            ValueError: the probe is outside the matrix or of the default plan, or its outcome is
                not a time.
        """
        queries, hint_sets = self._plans.shape
        if not (0 <= probe.query < queries and 1 <= probe.hint_set < hint_sets):
            raise ValueError(
                f"{probe} lies outside queries 0 to {queries - 1}, hint sets 1 to {hint_sets - 1} "
                "(0 is the default, whose latencies were given)"
            )
        seconds = probe.timeout_s if timed_out else latency_s
        if seconds is None or not np.isfinite(seconds) or seconds < 0.0:
            raise ValueError(f"{probe}: {seconds} is not a latency in seconds")
        query, seconds = probe.query, max(float(seconds), FLOOR_S)
        asked, lesson = self._next
        lesson = lesson and probe == asked
        self._note(probe, timed_out, lesson)
        same = np.flatnonzero(self._plans[query] == self._plans[query, probe.hint_set])
        log_ratio = float(np.log(seconds / self._default_s[query]))
        if not timed_out:
            self._model.observe(query, same, log_ratio)
            if seconds < self._best_s[query]:
                self._best_s[query], self._served[query] = seconds, probe.hint_set
        elif not self._model.measured[query, probe.hint_set]:
            self._model.bound(query, same, log_ratio)
        self._spent_s += seconds
        self._lessons_s += seconds if lesson else 0.0
        self._learn(query, same)
        self._next = self._choose()

    def serve(self, query: int) -> int:
        """The hint set to serve: the fastest measured, 0 (the default) until one was faster."""
        return int(self._served[query])

    # -- learning ------------------------------------------------------------------------------

    def _note(self, probe: Probe, timed_out: bool, lesson: bool) -> None:
        """Hold the outcome against what was expected of it, before learning from it."""
        row, column = np.array([probe.query]), np.array([probe.hint_set])
        if not self._model.measured[probe.query, probe.hint_set]:
            limit_s = np.full((1, 1), max(probe.timeout_s, FLOOR_S))
            ends, _ = outcome(*self._beliefs(row, column), limit_s)
            self._record.note(probe.query, probe.hint_set, float(ends[0, 0]), not timed_out, lesson)

    def _learn(self, query: int, hint_sets: IntArray) -> None:
        self._outcomes += 1
        if self._outcomes >= self._refit_at:
            grown = int(self._outcomes * self.settings.refit_growth)
            self._refit_at = max(self._outcomes + 1, grown)
            self._model.refit(self.settings.sweeps)
            self._lesson_queries = self._draw_lesson_queries()
            self._rescore(self._rows, self._columns)
        else:
            self._model.update(query, hint_sets)
            self._rescore(np.array([query]), self._columns)
            self._rescore(self._rows, hint_sets)

    def _beliefs(
        self, rows: IntArray, columns: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Mean and spread of log seconds, and the logarithm of the longest time-out passed."""
        mean, variance = self._model.predict(rows, columns)
        log_default = np.log(self._default_s[rows])[:, None]
        bound = self._model.bounds[np.ix_(rows, columns)] + log_default
        return mean + log_default, np.sqrt(variance), bound

    # -- choosing ------------------------------------------------------------------------------

    def _choose(self) -> tuple[Probe | None, bool]:
        """The next probe, and whether it is a lesson."""
        s = self.settings
        query, hint_set = divmod(int(np.argmax(self._score)), self._score.shape[1])
        if self._score[query, hint_set] <= 0.0:
            return None, False
        allowed_s = s.lesson_share * self._spent_s + s.lesson_start * self._default_s.sum()
        if self._lessons_s < allowed_s and (lesson := self._best_lesson()):
            return lesson, True
        return Probe(query, hint_set, float(self._timeout_s[query, hint_set])), False

    def _rescore(self, rows: IntArray, columns: IntArray) -> None:
        """Time-out and score of each of these cells."""
        s = self.settings
        score, timeout_s, rate = best_timeout(
            *self._beliefs(rows, columns),
            self._best_s[rows][:, None],
            shares=s.timeout_shares,
            retry=s.retry,
            overhead=s.overhead,
            patience=s.patience,
        )
        trust = self._record.trust(rows, columns)
        cells = np.ix_(rows, columns)
        worth = self._open[cells] & ~self._model.measured[cells] & (rate * trust >= s.least_return)
        self._score[cells] = np.where(worth, score * trust, NEVER)
        self._timeout_s[cells] = timeout_s

    def _draw_lesson_queries(self) -> IntArray:
        """Queries of all lengths: one of each of so many equal groups, ordered by length."""
        order = np.argsort(self._default_s, kind="stable")
        count = min(self.settings.lesson_queries, len(order))
        edges = np.linspace(0.0, len(order), count + 1)
        drawn: IntArray = (edges[:-1] + self._rng.random(count) * np.diff(edges)).astype(np.intp)
        return order[drawn]

    def _best_lesson(self) -> Probe | None:
        """The cell that is expected to teach most about its hint set for its cost."""
        rows = self._lesson_queries
        mean, spread, bound = self._beliefs(rows, self._columns)
        timeout_s = self.settings.lesson_timeout * self._default_s[rows][:, None]
        ends, seconds = outcome(mean, spread, bound, timeout_s)
        cost = seconds + timeout_s * (1.0 - ends)
        open_ = self._open[rows] & ~self._model.measured[rows] & (bound < np.log(timeout_s))
        worth = np.where(open_, self._model.lesson(rows, self._best_s) * ends / cost, 0.0)
        row, hint_set = divmod(int(worth.argmax()), worth.shape[1])
        if worth[row, hint_set] <= 0.0:
            return None
        return Probe(int(rows[row]), hint_set, float(timeout_s[row, 0]))


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
    first = np.ones(plans.shape, dtype=bool)
    for column in range(plans.shape[1]):
        first[:, column] = ~(plans[:, :column] == plans[:, column : column + 1]).any(axis=1)
    first[:, 0] = False
    return first


def _standardised(features: ArrayLike | None, shape: tuple[int, int]) -> FloatArray | None:
    """Features as differences from the default plan's, with spread 1; 0 where unknown."""
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
    spread = np.sqrt((numbers**2).sum(axis=(0, 1)) / np.maximum(known.sum(axis=(0, 1)), 1))
    scaled: FloatArray = numbers / np.where(spread > 0.0, spread, 1.0)
    return scaled
