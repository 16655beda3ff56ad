"""Explorers to compare with: random, greedy, and a low-rank completion in LimeQO's manner.

All have the interface of ``OfflineExplorer``. Written from the description in
Yi, Tian, Ives, Marcus: Low Rank Learning for Offline Query Optimization, SIGMOD 2025
(arXiv:2504.06399).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.steering.explorer import OfflineExplorer, Probe

FloatArray = NDArray[np.float64]


class Explorer(Protocol):
    """What the benchmark plays with."""

    def ask(self) -> Probe | None:
        """The next run to make."""
        ...

    def tell(self, probe: Probe, latency_s: float | None = None, timed_out: bool = False) -> None:
        """What became of it."""
        ...

    def serve(self, query: int) -> int:
        """The hint set served."""
        ...


class RandomExplorer:
    """Any cell not tried yet, with the query's best latency so far as time-out."""

    def __init__(self, default_latency_s: FloatArray, hint_set_count: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._best_s = default_latency_s.copy()
        self._served = np.zeros(len(default_latency_s), dtype=np.intp)
        self._tried = np.zeros((len(default_latency_s), hint_set_count), dtype=bool)
        self._tried[:, 0] = True

    def ask(self) -> Probe | None:
        """See :class:`Explorer`."""
        cells = np.flatnonzero(~self._tried)
        return self._probe(int(self._rng.choice(cells))) if len(cells) else None

    def tell(self, probe: Probe, latency_s: float | None = None, timed_out: bool = False) -> None:
        """See :class:`Explorer`."""
        self._tried[probe.query, probe.hint_set] = True
        if not timed_out and latency_s is not None and latency_s < self._best_s[probe.query]:
            self._best_s[probe.query], self._served[probe.query] = latency_s, probe.hint_set

    def serve(self, query: int) -> int:
        """See :class:`Explorer`."""
        return int(self._served[query])

    def _probe(self, cell: int) -> Probe:
        query, hint_set = divmod(cell, self._tried.shape[1])
        return Probe(query, hint_set, float(self._best_s[query]))


class GreedyExplorer(RandomExplorer):
    """The longest queries as they are served now, 32 at a time, each with a random hint set."""

    batch = 32

    def __init__(self, default_latency_s: FloatArray, hint_set_count: int, seed: int) -> None:
        super().__init__(default_latency_s, hint_set_count, seed)
        self._queue: list[int] = []

    def ask(self) -> Probe | None:
        """See :class:`Explorer`."""
        if not self._queue:
            open_ = np.flatnonzero(~self._tried.all(axis=1))
            self._queue = open_[np.argsort(-self._best_s[open_])][: self.batch].tolist()
        if not self._queue:
            return None
        query = self._queue.pop(0)
        hint_set = int(self._rng.choice(np.flatnonzero(~self._tried[query])))
        return Probe(query, hint_set, float(self._best_s[query]))


class LowRankExplorer(RandomExplorer):
    """Alternating least squares on log1p(seconds), time-outs as lower bounds.

    After every 32 finished runs the matrix is completed anew (non-negative factors of rank 5,
    ridge 0.2, 50 rounds). Each query's fastest predicted hint set is tried, in the order of the
    predicted gain (best so far / prediction), with the time-out min(best so far, 15 × prediction);
    random cells fill the rest of the 32. Unlike the authors' program, it is not told which hint
    sets lead to the same plan.
    """

    batch, rank, ridge, rounds, tolerance = 32, 5, 0.2, 50, 15.0

    def __init__(self, default_latency_s: FloatArray, hint_set_count: int, seed: int) -> None:
        super().__init__(default_latency_s, hint_set_count, seed)
        shape = self._tried.shape
        self._log_s = np.zeros(shape)
        self._log_s[:, 0] = np.log1p(default_latency_s)
        self._known = self._tried.copy()
        self._log_bound = np.zeros(shape)
        self._finished = self.batch
        self._promising: Iterator[Probe] = iter(())

    def ask(self) -> Probe | None:
        """See :class:`Explorer`."""
        if self._finished >= self.batch:
            self._finished = 0
            self._promising = self._ranked(np.expm1(self._completed()))
        return next(self._promising, None) or super().ask()

    def tell(self, probe: Probe, latency_s: float | None = None, timed_out: bool = False) -> None:
        """See :class:`Explorer`."""
        super().tell(probe, latency_s, timed_out)
        cell = probe.query, probe.hint_set
        if timed_out or latency_s is None:
            self._log_bound[cell] = np.log1p(probe.timeout_s)
            self._tried[cell] = probe.timeout_s >= self._best_s[probe.query]
        else:
            self._known[cell], self._log_s[cell] = True, np.log1p(latency_s)
            self._finished += 1

    def _ranked(self, predicted_s: FloatArray) -> Iterator[Probe]:
        open_s = np.where(self._tried | self._known, np.inf, predicted_s)
        hint_sets = open_s.argmin(axis=1)
        least_s = np.maximum(open_s.min(axis=1), 1e-6)
        best_s = self._best_s.copy()
        for query in np.argsort(least_s / best_s):
            timeout_s = min(best_s[query], self.tolerance * least_s[query])
            if least_s[query] < timeout_s:
                yield Probe(int(query), int(hint_sets[query]), float(timeout_s))

    def _completed(self) -> FloatArray:
        queries, hint_sets = self._known.shape
        rows = self._rng.random((queries, self.rank))
        columns = self._rng.random((hint_sets, self.rank))
        for _ in range(self.rounds):
            rows = self._solved(columns, self._filled(rows, columns))
            columns = self._solved(rows, self._filled(rows, columns).T)
        return rows @ columns.T

    def _filled(self, rows: FloatArray, columns: FloatArray) -> FloatArray:
        guess = np.maximum(rows @ columns.T, self._log_bound)
        return np.where(self._known, self._log_s, guess)

    def _solved(self, fixed: FloatArray, target: FloatArray) -> FloatArray:
        gram = fixed.T @ fixed + self.ridge * np.eye(self.rank)
        return np.maximum(np.linalg.solve(gram, fixed.T @ target.T).T, 0.0)


EXPLORERS = {
    "random": RandomExplorer,
    "greedy": GreedyExplorer,
    "low-rank": LowRankExplorer,
    "ours": OfflineExplorer,
}


def make_explorer(
    method: str, default_latency_s: FloatArray, hint_set_count: int, seed: int
) -> Explorer:
    """An explorer by its name."""
    return EXPLORERS[method](default_latency_s, hint_set_count, seed)
