"""Counters that wrap, are reset or leap: no value in that window, never a wrong one."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import host_metrics
from backend.data_collector import why_no_window, window_between
from backend.domain.metrics import MetricsSnapshot, QueryCounters, QueryKey
from backend.host_metrics import HOST_COUNTERS, HostSampler, is_possible

START = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
A, B = QueryKey(10, 5, 1), QueryKey(10, 5, 2)
LARGEST = 2**63 - 1
"""Of PostgreSQL's bigint; behind it a counter is negative."""

counts = st.integers(-(2**63), LARGEST)
readings = st.one_of(counts.map(float), st.floats())
entries = st.builds(
    QueryCounters,
    **{one.name: readings if "float" in str(one.type) else counts for one in fields(QueryCounters)},
)
names = st.sampled_from([*sorted(HOST_COUNTERS), "wal_bytes", "xact_commit"])


def snapshot(
    at_s: float,
    counters: Mapping[str, float] | None = None,
    queries: Mapping[QueryKey, QueryCounters] | None = None,
    evicted: int = 0,
    **more: Any,
) -> MetricsSnapshot:
    return MetricsSnapshot(
        START + timedelta(seconds=at_s),
        START - timedelta(hours=1),
        START - timedelta(minutes=1),
        None,
        counters=counters or {},
        queries=queries or {},
        evicted_queries=evicted,
        **more,
    )


# -- windows ----------------------------------------------------------------------------------


@given(
    st.dictionaries(names, readings),
    st.dictionaries(names, readings),
    st.dictionaries(st.sampled_from([A, B]), entries),
    st.dictionaries(st.sampled_from([A, B]), entries),
    st.integers(0, 1),
)
def test_whatever_the_counters_do_a_window_holds_no_value_that_cannot_be(
    first: dict[str, float],
    second: dict[str, float],
    queries: dict[QueryKey, QueryCounters],
    later: dict[QueryKey, QueryCounters],
    evicted: int,
) -> None:
    window = window_between(snapshot(0, first, queries), snapshot(5, second, later, evicted))
    if window is None:
        return
    for name, rate in window.rates.items():
        assert rate >= 0
        assert math.isfinite(rate)
        assert is_possible(name, rate)
    for query in window.queries.values():
        assert query.calls > 0
        grown = [getattr(query, one.name) for one in fields(query) if one.name != "key"]
        assert all(number >= 0 and math.isfinite(number) for number in grown)


@given(st.integers(1, LARGEST), st.data())
def test_a_counter_of_the_server_that_went_back_makes_no_window(
    before: int, data: st.DataObject
) -> None:
    after = data.draw(st.integers(-(2**63), before - 1).filter(lambda n: float(n) < float(before)))
    first = snapshot(0, {"wal_bytes": float(before)})
    assert "wal_bytes went back" in str(
        why_no_window(first, snapshot(5, {"wal_bytes": float(after)}))
    )


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_no_number_makes_no_window(broken: float) -> None:
    good, bad = snapshot(0, {"wal_bytes": 1.0}), snapshot(5, {"wal_bytes": broken})
    assert window_between(good, bad) is None
    assert window_between(replace(bad, taken_at=START), snapshot(5, {"wal_bytes": 9.0})) is None


@pytest.mark.parametrize("name", sorted(HOST_COUNTERS))
@pytest.mark.parametrize("after", [3.0, 1e15, math.nan])
def test_a_counter_of_the_machine_takes_no_others_with_it(name: str, after: float) -> None:
    first = snapshot(0, {name: 1000.0, "wal_bytes": 10.0})
    window = window_between(first, snapshot(5, {name: after, "wal_bytes": 20.0}))
    assert window is not None
    assert dict(window.rates) == {"wal_bytes": 2.0}


@pytest.mark.parametrize(
    "field", [one.name for one in fields(QueryCounters) if one.name != "calls"]
)
def test_an_entry_that_was_reset_and_soon_called_more_often_than_before_is_not_compared(
    field: str,
) -> None:
    before = QueryCounters(10, 900.0, 50, 50, 50, 50, 50.0, 10)
    after = replace(QueryCounters(30, 990.0, 60, 60, 60, 60, 60.0, 30), **{field: 1})
    first = snapshot(0, queries={A: before, B: QueryCounters(1, 1.0)})
    second = snapshot(5, queries={A: after, B: QueryCounters(2, 9000.0)})
    assert "were reset" in str(why_no_window(first, second))
    window = window_between(first, replace(second, evicted_queries=1))
    assert window is not None
    assert set(window.queries) == {B}


def test_a_gauge_that_is_no_number_is_left_out() -> None:
    first = snapshot(0, gauges={"xid_age": math.nan, "host_load_1m": 1.0})
    window = window_between(first, snapshot(5, gauges={"xid_age": 5.0, "host_load_1m": 2.0}))
    assert window is not None
    assert "xid_age" not in window.gauges
    assert window.gauges["host_load_1m"] == 1.5


# -- the machine ------------------------------------------------------------------------------

CpuTimes = namedtuple("CpuTimes", "user nice system idle iowait irq softirq steal guest")


class Machine:
    """A machine of four cores, and its sampler, asked every five seconds."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.user_s = self.now_s = 0.0
        none = host_metrics.CgroupLimits()
        patch.setattr(host_metrics, "cgroup_limits", lambda pid=None: none)
        patch.setattr(psutil, "cpu_count", lambda: 4)
        patch.setattr(psutil, "cpu_times", lambda: CpuTimes(self.user_s, *[0.0] * 8))
        disk = SimpleNamespace(read_bytes=0, write_bytes=0)
        patch.setattr(psutil, "disk_io_counters", lambda: disk)
        self._sampler = HostSampler(monotonic_s=lambda: self.now_s)

    def percent(self, user_s: float) -> float | None:
        """The gauge when the accounts show so many seconds."""
        self.now_s += 5.0
        self.user_s = user_s
        return self._sampler.sample().gauges.get("host_cpu_percent")


@given(st.lists(st.floats(0, 1e12), min_size=2, max_size=6))
def test_the_use_of_the_cores_is_a_share_or_unknown(accounts: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch)
        found = [machine.percent(seconds) for seconds in accounts]
    assert all(percent is None or 0 <= percent <= 100 for percent in found)


def test_accounts_that_begin_anew_cost_one_window_and_a_tick_none() -> None:
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch)
        accounts = (1000.0, 1010.0, 1009.98, 1020.0, 3.0, 13.0)
        found = [machine.percent(seconds) for seconds in accounts]
    assert found == [None, 50.0, 0.0, 50.0, None, 50.0]


def test_everything_that_is_sampled_is_known_to_be_the_machines() -> None:
    sampler = HostSampler(find_server=psutil.Process().ppid)
    assert set(sampler.sample().counters) <= HOST_COUNTERS
