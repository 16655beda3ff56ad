"""Merges records of one time bucket into one: pure functions.

Sums stay sums; rates, levels and judgements become means weighted by duration, statement times
means weighted by calls. Percentiles cannot be merged: theirs is the mean weighted by completed
requests, an approximation that is good for trends.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from backend.domain.records import ClientIntervalRecord, QueryWindowRecord, WindowRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def bucket_start(at: datetime, bucket_s: float) -> datetime:
    """Return the start of the bucket of ``bucket_s`` seconds (counted from 1970) around ``at``."""
    seconds = (at - _EPOCH) / timedelta(seconds=1)
    return _EPOCH + timedelta(seconds=math.floor(seconds / bucket_s) * bucket_s)


def weighted_mean(pairs: Iterable[tuple[float | None, float]]) -> float | None:
    """Mean of (value, weight) pairs; what has no finite value or no weight does not count."""
    total = weight_sum = 0.0
    for value, weight in pairs:
        if value is not None and math.isfinite(value) and weight > 0:
            total += value * weight
            weight_sum += weight
    return total / weight_sum if weight_sum > 0 else None


def merge_windows(windows: Sequence[WindowRecord]) -> WindowRecord:
    """Merge windows of one bucket, phase and configuration, with their queries.

    Raises:
        ValueError: no windows.
    """
    if not windows:
        raise ValueError("no windows to merge")
    first = windows[0]
    if len(windows) == 1:
        return first
    seconds = [window.duration_s for window in windows]
    calls = [w.calls_per_s * w.duration_s for w in windows]
    reasons = dict.fromkeys(reason for w in windows for reason in w.quality_reasons)
    return replace(
        first,
        started_at=min(w.started_at for w in windows),
        ended_at=max(w.ended_at for w in windows),
        duration_s=sum(seconds),
        index=weighted_mean(zip([w.index for w in windows], seconds, strict=True)),
        coverage=weighted_mean(zip([w.coverage for w in windows], seconds, strict=True)) or 0.0,
        quality=weighted_mean(zip([w.quality for w in windows], seconds, strict=True)) or 0.0,
        quality_reasons=tuple(reasons),
        calls_per_s=weighted_mean(zip([w.calls_per_s for w in windows], seconds, strict=True))
        or 0.0,
        mean_ms=weighted_mean(zip([w.mean_ms for w in windows], calls, strict=True)),
        rates=_merge_mappings([w.rates for w in windows], seconds),
        gauges=_merge_mappings([w.gauges for w in windows], seconds),
        queries=_merge_queries(query for w in windows for query in w.queries),
    )


def _merge_mappings(
    mappings: Sequence[Mapping[str, float]], weights: Sequence[float]
) -> Mapping[str, float]:
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    means = {
        name: weighted_mean((m.get(name), w) for m, w in zip(mappings, weights, strict=True))
        for name in names
    }
    return {name: mean for name, mean in means.items() if mean is not None}


def _merge_queries(queries: Iterable[QueryWindowRecord]) -> tuple[QueryWindowRecord, ...]:
    by_key: dict[str, list[QueryWindowRecord]] = defaultdict(list)
    for query in queries:
        by_key[query.key].append(query)
    return tuple(
        QueryWindowRecord(
            key=key,
            calls=sum(q.calls for q in same),
            mean_ms=weighted_mean((q.mean_ms, q.calls) for q in same) or 0.0,
            rows=sum(q.rows for q in same),
            shared_blocks_hit=sum(q.shared_blocks_hit for q in same),
            shared_blocks_read=sum(q.shared_blocks_read for q in same),
            temp_blocks_written=sum(q.temp_blocks_written for q in same),
        )
        for key, same in by_key.items()
    )


def merge_client_intervals(intervals: Sequence[ClientIntervalRecord]) -> ClientIntervalRecord:
    """Merge intervals of one bucket and class.

    Raises:
        ValueError: no intervals.
    """
    if not intervals:
        raise ValueError("no intervals to merge")
    if len(intervals) == 1:
        return intervals[0]

    def mean_of(name: str) -> float | None:
        return weighted_mean((getattr(i, name), i.completed) for i in intervals)

    return ClientIntervalRecord(
        started_at=min(i.started_at for i in intervals),
        ended_at=max(i.ended_at for i in intervals),
        class_name=intervals[0].class_name,
        offered=sum(i.offered for i in intervals),
        completed=sum(i.completed for i in intervals),
        errors=sum(i.errors for i in intervals),
        timeouts=sum(i.timeouts for i in intervals),
        mean_ms=mean_of("mean_ms"),
        p50_ms=mean_of("p50_ms"),
        p95_ms=mean_of("p95_ms"),
        p99_ms=mean_of("p99_ms"),
        service_mean_ms=mean_of("service_mean_ms"),
    )
