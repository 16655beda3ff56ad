"""The baseline: what the deployed configuration does before anything is tried."""

from __future__ import annotations

import math
from collections.abc import Sequence

from backend.domain.metrics import MetricsWindow
from backend.sample_filter import Reference, window_noise

MIN_BASELINE_CALLS = 200
MIN_NOISE = 0.01
ASSUMED_NOISE = 0.05
"""Standard deviation of a window's log index where too few windows tell."""


class Baseline:
    """Collects windows until they can serve as a reference.

    Args:
        wanted_s: seconds of windows that are needed.
        window_s: length of the trials' windows, for the noise.
        filtered: whether windows of different loads are told apart (``level1.sample_filter``).
    """

    def __init__(self, wanted_s: float, window_s: float, filtered: bool = True) -> None:
        self._wanted_s, self._window_s, self._filtered = wanted_s, window_s, filtered
        self._windows: list[MetricsWindow] = []

    def add(self, window: MetricsWindow) -> None:
        """Take one more window."""
        self._windows.append(window)

    @property
    def windows(self) -> Sequence[MetricsWindow]:
        """The windows taken, oldest first."""
        return self._windows

    @property
    def seconds(self) -> float:
        """Seconds measured so far."""
        return sum(window.duration_s for window in self._windows)

    @property
    def calls(self) -> int:
        """Statements measured so far."""
        return sum(window.calls for window in self._windows)

    @property
    def complete(self) -> bool:
        """Whether it is long enough and holds enough statements."""
        return self.seconds >= self._wanted_s and self.calls >= MIN_BASELINE_CALLS

    @property
    def progress(self) -> float:
        """Share of the time wanted, in [0, 1]."""
        return min(self.seconds / self._wanted_s, 1.0)

    @property
    def newest(self) -> MetricsWindow:
        """The newest window; there is one once the baseline is complete."""
        return self._windows[-1]

    def reference(self) -> Reference:
        """Call shares and mean times of all its windows."""
        return Reference.from_windows(self._windows)

    def noise(self) -> float:
        """Standard deviation of the log index of one window of a trial's length."""
        found = window_noise(self._windows, self.reference(), comparable_only=self._filtered)
        if found is None:
            return ASSUMED_NOISE
        # A trial's windows are longer than these: the noise falls with the root of it.
        mean_s = self.seconds / len(self._windows)
        return max(found * math.sqrt(mean_s / self._window_s), MIN_NOISE)
