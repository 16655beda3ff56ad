"""How far windows of one configuration lie apart under the swinging load, by how they are compared.

One configuration stands all the time, so whatever a comparison shows is its error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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
from benchmarks.filter_experiment.scenario import BATCH, CLASSES, SWINGS, swinging_server

REFERENCE_WINDOWS = 6
EARLIER_S = 600.0
"""An old measurement of what stands is so old."""
MOVED = 0.10
"""The load moved where the model's waiting for a core differs by more, in log units."""
BATCH_APART = 0.5
"""A batch job began or ended where its arrivals differ by more, as a multiple of its average."""


@dataclass(frozen=True)
class Taken:
    """A window, its two halves, and what the model knows of it.

    ``waiting`` is the mean factor by which waiting for a core stretches a statement, ``batch`` the
    batch job's arrivals as a multiple of their average.
    """

    window: MetricsWindow
    halves: tuple[MetricsWindow, MetricsWindow]
    waiting: float
    batch: float


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


@dataclass
class Spread:
    """What comparing showed; ``moved`` and ``kept`` count pairs whose load had moved, by cause."""

    log_ratios: dict[str, list[float]] = field(default_factory=dict)
    moved: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    @property
    def errors(self) -> list[Errors]:
        """The errors of each way of comparing."""
        return [Errors(name, np.array(values)) for name, values in self.log_ratios.items()]

    def note(self, name: str, log_ratio: float | None) -> None:
        """Take a comparison; None where nothing could be compared."""
        if log_ratio is not None:
            self.log_ratios.setdefault(name, []).append(log_ratio)


def spread_under_swings(settings: Settings, seeds: Sequence[int], seconds: float) -> Spread:
    """Every way of comparing, over all seeds."""
    found = Spread()
    for seed in seeds:
        taken = _course(settings, seed, seconds)
        shares = Reference.from_windows([t.window for t in taken[:REFERENCE_WINDOWS]])
        _compare(settings, taken, shares, found)
    return found


def _course(settings: Settings, seed: int, seconds: float) -> list[Taken]:
    """Windows as a trial takes them, with the settling in between."""
    level1, target = settings.level1, swinging_server(seed, seconds)
    clock = target.clock
    assert isinstance(clock, ManualClock)
    script, model = SWINGS.script(len(CLASSES), seconds, seed), target.model
    service_ms = model.service_ms(target.effective_config)
    taken = []
    while clock.monotonic_s() < seconds:
        clock.advance(level1.settle_s)
        moments = [target.snapshot()]
        for _ in range(2):
            clock.advance(level1.window_s / 2)
            moments.append(target.snapshot())
        first, middle, last = moments
        halves = (_window(first, middle), _window(middle, last))
        now_s = clock.monotonic_s()
        factors = script.factors(np.arange(now_s - level1.window_s, now_s) + 0.5, len(CLASSES))
        busy = model.utilisation(service_ms, model.arrivals * factors)
        waiting, batch = model.contention(busy).mean(), factors[:, BATCH].mean()
        taken.append(Taken(_window(first, last), halves, float(waiting), float(batch)))
    return taken


def _window(first: MetricsSnapshot, last: MetricsSnapshot) -> MetricsWindow:
    window = window_between(first, last)
    assert window is not None  # nothing happens to this server
    return window


def _compare(settings: Settings, taken: Sequence[Taken], shares: Reference, found: Spread) -> None:
    level1 = settings.level1
    earlier = round(EARLIER_S / (level1.window_s + level1.settle_s))

    for at, now in enumerate(taken):
        if at >= earlier:
            old = taken[at - earlier].window
            found.note("mean time, 10 min before", _mean_log_ratio(now.window, old))
            found.note("index, 10 min before", _index_log_ratio(now.window, old, shares))
        if at >= 1:
            partner = taken[at - 1]
            last = partner.window
            found.note("mean time, neighbour", _mean_log_ratio(now.window, last))
            pair = _index_log_ratio(now.window, last, shares)
            found.note("index, neighbour (a pair)", pair)
            kept = _quality(settings, now, last, shares) >= level1.min_quality
            found.note("a pair that the filter keeps" if kept else "a pair that it drops", pair)
            if pair is not None and abs(math.log(now.waiting / partner.waiting)) > MOVED:
                by_batch = abs(now.batch - partner.batch) > BATCH_APART
                cause = "the batch job began or ended" if by_batch else "volume or mix"
                found.moved[cause] += 1
                found.kept[cause] += kept


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
