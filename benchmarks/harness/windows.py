"""Measuring windows: settle, wait for what straddles the switch, measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.data_collector import DataCollector, why_no_window, window_between
from backend.domain.load import SampleQuality
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.errors import ServerError
from backend.protocols import Clock
from backend.sample_filter import (
    Reference,
    latency_index,
    load_profile,
    paired_log_ratio,
    sample_quality,
)
from backend.state_features import state_vector
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import LoadCounts

LONGEST_WAIT_S = 30.0
"""For statements of the time before a switch, and for a pile of arrivals to be worked off."""
POLL_S = 0.25
WINDOW_ATTEMPTS = 3


@dataclass(frozen=True)
class Measured:
    """A window, its halves, and the clients' counts when it began and when it ended."""

    window: MetricsWindow
    halves: tuple[MetricsWindow, MetricsWindow]
    before: LoadCounts
    after: LoadCounts

    @property
    def backlog(self) -> bool:
        """Whether arrivals were piling up at the clients."""
        return self.before.backlog or self.after.backlog or self.after.dropped > self.before.dropped

    @property
    def state(self) -> NDArray[np.float64]:
        """What the agents see of it."""
        return state_of(self.window)

    def quality(self, shares: Reference, paired: Measured | None = None) -> SampleQuality:
        """How far it can be trusted, by the product's filter.

        The offered load is the same all the time here. Where arrivals piled up, fewer statements
        came back because of the configuration, which is its effect and no swing of the load; so
        the window is then not held against its pair.
        """
        index = latency_index([self.window], shares)
        steady = not self.backlog
        return sample_quality(
            self.window,
            coverage=index.coverage if index else 0.0,
            paired=load_profile(paired.window) if paired is not None and steady else None,
            halves=self.halves if steady else None,
            costs_ms=shares.costs_ms,
        )


def state_of(window: MetricsWindow) -> NDArray[np.float64]:
    """What the agents see of a window."""
    return state_vector(window, load_profile(window))


class Meter:
    """Takes windows of the running load.

    Args:
        collector: takes snapshots.
        load: the clients.
        clock: time.
        window_s: the length of a window.
        longest_wait_s: for what was begun before a switch.
        rest: lets so many seconds pass; None: the clock's sleep.
    """

    def __init__(
        self,
        collector: DataCollector,
        load: OfferedLoad,
        clock: Clock,
        window_s: float,
        *,
        longest_wait_s: float = LONGEST_WAIT_S,
        rest: Callable[[float], None] | None = None,
    ) -> None:
        self._collector, self._load, self._clock = collector, load, clock
        self._window_s, self._longest_wait_s = window_s, longest_wait_s
        self._rest = rest or clock.sleep

    def measure(self, settle_s: float, *, work_off: bool = False) -> Measured:
        """Settle after a switch that was made just now, then measure a window.

        Args:
            settle_s: not measured at first.
            work_off: wait until arrivals that piled up before the switch have been served, so
                that one configuration's pile is not charged to the next.

        Raises:
            ServerError: the server was lost, or no window could be formed.
        """
        switched_s = self._clock.monotonic_s()
        self._rest(settle_s)
        reason = ""
        for _ in range(WINDOW_ATTEMPTS):
            first = self._first_snapshot(switched_s, work_off)
            before = self._load.counts()
            began_s = self._clock.monotonic_s()
            self._rest(self._window_s / 2)
            middle = self._collector.collect()
            self._rest(max(0.0, began_s + self._window_s - self._clock.monotonic_s()))
            last = self._collector.collect()
            window = window_between(first, last)
            halves = window_between(first, middle), window_between(middle, last)
            if window is not None and halves[0] is not None and halves[1] is not None:
                return Measured(window, (halves[0], halves[1]), before, self._load.counts())
            reason = why_no_window(first, last) or "its halves could not be formed"
        raise ServerError(f"no window in {WINDOW_ATTEMPTS} attempts: {reason}")

    def _first_snapshot(self, switched_s: float, work_off: bool) -> MetricsSnapshot:
        """The first moment when all that runs began after the switch; late rather than never."""
        while True:
            now_s = self._clock.monotonic_s()
            snapshot = self._collector.collect()
            waited_s = now_s - switched_s
            straddles = snapshot.gauges.get("longest_statement_s", 0.0) > waited_s
            piled = work_off and self._load.counts().backlog
            if waited_s > self._longest_wait_s or not (straddles or piled):
                return snapshot
            self._rest(POLL_S)


def ratio_to(
    candidate: Measured, defaults: Sequence[Measured], shares: Reference
) -> tuple[float, float] | None:
    """Log ratio of the latency index to windows of the defaults, and its coverage."""
    return paired_log_ratio([candidate.window], [d.window for d in defaults], shares)
