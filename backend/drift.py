"""Drift: whether what stands should be looked at again. Pure; the look itself is a trial.

A configuration was proven at one moment. Later the data has grown, planner statistics are others,
the load has moved, or something that nobody sees has changed. :class:`DriftWatch` takes the windows
of what stands and says when a *recheck* is due (recheck.py, docs/drift.md). It undoes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median

from backend.domain.load import LoadProfile
from backend.domain.metrics import MetricsWindow, QueryKey
from backend.sample_filter import (
    IndexChain,
    load_distance,
    load_profile,
    merge_queries,
    offers_more,
)

LOOK_S = 60.0
"""Windows are taken together until they last so long: one *look*. Neighbouring looks hang together
far less than neighbouring windows do."""
ALLOWANCE = 0.75
"""Of each look, so many of its standard deviations are taken off the rise before it is added up."""
ALARM_AT = 8.0
"""The sum of what is left, in standard deviations of a look, at which a rise is taken for one."""
MOST_A_LOOK = 3.0
"""No look adds more: a single one that a backup has spoilt is no lasting rise."""
NEWEST_LOOKS = 20
"""The looks that tell how far two neighbours lie apart."""
LEAST_DIFFERENCES = 5
"""Below so many differences of neighbours the workload's own noise stands in, doubled: it is that
of neighbouring windows, which slow swings leave out."""
MEDIAN_OF_ABSOLUTE = 0.6745 * math.sqrt(2.0)
"""Median of |difference| of two independent normal values of standard deviation 1."""
STRONG_WINDOWS = 2.0
"""All windows of so many trial windows' time beyond the limit: a strong alarm."""
STRONG_NOISES = 2.5
"""A window counts towards it only beyond so many of its standard deviations."""
GROWN = 0.2
"""Share by which the database or its rows must have changed."""
LEAST_ROWS = 10_000
"""Below it rows come and go by more than that every minute."""
MOVED = math.log(1.5)
"""Distance of offered loads (see sample_filter) at which the load has moved ..."""
MOVED_LOOKS = 10
"""... when all of the newest looks, so many, are so far away."""
WATCHED_GAUGES = ("database_size_bytes", "live_tuples")


@dataclass(frozen=True)
class DriftLimits:
    """What matters.

    Args:
        min_improvement: a rise of less than this share is none.
        rollback_threshold: a rise by more than this share, window after window, is urgent.
        window_s: length of a trial's window.
        min_coverage: share of the reference's time that must run in what is compared with it.
    """

    min_improvement: float = 0.02
    rollback_threshold: float = 0.15
    window_s: float = 10.0
    min_coverage: float = 0.7


@dataclass(frozen=True)
class Noted:
    """What was measured of what stands when it was last proven or looked at.

    Attributes:
        at: when that was.
        index: its published latency index then.
        due_at: when it is to be looked at again at the latest, whatever is seen; None: never.
        why_due: said then, for people.
        gauges: levels of the server then; see ``WATCHED_GAUGES``.
        load: what was offered then; None takes what the first look sees.
    """

    at: datetime
    index: float
    due_at: datetime | None = None
    why_due: str = "a long time has passed"
    gauges: Mapping[str, float] | None = None
    load: LoadProfile | None = None


@dataclass(frozen=True)
class Alarm:
    """A recheck is due. ``urgent``: a probe or promotion is broken off for it."""

    reason: str
    urgent: bool = False


