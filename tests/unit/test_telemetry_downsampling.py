"""Merging keeps totals and weighs means."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.service_latency import merged
from backend.telemetry.downsampling import (
    bucket_start,
    merge_client_intervals,
    merge_windows,
    weighted_mean,
)
from tests.contracts import records as full


@pytest.mark.parametrize(
    ("minute", "second", "start_minute"), [(4, 59, 0), (5, 0, 5), (9, 59, 5), (0, 0, 0)]
)
def test_bucket_start(minute: int, second: int, start_minute: int) -> None:
    hour = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    at = hour + timedelta(minutes=minute, seconds=second)
    assert bucket_start(at, 300) == hour + timedelta(minutes=start_minute)


@given(st.floats(0, 4e9), st.floats(1, 1e5))
def test_a_time_lies_in_its_bucket(seconds: float, bucket_s: float) -> None:
    at = datetime.fromtimestamp(seconds, timezone.utc)
    start = bucket_start(at, bucket_s)
    slack = timedelta(milliseconds=1)  # The bucket's length is no whole number of microseconds.
    assert start - slack <= at <= start + timedelta(seconds=bucket_s) + slack


def test_weighted_mean() -> None:
    assert weighted_mean([(1.0, 1), (4.0, 3), (None, 9), (math.nan, 9), (7.0, 0)]) == 3.25
    assert weighted_mean([(None, 1.0)]) is None
    assert weighted_mean([]) is None


def test_statement_means_weigh_by_calls_and_the_rest_by_duration() -> None:
    long = full.window(duration_s=30.0, calls_per_s=1.0, mean_ms=10.0, index=1.0)
    short = full.window(
        1,
        duration_s=10.0,
        calls_per_s=9.0,
        mean_ms=2.0,
        index=2.0,
        quality_reasons=("other",),
        gauges={"new": 3.0},
    )
    merged = merge_windows([long, short])
    assert merged.mean_ms == pytest.approx((30 * 10 + 90 * 2) / 120)
    assert merged.calls_per_s == pytest.approx(120 / 40)
    assert merged.index == pytest.approx((30 * 1 + 10 * 2) / 40)
    assert merged.duration_s == 40.0
    assert merged.quality_reasons == (*long.quality_reasons, "other")
    assert merged.gauges == {"host_cpu_percent": 61.0, "new": 3.0}
    assert merged.started_at == long.started_at
    assert merged.ended_at == short.ended_at
    assert [q.calls for q in merged.queries] == [24, 2]
    assert merged.queries[0].mean_ms == pytest.approx(3.5)


def test_one_stays_as_it_is_and_none_is_an_error() -> None:
    assert merge_windows([full.window()]) == full.window()
    assert merge_client_intervals([full.INTERVAL]) == full.INTERVAL
    with pytest.raises(ValueError, match="no windows"):
        merge_windows([])
    with pytest.raises(ValueError, match="no intervals"):
        merge_client_intervals([])
    assert merged([full.SERVICE_TIMING]) == replace(full.SERVICE_TIMING, id=None)
    with pytest.raises(ValueError, match="no timings"):
        merged([])


@given(st.lists(st.dictionaries(st.integers(-400, 400), st.integers(1, 2**40)), min_size=1))
def test_merging_timings_loses_no_execution(buckets: list[dict[int, int]]) -> None:
    timings = [
        replace(full.SERVICE_TIMING, executions=sum(counts.values()), buckets=counts)
        for counts in buckets
    ]
    one = merged(timings)
    assert one.executions == sum(one.buckets.values())
    assert one.executions == sum(timing.executions for timing in timings)
    assert one.cancelled == full.SERVICE_TIMING.cancelled * len(timings)
