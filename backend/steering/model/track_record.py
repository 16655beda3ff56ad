"""How far the model's promises have been kept: for each query, and lately for each hint set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


class TrackRecord:
    """Probes that ended in time against how many were expected to.

    A stubborn query (its default plan is right after all) and a hint set that has come to the end
    of its luck are both told by time-outs that the model did not expect. With E expected and S
    observed ends, expected savings are multiplied by min(1, (S + k) / (E + k)): the mean of a
    Poisson rate's posterior under a Gamma(k, k) prior, never above 1. A query's counts are kept; a
    hint set's are multiplied by ``memory`` at each of its probes, for its luck depends on how
    long the queries are that it is tried on, and they get shorter.

    Args:
        queries, hint_sets: shape of the matrix.
        query_prior, hint_set_prior: k for queries and for hint sets.
        memory: in (0, 1].
    """

    def __init__(
        self,
        queries: int,
        hint_sets: int,
        *,
        query_prior: float,
        hint_set_prior: float,
        memory: float,
    ) -> None:
        self._memory = memory
        self._priors = query_prior, hint_set_prior
        self._queries = np.zeros((2, queries))
        self._hint_sets = np.zeros((2, hint_sets))

    def note(self, query: int, hint_set: int, expected: float, ended: bool, lesson: bool) -> None:
        """A probe's outcome. Lessons, whose time-outs are long, say nothing of hint sets' luck."""
        kept = np.array([expected, float(ended)])
        self._queries[:, query] += kept
        if not lesson:
            self._hint_sets[:, hint_set] *= self._memory
            self._hint_sets[:, hint_set] += kept

    def trust(self, rows: IntArray, columns: IntArray) -> FloatArray:
        """What expected savings are multiplied by, in (0, 1], shape ``(rows, columns)``."""
        of_query = _kept(self._queries[:, rows], self._priors[0])
        of_hint_set = _kept(self._hint_sets[:, columns], self._priors[1])
        return of_query[:, None] * of_hint_set


def _kept(counts: FloatArray, prior: float) -> FloatArray:
    expected, ended = counts
    share: FloatArray = np.minimum((ended + prior) / (expected + prior), 1.0)
    return share