class RiseTest:
    """One-sided CUSUM on log indexes (Page 1954, doi:10.1093/biomet/41.1-2.100).

        S = max(0, S + min((x - level - allowance) / sd, MOST_A_LOOK))    alarm at S > ALARM_AT

    with ``allowance = max(ALLOWANCE * sd, smallest)``. *sd* is a look's standard deviation. The
    median of the differences of neighbours tells it, which neither a step nor a slow swing moves.

    Args:
        noise: standard deviation of a look, at least.
        smallest: log of the smallest rise that matters.
    """

    def __init__(self, noise: float, smallest: float) -> None:
        self._noise, self._smallest = noise, smallest
        self._newest: deque[float] = deque(maxlen=NEWEST_LOOKS)
        self.sum = 0.0

    def add(self, rise: float) -> None:
        """Take a look's log index less the level."""
        self._newest.append(rise)
        spread = self._spread()
        allowance = max(ALLOWANCE * spread, self._smallest)
        self.sum = max(0.0, self.sum + min((rise - allowance) / spread, MOST_A_LOOK))

    @property
    def risen(self) -> bool:
        """Whether the level has risen."""
        return self.sum > ALARM_AT

    @property
    def rise(self) -> float:
        """Mean of the newest looks' log indexes less the level; 0 before the first."""
        return fmean(list(self._newest)[-3:]) if self._newest else 0.0

    def _spread(self) -> float:
        apart = [abs(b - a) for a, b in pairwise(self._newest)]
        if len(apart) < LEAST_DIFFERENCES:
            return 2.0 * self._noise
        return max(self._noise, median(apart) / MEDIAN_OF_ABSOLUTE)


class DriftWatch:
    """Watches what stands, in one workload. Without :meth:`begin` it sees nothing.

    A window tells by its log index, less what another load than the noted one may explain: a higher
    index under more load is taken for lower by the distance of the loads, a lower one under less
    load for higher. Time-outs of a saturated server are the safety monitor's part.
    """

    def __init__(self, limits: DriftLimits) -> None:
        self._limits = limits
        self._noted: Noted | None = None
        self._began_anew(noise=1.0)

    def begin(self, noted: Noted, noise: float) -> None:
        """Begin anew.

        Args:
            noted: what stands now is compared with.
            noise: standard deviation of the log index of one trial window, above 0.
        """
        self._noted = noted
        self._began_anew(noise)

    @property
    def noted(self) -> Noted | None:
        """What it compares with; None while nothing is watched."""
        return self._noted

    def stop(self) -> None:
        """Nothing stands that could be undone."""
        self._noted = None

    def _began_anew(self, noise: float) -> None:
        smallest = -math.log1p(-self._limits.min_improvement)
        self._noise = noise
        self._rise = RiseTest(self._deviation(LOOK_S), smallest)
        self._look: list[MetricsWindow] = []
        self._strong: deque[tuple[float, bool]] = deque(maxlen=100)
        self._far: deque[bool] = deque(maxlen=MOVED_LOOKS)
        self._gauges: Mapping[str, float] = {}
        self._stale: float | None = None
        self._analysed = 0.0

    def _deviation(self, seconds: float) -> float:
        return self._noise * math.sqrt(self._limits.window_s / seconds)

    # -- windows in -------------------------------------------------------------------------

    def observe(self, window: MetricsWindow, chain: IndexChain) -> None:
        """Take a sound window of what stands, of the workload that ``chain`` belongs to."""
        noted = self._noted
        if noted is None:
            return
        self._levels(window, noted)
        self._look.append(window)
        if noted.load is not None:
            rise = self._beyond_load([window], chain, noted, noted.load)
            if rise is not None:
                limit = max(
                    math.log1p(self._limits.rollback_threshold),
                    STRONG_NOISES * self._deviation(window.duration_s),
                )
                self._strong.append((window.duration_s, rise > limit))
        if sum(w.duration_s for w in self._look) >= LOOK_S:
            look, self._look = self._look, []
            self._close(look, chain, noted)

    def _close(self, look: Sequence[MetricsWindow], chain: IndexChain, noted: Noted) -> None:
        whole = merged(look)
        if noted.load is None:
            self._noted = noted = replace(noted, load=load_profile(whole))
        assert noted.load is not None  # set just now
        rise = self._beyond_load(look, chain, noted, noted.load)
        if rise is not None:
            self._rise.add(rise)
            distance = load_distance(
                load_profile(whole), noted.load, whole.duration_s, chain.reference.costs_ms
            )
            self._far.append(distance > MOVED)

    def _beyond_load(
        self,
        windows: Sequence[MetricsWindow],
        chain: IndexChain,
        noted: Noted,
        then: LoadProfile,
    ) -> float | None:
        """Log index less the noted one, but for what the load may explain; None: not comparable."""
        index = chain.publish(windows)
        if index is None or index.value <= 0 or index.coverage < self._limits.min_coverage:
            return None
        whole = merged(windows)
        return beyond_load(
            math.log(index.value / noted.index),
            load_profile(whole),
            then,
            whole.duration_s,
            chain.reference.costs_ms,
        )

    def _levels(self, window: MetricsWindow, noted: Noted) -> None:
        self._gauges = window.gauges
        if noted.gauges is None:
            self._noted = replace(noted, gauges=watched(window))
        stale = window.gauges.get("modified_since_analyze")
        if stale is not None:
            fallen = (self._stale or 0.0) - stale
            self._analysed += max(fallen, 0.0)
            self._stale = stale

    # -- alarms out -------------------------------------------------------------------------

    def alarm(self, now: datetime) -> Alarm | None:
        """Why a recheck is due; None where none is."""
        noted = self._noted
        if noted is None:
            return None
        if self._is_strong():
            limit = self._limits.rollback_threshold
            return Alarm(f"the index is more than {limit:.0%} above {noted.index:.2f}", urgent=True)
        if self._rise.risen:
            rise = math.expm1(self._rise.rise)
            return Alarm(f"the index has risen by {rise:.0%} from {noted.index:.2f}")
        changed = self._changed(noted)
        if changed:
            return Alarm(changed)
        if noted.due_at is not None and now >= noted.due_at:
            return Alarm(noted.why_due)
        return None

    def _is_strong(self) -> bool:
        enough_s = STRONG_WINDOWS * self._limits.window_s
        lasted_s = 0.0
        for duration_s, beyond in reversed(self._strong):
            if not beyond:
                return False
            lasted_s += duration_s
            if lasted_s >= enough_s:
                return True
        return False

    def _changed(self, noted: Noted) -> str:
        """What has changed around it, for people; "" for nothing."""
        then, now = noted.gauges or {}, self._gauges
        grown = math.log1p(GROWN)
        before, after = (g.get("database_size_bytes", 0.0) for g in (then, now))
        if before > 0 and after > 0 and abs(math.log(after / before)) > grown:
            return f"the database has changed from {before / 1e9:.2f} GB to {after / 1e9:.2f} GB"
        before, after = (g.get("live_tuples", 0.0) for g in (then, now))
        if min(before, after) >= LEAST_ROWS and abs(math.log(after / before)) > grown:
            return f"the tables' rows have changed from {before:.3g} to {after:.3g}"
        if after >= LEAST_ROWS and self._analysed > GROWN * after:
            share = self._analysed / after
            return f"planner statistics were renewed: {share:.0%} of the rows had changed"
        if len(self._far) == MOVED_LOOKS and all(self._far):
            return f"the offered load is another for {MOVED_LOOKS * LOOK_S / 60:.0f} minutes"
        return ""


