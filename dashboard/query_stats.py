"""What the windows tell about each query class. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.domain.deployed import deployed_windows
from backend.domain.records import QueryWindowRecord, TrialRecord, WindowRecord

RECENT_WINDOWS = 20


@dataclass(frozen=True)
class QueryStats:
    """One query class over the newest windows.

    ``share`` is its share of the total execution time; ``hits`` the share of its blocks found in
    shared buffers. ``trend``, its mean times in ms, oldest first, and ``change``, of its mean time
    from the oldest windows to the newest, tell of the deployed configuration alone.
    """

    key: str
    total_ms: float
    share: float
    calls_per_s: float
    mean_ms: float
    change: float | None
    rows_per_call: float
    hits: float | None
    temp_blocks_per_call: float
    trend: tuple[float, ...]


def _mean_ms(rows: Sequence[QueryWindowRecord]) -> float | None:
    calls = sum(r.calls for r in rows)
    return sum(r.calls * r.mean_ms for r in rows) / calls if calls else None


def query_stats(windows: Sequence[WindowRecord], trials: Sequence[TrialRecord]) -> list[QueryStats]:
    """One entry a class that ran in the newest windows, by total time."""
    recent = windows[-RECENT_WINDOWS:]
    seconds = sum(w.duration_s for w in recent)
    if not seconds:
        return []
    by_key: dict[str, list[QueryWindowRecord]] = {}
    for window in recent:
        for query in window.queries:
            by_key.setdefault(query.key, []).append(query)
    series: dict[str, list[QueryWindowRecord]] = {}
    for window in deployed_windows(windows, trials):
        for query in window.queries:
            if query.key in by_key:
                series.setdefault(query.key, []).append(query)
    everything = sum(r.calls * r.mean_ms for rows in by_key.values() for r in rows)
    result = []
    for key, rows in by_key.items():
        calls = sum(r.calls for r in rows)
        mean = _mean_ms(rows)
        if not calls or mean is None:
            continue
        hit = sum(r.shared_blocks_hit for r in rows)
        touched = hit + sum(r.shared_blocks_read for r in rows)
        history = series.get(key, [])
        first, last = _mean_ms(history[:RECENT_WINDOWS]), _mean_ms(history[-RECENT_WINDOWS:])
        long_enough = len(history) >= 2 * RECENT_WINDOWS
        result.append(
            QueryStats(
                key=key,
                total_ms=calls * mean,
                share=calls * mean / everything if everything else 0.0,
                calls_per_s=calls / seconds,
                mean_ms=mean,
                change=last / first - 1 if first and last and long_enough else None,
                rows_per_call=sum(r.rows for r in rows) / calls,
                hits=hit / touched if touched else None,
                temp_blocks_per_call=sum(r.temp_blocks_written for r in rows) / calls,
                trend=tuple(r.mean_ms for r in history[-120:]),
            )
        )
    return sorted(result, key=lambda s: -s.total_ms)
