"""Latency histograms agree with the latencies that went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.workload.latency import GROWTH, LatencyHistogram

latencies = st.lists(st.floats(0.06, 100_000), min_size=1, max_size=200)


def histogram(values: list[float]) -> LatencyHistogram:
    result = LatencyHistogram()
    for value in values:
        result.add(value)
    return result


@given(values=latencies, share=st.floats(0.01, 1.0))
def test_percentiles_are_exact_to_a_bucket(values: list[float], share: float) -> None:
    found = histogram(values).percentile_ms(share)
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert found is not None
    assert exact / GROWTH * 0.999 <= found <= exact * GROWTH * 1.001


@given(first=latencies, second=latencies)
def test_merging_equals_counting_together(first: list[float], second: list[float]) -> None:
    merged, together = histogram(first), histogram(first + second)
    merged.merge(histogram(second))
    assert merged.counts == together.counts
    assert merged.mean_ms == pytest.approx(together.mean_ms)
    assert merged.max_ms == together.max_ms


def test_extremes_are_counted() -> None:
    extremes = histogram([0.0, 1e9])
    assert extremes.count == 2
    assert extremes.percentile_ms(1.0) is not None
    assert LatencyHistogram().percentile_ms(0.5) is None
    assert LatencyHistogram().mean_ms is None
