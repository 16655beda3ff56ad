"""Snapshots to windows: the rates, and every reason why there may be none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.data_collector import DataCollector, why_no_window, window_between
from backend.domain.metrics import MetricsSnapshot, QueryCounters, QueryKey
from backend.host_metrics import HostSample

START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
A, B, C = (QueryKey(10, 5, n) for n in (1, 2, 3))


def snapshot(
    at_s: float = 0.0,
    counters: Mapping[str, float] | None = None,
    gauges: Mapping[str, float] | None = None,
    queries: Mapping[QueryKey, QueryCounters] | None = None,
    **changes: Any,
) -> MetricsSnapshot:
    return replace(
        MetricsSnapshot(
            taken_at=START + timedelta(seconds=at_s),
            server_started_at=START - timedelta(days=1),
            config_loaded_at=START - timedelta(hours=1),
            statistics_reset_at=START - timedelta(hours=2),
            counters=counters or {},
            gauges=gauges or {},
            queries=queries or {},
        ),
        **changes,
    )


# -- windows ----------------------------------------------------------------------------------


def test_counters_become_rates_and_gauges_means() -> None:
    first = snapshot(0, {"xact_commit": 100, "wal_bytes": 5}, {"connections_active": 2})
    second = snapshot(10, {"xact_commit": 350, "wal_bytes": 5}, {"connections_active": 5})
    window = window_between(first, second)
    assert window is not None
    assert window.duration_s == 10
    assert (window.started_at, window.ended_at) == (first.taken_at, second.taken_at)
    assert window.rates == {"xact_commit": 25.0, "wal_bytes": 0.0}
    assert window.gauges["connections_active"] == 3.5


def test_derived_metrics_are_computed_from_the_window() -> None:
    first = snapshot(
        0,
        {
            "blocks_hit": 0,
            "blocks_read": 0,
            "xact_commit": 0,
            "xact_rollback": 0,
            "host_busy_s": 0,
            "host_clock_s": 7,
        },
        {"host_cpu_count": 4, "host_cpu_percent": 99},
        {A: QueryCounters(10, 100.0, rows=10)},
    )
    second = snapshot(
        10,
        {
            "blocks_hit": 900,
            "blocks_read": 100,
            "xact_commit": 45,
            "xact_rollback": 5,
            "host_busy_s": 20,
            "host_clock_s": 17.0,
        },
        {"host_cpu_count": 4, "host_cpu_percent": 1},
        {A: QueryCounters(30, 500.0, rows=70)},
    )
    window = window_between(first, second)
    assert window is not None
    gauges = window.gauges
    assert gauges["cache_hit_ratio"] == pytest.approx(0.9)
    assert gauges["tps"] == pytest.approx(5.0)
    assert gauges["rollback_ratio"] == pytest.approx(0.1)
    # Exactly over the window, not the mean of what each snapshot saw before it.
    assert gauges["host_cpu_percent"] == pytest.approx(50.0)
    assert gauges["queries_per_s"] == pytest.approx(2.0)
    assert gauges["query_mean_ms"] == pytest.approx(20.0)
    assert gauges["query_rows_per_call"] == pytest.approx(3.0)
    assert "wal_sync_mean_ms" not in gauges


def test_what_one_snapshot_lacks_is_left_out() -> None:
    first = snapshot(0, {"wal_bytes": 1, "old": 1}, {"xid_age": 1})
    window = window_between(first, snapshot(1, {"wal_bytes": 2, "new": 9}, {"lag": 1}))
    assert window is not None
    assert set(window.rates) == {"wal_bytes"}
    assert not {"xid_age", "lag"} & set(window.gauges)


def test_query_classes_by_difference() -> None:
    first = snapshot(
        0, queries={A: QueryCounters(10, 100.0, 5, 6, 7, 8, 9.0), B: QueryCounters(4, 8.0)}
    )
    second = snapshot(
        5,
        queries={
            A: QueryCounters(15, 160.0, 10, 12, 14, 16, 18.0),
            B: QueryCounters(4, 8.0),
            C: QueryCounters(2, 3.0),
        },
    )
    window = window_between(first, second)
    assert window is not None
    a, c = window.queries[A], window.queries[C]
    assert (a.calls, a.exec_time_ms, a.rows, a.wal_bytes) == (5, 60.0, 5, 9.0)
    assert (a.shared_blocks_hit, a.shared_blocks_read, a.temp_blocks_written) == (6, 7, 8)
    assert a.mean_ms == pytest.approx(12.0)
    assert (c.calls, c.exec_time_ms) == (2, 3.0)  # new, so it counts from zero
    assert B not in window.queries  # did not run
    assert window.calls == 7


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10**9), min_size=1),
    st.floats(0.5, 3600),
    st.data(),
)
def test_rates_times_duration_is_the_growth(
    before: dict[str, int], duration_s: float, data: st.DataObject
) -> None:
    growth = {name: data.draw(st.integers(0, 10**9)) for name in before}
    second = snapshot(duration_s, {name: before[name] + growth[name] for name in before})
    window = window_between(snapshot(0, before), second)
    assert window is not None
    for name, grown in growth.items():
        assert window.rates[name] * window.duration_s == pytest.approx(grown, rel=1e-9)


# -- no windows -------------------------------------------------------------------------------

BASE = snapshot(0, {"wal_bytes": 10}, queries={A: QueryCounters(10, 100.0)})
NEXT = snapshot(5, {"wal_bytes": 20}, queries={A: QueryCounters(20, 200.0)})


def test_a_plain_pair_forms_a_window() -> None:
    assert why_no_window(BASE, NEXT) is None
    assert window_between(BASE, NEXT) is not None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"server_started_at": START + timedelta(seconds=2)}, "restarted at 12:00:02"),
        ({"config_loaded_at": START + timedelta(seconds=3)}, "reloaded at 12:00:03"),
        ({"statistics_reset_at": START + timedelta(seconds=1)}, "statistics were reset"),
        ({"statistics_reset_at": None}, "statistics were reset"),
        ({"taken_at": START}, "clock"),
        ({"taken_at": START - timedelta(seconds=1)}, "clock"),
        ({"counters": {"wal_bytes": 9}}, "wal_bytes went back from 10 to 9"),
        ({"queries": {A: QueryCounters(3, 9.0)}}, "statistics of query class .* were reset"),
        ({"queries": {}}, "statistics of query class .* were reset"),
    ],
)
def test_reasons_against_a_window(changes: dict[str, Any], reason: str) -> None:
    second = replace(NEXT, **changes)
    assert window_between(BASE, second) is None
    why = why_no_window(BASE, second)
    assert why is not None
    assert re.search(reason, why)


def test_with_evictions_only_classes_that_can_be_compared_count() -> None:
    first = snapshot(0, queries={A: QueryCounters(10, 100.0), B: QueryCounters(50, 90.0)})
    second = snapshot(
        5,
        queries={
            A: QueryCounters(20, 300.0),
            B: QueryCounters(2, 4.0),  # evicted, and back
            C: QueryCounters(1, 2.0),  # new, or evicted before: nobody knows
        },
        evicted_queries=3,
    )
    window = window_between(first, second)
    assert window is not None
    assert set(window.queries) == {A}


def test_a_class_that_vanished_by_eviction_is_no_reset() -> None:
    first = snapshot(0, queries={A: QueryCounters(10, 100.0), B: QueryCounters(50, 90.0)})
    second = snapshot(5, queries={A: QueryCounters(20, 300.0)}, evicted_queries=1)
    assert why_no_window(first, second) is None


def test_too_many_evictions_form_no_window() -> None:
    first = snapshot(0, queries={A: QueryCounters(10, 100.0)})
    second = snapshot(
        5, queries={A: QueryCounters(20, 170.0), C: QueryCounters(1, 30.0)}, evicted_queries=1
    )
    why = why_no_window(first, second)
    assert why is not None
    assert "30%" in why
    assert "pg_stat_statements.max" in why
    assert window_between(first, second) is None


# -- collecting -------------------------------------------------------------------------------


class Target:
    def snapshot(self) -> MetricsSnapshot:
        return snapshot(0, {"wal_bytes": 1}, {"xid_age": 2}, {A: QueryCounters(1, 1.0)})


class Host:
    def sample(self) -> HostSample:
        return HostSample({"host_busy_s": 3.0}, {"host_load_1m": 4.0})


def test_the_hosts_readings_join_the_targets() -> None:
    taken = DataCollector(Target(), Host()).collect()  # type: ignore[arg-type]
    assert taken.counters == {"wal_bytes": 1, "host_busy_s": 3.0}
    assert taken.gauges == {"xid_age": 2, "host_load_1m": 4.0}
    assert taken.queries[A].calls == 1


def test_a_remote_server_has_no_host_readings() -> None:
    taken = DataCollector(Target(), None).collect()  # type: ignore[arg-type]
    assert taken.counters == {"wal_bytes": 1}
