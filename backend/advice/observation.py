"""What was seen of a server over a while: snapshots in, sums, means and peaks out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from backend.data_collector import why_no_window, window_between
from backend.domain.metrics import MetricsSnapshot, MetricsWindow, QueryKey, QueryWindow
from backend.sample_filter import merge_queries


@dataclass(frozen=True)
class Observation:
    """A server over a while. Names and units are those of the metrics catalogue.

    Args:
        started_at, ended_at: first and last snapshot, by the server's clock.
        observed_s: seconds that the windows cover: what happened between two snapshots counts only
            where nothing broke the counters.
        totals: growth of the counters in that time.
        means, peaks, last: levels: their mean, their greatest and their newest reading.
        ever: the counters themselves at the end: all since their statistics were reset.
        queries: query classes that ran.
        gaps: why there was no window, and how often.
    """

    started_at: datetime
    ended_at: datetime
    observed_s: float
    totals: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, float] = field(default_factory=dict)
    peaks: Mapping[str, float] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    ever: Mapping[str, float] = field(default_factory=dict)
    queries: Mapping[QueryKey, QueryWindow] = field(default_factory=dict)
    gaps: Mapping[str, int] = field(default_factory=dict)

    def total(self, name: str) -> float:
        """How much a counter grew; 0 where it was not read."""
        return self.totals.get(name, 0.0)

    def rate(self, name: str) -> float:
        """The same a second."""
        return self.total(name) / self.observed_s if self.observed_s > 0 else 0.0

    def mean(self, name: str) -> float:
        """A level's mean; 0 where it was not read."""
        return self.means.get(name, 0.0)

    def peak(self, name: str) -> float:
        """Its greatest reading."""
        return self.peaks.get(name, 0.0)

    def newest(self, name: str) -> float:
        """Its newest reading."""
        return self.last.get(name, 0.0)

    @property
    def calls(self) -> int:
        """Statements that ended."""
        return sum(query.calls for query in self.queries.values())

    @property
    def exec_time_ms(self) -> float:
        """Their execution time, all together."""
        return sum(query.exec_time_ms for query in self.queries.values())


class Watch:
    """Gathers snapshots into an :class:`Observation`; only the newest is kept."""

    def __init__(self) -> None:
        self._first: MetricsSnapshot | None = None
        self._last: MetricsSnapshot | None = None
        self._observed_s = 0.0
        self._totals: dict[str, float] = defaultdict(float)
        self._weighted: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        self._peaks: dict[str, float] = {}
        self._queries: Mapping[QueryKey, QueryWindow] = {}
        self._gaps: dict[str, int] = defaultdict(int)

    def add(self, snapshot: MetricsSnapshot) -> None:
        """Take in the next snapshot."""
        before, self._last = self._last, snapshot
        self._raise_peaks(snapshot.gauges)
        if before is None:
            self._first = snapshot
            return
        window = window_between(before, snapshot)
        if window is None:
            self.miss(why_no_window(before, snapshot) or "no window could be formed")
        else:
            self._add_window(window)

    def miss(self, reason: str) -> None:
        """Note why a stretch of time is not covered."""
        self._gaps[reason] += 1

    @property
    def gaps(self) -> Mapping[str, int]:
        """Why stretches of time are not covered, and how often."""
        return dict(self._gaps)

    def observation(self) -> Observation | None:
        """All that was seen so far; None before the first window."""
        if self._first is None or self._last is None or self._observed_s <= 0:
            return None
        return Observation(
            started_at=self._first.taken_at,
            ended_at=self._last.taken_at,
            observed_s=self._observed_s,
            totals=dict(self._totals),
            means={name: total / weight for name, (total, weight) in self._weighted.items()},
            peaks=dict(self._peaks),
            last=dict(self._last.gauges),
            ever=dict(self._last.counters),
            queries=self._queries,
            gaps=self.gaps,
        )

    def _add_window(self, window: MetricsWindow) -> None:
        self._observed_s += window.duration_s
        for name, rate in window.rates.items():
            self._totals[name] += rate * window.duration_s
        for name, level in window.gauges.items():
            total, weight = self._weighted[name]
            self._weighted[name] = (total + level * window.duration_s, weight + window.duration_s)
        self._raise_peaks(window.gauges)
        known = MetricsWindow(
            window.started_at, window.ended_at, window.duration_s, {}, {}, self._queries
        )
        self._queries = merge_queries((known, window))

    def _raise_peaks(self, levels: Mapping[str, float]) -> None:
        for name, level in levels.items():
            self._peaks[name] = max(level, self._peaks.get(name, level))
