"""How far windows of one configuration lie apart under the swinging load, by how they are compared.

One configuration stands all the time, so whatever a comparison shows is its error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.config import Settings
from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.sample_filter import (
    Reference,
    latency_index,
    load_profile,
    paired_log_ratio,
    sample_quality,
)
from benchmarks.filter_experiment.scenario import swinging_server

REFERENCE_WINDOWS = 6
EARLIER_S = 600.0
"""An old measurement of what stands is so old."""


@dataclass(frozen=True)
class Taken:
    """A window and its two halves."""

    window: MetricsWindow
    halves: tuple[MetricsWindow, MetricsWindow]


@dataclass(frozen=True)
class Errors:
    """Errors of one way of comparing: log ratios of what is the same."""

    name: str
    log_ratios: NDArray[np.float64]

    @property
    def deviation(self) -> float:
        """Root mean square, in log units."""
        return float(np.sqrt(np.mean(self.log_ratios**2)))

    def beyond(self, limit: float) -> float:
        """The share of comparisons that show a gain or a loss of more than this."""
        return float(np.mean(np.abs(self.log_ratios) > limit))


def errors_under_swings(settings: Settings, seeds: Sequence[int], seconds: float) -> list[Errors]:
    """The errors of each way of comparing, over all seeds."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        taken = _course(settings, seed, seconds)
        shares = Reference.from_windows([t.window for t in taken[:REFERENCE_WINDOWS]])
        _compare(settings, taken, shares, found)
    return [Errors(name, np.array(values)) for name, values in found.items()]


def _course(settings: Settings, seed: int, seconds: float) -> list[Taken]:
    """Windows as a trial takes them, with the settling in between."""
    level1, target = settings.level1, swinging_server(seed, seconds)
    clock = target.clock
    assert isinstance(clock, ManualClock)
    taken = []
    while clock.monotonic_s() < seconds:
        clock.advance(level1.settle_s)
        moments = [target.snapshot()]
        for _ in range(2):
            clock.advance(level1.window_s / 2)
            moments.append(target.snapshot())
        first, middle, last = moments
        taken.append(Taken(_window(first, last), (_window(first, middle), _window(middle, last))))
    return taken


def _window(first: MetricsSnapshot, last: MetricsSnapshot) -> MetricsWindow:
    window = window_between(first, last)
    assert window is not None  # nothing happens to this server
    return window


def _compare(
    settings: Settings, taken: Sequence[Taken], shares: Reference, found: dict[str, list[float]]
) -> None:
    level1 = settings.level1
    earlier = round(EARLIER_S / (level1.window_s + level1.settle_s))

    def note(name: str, log_ratio: float | None) -> None:
        values = found.setdefault(name, [])
        if log_ratio is not None:
            values.append(log_ratio)

    for at, now in enumerate(taken):
        if at >= earlier:
            old = taken[at - earlier].window
            note("mean time, 10 min before", _mean_log_ratio(now.window, old))
            note("index, 10 min before", _index_log_ratio(now.window, old, shares))
        if at >= 1:
            last = taken[at - 1].window
            note("mean time, neighbour", _mean_log_ratio(now.window, last))
            pair = _index_log_ratio(now.window, last, shares)
            note("index, neighbour (a pair)", pair)
            kept = _quality(settings, now, last, shares) >= level1.min_quality
            note("a pair that the filter keeps" if kept else "a pair that it drops", pair)


def _mean_log_ratio(now: MetricsWindow, before: MetricsWindow) -> float | None:
    return math.log(now.mean_ms / before.mean_ms) if now.mean_ms and before.mean_ms else None


def _index_log_ratio(now: MetricsWindow, before: MetricsWindow, shares: Reference) -> float | None:
    ratio = paired_log_ratio([now], [before], shares)
    return ratio[0] if ratio is not None else None


def _quality(settings: Settings, now: Taken, before: MetricsWindow, shares: Reference) -> float:
    """The quality that a trial would give the window beside its partner."""
    index = latency_index([now.window], shares)
    return sample_quality(
        now.window,
        coverage=index.coverage if index is not None else 0.0,
        paired=load_profile(before),
        halves=now.halves,
        min_coverage=settings.level1.min_coverage,
        costs_ms=shares.costs_ms,
    ).value
