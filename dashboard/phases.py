"""Phase-by-phase comparison: what a run's phases looked like next to each other. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from backend.domain.deployed import deployed_windows
from backend.domain.modes import Phase
from backend.domain.records import ClientIntervalRecord, TrialRecord, WindowRecord
from dashboard import metric_names as names
from dashboard.figures import phase_spans


@dataclass(frozen=True)
class PhaseSummary:
    """One phase under the deployed configuration; medians over its windows or intervals.

    ``duration_s`` is how long the phase lasted in all, trials included: phases take turns.
    ``index`` of the baseline is 1 by definition where its windows have none: it is the reference.
    Times in ms, ``cpu`` and ``hits`` in percent, ``calls_per_s`` statements a second.
    """

    phase: Phase
    duration_s: float
    windows: int
    index: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    calls_per_s: float | None
    cpu: float | None
    hits: float | None


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return median(known) if known else None


def _inside(
    intervals: Sequence[ClientIntervalRecord], windows: Sequence[WindowRecord]
) -> list[ClientIntervalRecord]:
    """The intervals whose middle lies in one of the windows, which are in order and apart."""
    starts = [w.started_at for w in windows]

    def within(at: datetime) -> bool:
        place = bisect.bisect_right(starts, at) - 1
        return place >= 0 and at < windows[place].ended_at

    return [i for i in intervals if within(i.started_at + (i.ended_at - i.started_at) / 2)]


def summarise(
    windows: Sequence[WindowRecord],
    intervals: Sequence[ClientIntervalRecord],
    trials: Sequence[TrialRecord],
) -> list[PhaseSummary]:
    """One summary a phase that has windows, in the order of the run."""
    summaries: list[PhaseSummary] = []
    lived = deployed_windows(windows, trials)
    lasted_s = dict.fromkeys(Phase, 0.0)
    for phase, began, ended in phase_spans(windows):
        lasted_s[phase] += (ended - began).total_seconds()
    for phase in Phase:
        rows = [w for w in lived if w.phase is phase]
        if not rows or phase is Phase.STARTING:
            continue
        index = _median([w.index for w in rows])
        mine = _inside(intervals, rows)

        def client(
            read: Callable[[ClientIntervalRecord], float | None],
            mine: Sequence[ClientIntervalRecord] = mine,
        ) -> float | None:
            return _median([read(i) for i in mine])

        summaries.append(
            PhaseSummary(
                phase=phase,
                duration_s=lasted_s[phase],
                windows=len(rows),
                index=1.0 if index is None and phase is Phase.BASELINE else index,
                mean_ms=_median([w.mean_ms for w in rows]),
                p50_ms=client(lambda i: i.p50_ms),
                p95_ms=client(lambda i: i.p95_ms),
                p99_ms=client(lambda i: i.p99_ms),
                calls_per_s=_median([w.calls_per_s for w in rows]),
                cpu=_median([names.CPU.read(w) for w in rows]),
                hits=_median([names.CACHE_HITS.read(w) for w in rows]),
            )
        )
    return summaries
