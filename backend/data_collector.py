"""From a target's readings to snapshots, and from two snapshots to a window of rates.

A window says what happened between two moments, so nothing may have broken the counters in
between: :func:`why_no_window` names the reason where one has. A counter of the machine that went
back, or leapt, has no value in this window; the others have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace

from backend.catalog.metrics import MetricsCatalogue, postgresql_metrics
from backend.domain.metrics import (
    MetricsSnapshot,
    MetricsWindow,
    QueryCounters,
    QueryKey,
    QueryWindow,
)
from backend.host_metrics import HOST_COUNTERS, HostSampler, is_possible
from backend.protocols import TargetDatabase

# With more of the execution time than this in query classes that were evicted and came back, a
# window shows too little of what ran.
MAX_EVICTED_TIME_SHARE = 0.2


class DataCollector:
    """Takes snapshots: the target's readings with those of the machine under it.

    Args:
        target: the database.
        host: the machine's sampler; None where the server is elsewhere.
    """

    def __init__(self, target: TargetDatabase, host: HostSampler | None) -> None:
        self._target = target
        self._host = host

    def collect(self) -> MetricsSnapshot:
        """Read everything once.

        Raises:
            ServerConnectionError: the server cannot be reached.
        """
        snapshot = self._target.snapshot()
        if self._host is not None:
            sample = self._host.sample()
            snapshot = replace(
                snapshot,
                counters={**snapshot.counters, **sample.counters},
                gauges={**snapshot.gauges, **sample.gauges},
            )
        return snapshot


def why_no_window(first: MetricsSnapshot, second: MetricsSnapshot) -> str | None:
    """Why no window may be formed from ``first`` to ``second``; None when it may."""
    if second.server_started_at != first.server_started_at:
        return f"the server was restarted at {second.server_started_at:%H:%M:%S}"
    if second.taken_at <= first.taken_at:
        return (
            f"the server's clock went from {first.taken_at.isoformat()} "
            f"to {second.taken_at.isoformat()}"
        )
    if second.config_loaded_at != first.config_loaded_at:
        return f"the configuration was reloaded at {second.config_loaded_at:%H:%M:%S}"
    if second.statistics_reset_at != first.statistics_reset_at:
        return f"statistics were reset at {second.statistics_reset_at or 'an unknown time'}"
    for name, before in first.counters.items():
        after = second.counters.get(name)
        if after is not None and name not in HOST_COUNTERS and not _has_grown(before, after):
            return f"the counter {name} went back from {before:g} to {after:g}"
    if _nothing_evicted(first, second):
        return _why_queries_broken(first, second)
    share = _evicted_time_share(first, second)
    if share > MAX_EVICTED_TIME_SHARE:
        return (
            f"pg_stat_statements evicted query classes that hold {share:.0%} of the execution "
            f"time (raise pg_stat_statements.max)"
        )
    return None


def window_between(
    first: MetricsSnapshot,
    second: MetricsSnapshot,
    catalogue: MetricsCatalogue | None = None,
) -> MetricsWindow | None:
    """The rates between two snapshots; None where :func:`why_no_window` has a reason.

    Counters and gauges that only one of the two holds are left out, and the machine's counters that
    cannot have grown so. A query class that only the
    second holds began inside the window and counts from zero, unless pg_stat_statements evicted
    entries meanwhile: then nobody knows, and it is left out.
    """
    if why_no_window(first, second) is not None:
        return None
    duration_s = (second.taken_at - first.taken_at).total_seconds()
    rates = {
        name: (after - first.counters[name]) / duration_s
        for name, after in second.counters.items()
        if name in first.counters and _has_grown(first.counters[name], after)
    }
    cores = second.gauges.get("host_cpu_count", 0.0)
    rates = {name: rate for name, rate in rates.items() if is_possible(name, rate, cores)}
    gauges = {
        name: (first.gauges[name] + after) / 2
        for name, after in second.gauges.items()
        if name in first.gauges and math.isfinite(first.gauges[name] + after)
    }
    queries = _query_windows(first, second)
    window = MetricsWindow(first.taken_at, second.taken_at, duration_s, rates, gauges, queries)
    derived = _derive(window, catalogue if catalogue is not None else postgresql_metrics())
    return replace(window, gauges={**gauges, **derived})


def _derive(window: MetricsWindow, catalogue: MetricsCatalogue) -> dict[str, float]:
    values = {
        **window.gauges,
        **window.rates,
        "query_calls": float(window.calls),
        "query_exec_time_ms": window.exec_time_ms,
        "query_rows": float(sum(query.rows for query in window.queries.values())),
        "duration_s": window.duration_s,
    }
    derived: dict[str, float] = {}
    for metric in catalogue.derived.values():
        value = metric.compute({**values, **derived})
        if value is not None:
            derived[metric.name] = value
    return derived


def _query_windows(
    first: MetricsSnapshot, second: MetricsSnapshot
) -> Mapping[QueryKey, QueryWindow]:
    whole = _nothing_evicted(first, second)
    windows: dict[QueryKey, QueryWindow] = {}
    for key, after in second.queries.items():
        before = first.queries.get(key)
        if before is None:
            if not whole:
                continue
            before = QueryCounters(0, 0.0)
        if after.calls == before.calls or not _goes_on(before, after):
            continue
        windows[key] = QueryWindow(
            key=key,
            calls=after.calls - before.calls,
            exec_time_ms=after.exec_time_ms - before.exec_time_ms,
            rows=after.rows - before.rows,
            shared_blocks_hit=after.shared_blocks_hit - before.shared_blocks_hit,
            shared_blocks_read=after.shared_blocks_read - before.shared_blocks_read,
            temp_blocks_written=after.temp_blocks_written - before.temp_blocks_written,
            wal_bytes=after.wal_bytes - before.wal_bytes,
        )
    return windows


def _nothing_evicted(first: MetricsSnapshot, second: MetricsSnapshot) -> bool:
    return first.evicted_queries == second.evicted_queries


def _why_queries_broken(first: MetricsSnapshot, second: MetricsSnapshot) -> str | None:
    """Without evictions an entry that shrank or vanished was reset by somebody."""
    for key, before in first.queries.items():
        after = second.queries.get(key)
        if after is None or not _goes_on(before, after):
            return f"the statistics of query class {key} were reset"
    return None


def _evicted_time_share(first: MetricsSnapshot, second: MetricsSnapshot) -> float:
    """Share of the window's known execution time in classes that cannot be compared."""
    compared_ms = lost_ms = 0.0
    for key, after in second.queries.items():
        before = first.queries.get(key)
        if before is None or not _goes_on(before, after):
            lost_ms += after.exec_time_ms
        else:
            compared_ms += after.exec_time_ms - before.exec_time_ms
    total_ms = compared_ms + lost_ms
    return lost_ms / total_ms if total_ms > 0 else 0.0


def _has_grown(before: float, after: float) -> bool:
    """Whether a counter can be compared: it did not go back, and both are numbers."""
    return math.isfinite(before) and math.isfinite(after) and after >= before


def _goes_on(before: QueryCounters, after: QueryCounters) -> bool:
    """Whether it is the same entry still: one that was evicted or reset begins at zero again."""
    return all(
        _has_grown(getattr(before, one.name), getattr(after, one.name))
        for one in fields(QueryCounters)
    )
