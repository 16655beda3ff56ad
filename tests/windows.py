"""Metrics windows made from a few numbers, for the tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone

import numpy as np

from backend.domain.metrics import MetricsWindow, QueryKey, QueryWindow

START = datetime(2024, 1, 1, tzinfo=timezone.utc)


def key(number: int) -> QueryKey:
    """The key of the query class of that number."""
    return QueryKey(10, 16384, number)


def window(
    classes: Mapping[int, tuple[int, float]],
    duration_s: float = 10.0,
    *,
    gauges: Mapping[str, float] | None = None,
    rates: Mapping[str, float] | None = None,
) -> MetricsWindow:
    """A window in which class number ``n`` ran ``classes[n][0]`` times, ``[1]`` ms on average."""
    return MetricsWindow(
        started_at=START,
        ended_at=START + timedelta(seconds=duration_s),
        duration_s=duration_s,
        rates=dict(rates or {}),
        gauges=dict(gauges or {}),
        queries={
            key(n): QueryWindow(key(n), calls, calls * mean_ms)
            for n, (calls, mean_ms) in classes.items()
        },
    )


def poisson_window(
    rng: np.random.Generator,
    calls_per_s: Sequence[float],
    duration_s: float = 10.0,
    mean_ms: float = 5.0,
) -> MetricsWindow:
    """A window of independent Poisson arrivals, one rate a class."""
    counts = rng.poisson(np.asarray(calls_per_s) * duration_s)
    return window({n: (int(count), mean_ms) for n, count in enumerate(counts) if count}, duration_s)