def beyond_load(
    rise: float,
    now: LoadProfile,
    then: LoadProfile,
    duration_s: float,
    costs_ms: Mapping[QueryKey, float],
) -> float:
    """A log ratio of indexes, brought nearer to 0 by what the difference of loads may explain.

    On a server that is not saturated statements get slower by at most about as much as the load
    grows (sample_filter: by 2 to 9 % for 8 %), so the distance of the loads is that bound.
    """
    if rise == 0.0 or (rise > 0.0) is not offers_more(now, then, costs_ms):
        return rise
    distance = load_distance(now, then, duration_s, costs_ms)
    return math.copysign(max(abs(rise) - distance, 0.0), rise)


def merged(windows: Sequence[MetricsWindow]) -> MetricsWindow:
    """Several windows as one; levels are the newest window's, rates the means over the time."""
    seconds = sum(window.duration_s for window in windows)
    names = {name for window in windows for name in window.rates}
    return MetricsWindow(
        started_at=windows[0].started_at,
        ended_at=windows[-1].ended_at,
        duration_s=seconds,
        rates={
            name: sum(w.rates.get(name, 0.0) * w.duration_s for w in windows) / seconds
            for name in names
        },
        gauges=windows[-1].gauges,
        queries=merge_queries(windows),
    )


def watched(window: MetricsWindow) -> Mapping[str, float]:
    """The levels that a later recheck may be due for."""
    return {name: window.gauges[name] for name in WATCHED_GAUGES if name in window.gauges}
