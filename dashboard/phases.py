"""Phase-by-phase comparison: what a run's phases looked like next to each other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from backend.domain.modes import Phase
from backend.domain.records import ClientIntervalRecord, WindowRecord
from dashboard import metric_names as names
from dashboard.figures import deployed


@dataclass(frozen=True)
class PhaseSummary:
    """One phase under the deployed configuration; medians over its windows or intervals.

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


def summarise(
    windows: Sequence[WindowRecord], intervals: Sequence[ClientIntervalRecord]
) -> list[PhaseSummary]:
    """One summary a phase that has windows, in the order of the run."""
    summaries: list[PhaseSummary] = []
    for phase in Phase:
        rows = [w for w in deployed(windows) if w.phase is phase]
        if not rows or phase is Phase.STARTING:
            continue
        index = _median([w.index for w in rows])
        spans = [(w.started_at, w.ended_at) for w in rows]
        low, high = spans[0][0], spans[-1][1]
        mine = [i for i in intervals if low <= i.started_at and i.ended_at <= high]

        def client(
            read: Callable[[ClientIntervalRecord], float | None],
            mine: Sequence[ClientIntervalRecord] = mine,
        ) -> float | None:
            return _median([read(i) for i in mine])

        summaries.append(
            PhaseSummary(
                phase=phase,
                duration_s=(high - low).total_seconds(),
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
