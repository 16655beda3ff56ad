"""The explorer finds a known answer in seconds, and sooner than chance does."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.steering.matrix import LatencyMatrix
from benchmarks.steering.runs import Cell, run_cell

QUERIES, HINT_SETS, GOOD = 60, 12, 5


def toy(seed: int) -> LatencyMatrix:
    """One hint set rescues the long queries (its latency is 1 s whatever the default's); the others
    harm or do nothing."""
    rng = np.random.default_rng(seed)
    default_s = np.exp(rng.normal(0.5, 1.5, QUERIES))
    ratio = np.exp(rng.uniform(0.0, 2.0, HINT_SETS)[None, :] + 0.1 * rng.normal(size=(60, 12)))
    latency_s = default_s[:, None] * ratio
    latency_s[:, GOOD] = np.exp(0.2 * rng.normal(size=QUERIES))
    latency_s[:, 0] = default_s
    return LatencyMatrix("toy", str(seed), latency_s)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_hint_set_that_rescues_long_queries_is_found(seed: int) -> None:
    matrix = toy(seed)
    budgets_s = (0.5 * matrix.default_total_s,)
    ours, chance = (
        run_cell(Cell("toy", matrix.digest, method, seed, budgets_s), matrix).reached(0)
        for method in ("ours", "random")
    )
    assert ours > 0.85
    assert ours > chance
