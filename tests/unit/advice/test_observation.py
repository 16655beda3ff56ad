"""Snapshots become sums, means and peaks; what breaks the counters is a gap."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from backend.advice.gathering import LEAST_SNAPSHOTS, StatedMachine, watch
from backend.advice.observation import Watch
from backend.domain.clock import ManualClock
from backend.domain.metrics import MetricsSnapshot, QueryCounters, QueryKey
from backend.domain.server import HostFacts
from backend.errors import AutopilotError, ServerConnectionError
from tests.waiting import Passing

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
KEY = QueryKey(10, 5, 1)


def snapshot(at_s: float, *, files: float = 0.0, clients: float = 1.0, calls: int = 0):
    return MetricsSnapshot(
        taken_at=START + timedelta(seconds=at_s),
        server_started_at=START,
        config_loaded_at=START,
        statistics_reset_at=None,
        counters={"temp_files": 100 + files},
        gauges={"connections_total": clients},
        queries={KEY: QueryCounters(calls, 2.0 * calls)},
    )


def test_sums_means_and_peaks_over_all_windows() -> None:
    seen = Watch()
    for one in (
        snapshot(0, clients=1, calls=10),
        snapshot(10, files=3, clients=3, calls=20),
        snapshot(30, files=4, clients=5, calls=50),
    ):
        seen.add(one)
    told = seen.observation()
    assert told is not None
    assert told.observed_s == 30
    assert told.total("temp_files") == pytest.approx(4)
    assert told.rate("temp_files") == pytest.approx(4 / 30)
    assert told.ever["temp_files"] == 104
    assert told.mean("connections_total") == pytest.approx((2 * 10 + 4 * 20) / 30)
    assert told.peak("connections_total") == 5
    assert told.newest("connections_total") == 5
    assert told.queries[KEY].calls == 40
    assert told.exec_time_ms == pytest.approx(80)


def test_a_reload_is_a_gap_and_what_came_before_and_after_counts() -> None:
    seen = Watch()
    seen.add(snapshot(0))
    seen.add(snapshot(10, files=1))
    reloaded = START + timedelta(seconds=12)
    seen.add(replace(snapshot(20, files=5), config_loaded_at=reloaded))
    seen.add(replace(snapshot(30, files=6), config_loaded_at=reloaded))
    told = seen.observation()
    assert told is not None
    assert told.observed_s == 20
    assert told.total("temp_files") == pytest.approx(2)
    assert sum(told.gaps.values()) == 1
    assert "reloaded" in next(iter(told.gaps))


class Collector:
    """Gives snapshots a second apart, and fails where it is told to."""

    def __init__(self, fail: set[int], on_call=lambda number: None) -> None:
        self.taken, self._fail, self._on_call = 0, fail, on_call

    def collect(self) -> MetricsSnapshot:
        self.taken += 1
        self._on_call(self.taken)
        if self.taken in self._fail:
            raise ServerConnectionError("lost")
        return snapshot(self.taken)


def watched(collector: Collector, stop: threading.Event, seconds: float = 1000.0):
    clock = iter(range(10_000))
    return watch(
        collector, seconds, 0.001, on_progress=lambda text, share: None, stop=stop,
        monotonic_s=lambda: float(next(clock)) * seconds / 10,
    )  # fmt: skip


def test_an_early_end_tells_what_was_seen() -> None:
    stop = threading.Event()
    collector = Collector(set(), lambda number: stop.set() if number == 2 else None)
    told = watched(collector, stop)
    assert collector.taken == 3, "a last snapshot closes the last window"
    assert told.observed_s == 2


def test_a_lost_connection_is_a_gap() -> None:
    told = watched(Collector({2}), threading.Event(), 0.01)
    assert told.gaps == {"lost": 1}
    assert told.observed_s > 0


def test_nothing_seen_is_said() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(AutopilotError, match="nothing was seen"):
        watched(Collector(set()), stop)


def test_a_short_observation_has_some_snapshots_nevertheless() -> None:
    collector, clock = Collector(set()), ManualClock()
    watch(
        collector, 8.0, 60.0, on_progress=lambda text, share: None, stop=Passing(clock),
        monotonic_s=clock.monotonic_s,
    )  # fmt: skip
    assert collector.taken == LEAST_SNAPSHOTS + 1


def test_what_the_user_says_of_the_machine_counts() -> None:
    seen = HostFacts(memory_bytes=0, cpu_count=0.0, is_local=False)
    assert StatedMachine().over(seen) == seen
    stated = StatedMachine(memory_gib=2, cores=4)
    assert stated.over(seen).memory_bytes == 2 << 30
    assert stated.over(seen).cpu_count == 4
    assert stated.told == ("2 GiB of memory", "4 cores")
