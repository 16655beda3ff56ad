"""The blocks of the live comparison: each configuration against its own defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from backend.domain.knobs import KnobConfig, KnobValue
from backend.errors import ServerError, WorkloadError
from benchmarks.harness.offers import LoadCounts
from benchmarks.harness.windows import Measured
from benchmarks.live import comparison
from benchmarks.live.outcomes import CENSORED_FROM
from tests.live_comparison import SHARES, measured, with_steal


class FakeServerSide:
    """Measures a configuration as slow as told, by its work_mem."""

    def __init__(
        self,
        mean_ms: Mapping[int, float | None],
        timeouts: int = 0,
        spoilt: Mapping[int, int] | None = None,
    ) -> None:
        self._mean_ms, self._timeouts = mean_ms, timeouts
        self._spoilt = dict(spoilt or {})
        self.measured: list[int] = []
        self.shares = SHARES
        self.recovered = 0
        self.live = SimpleNamespace(recover=self._recover)

    def _recover(self) -> None:
        self.recovered += 1

    def measure(self, changes: Mapping[str, KnobValue]) -> Measured:
        """Ten times as slow while other machines take the CPU: so many times as was told."""
        key = int(changes.get("work_mem", 0))
        self.measured.append(key)
        mean_ms = self._mean_ms[key]
        if mean_ms is None:
            raise ServerError("crashed")
        if self._spoilt.get(key, 0) < 1:
            return measured(mean_ms)
        self._spoilt[key] -= 1
        return with_steal(measured(10 * mean_ms))

    def counts(self) -> LoadCounts:
        return LoadCounts(timeouts=self._timeouts)


A, B = KnobConfig({"work_mem": 1}), KnobConfig({"work_mem": 2})


def block_of(side: FakeServerSide, *order: KnobConfig) -> dict[KnobConfig, float] | None:
    running: Any = side
    return comparison._block(running, order)


def test_a_block_compares_each_configuration_with_its_own_defaults() -> None:
    side = FakeServerSide({0: 10.0, 1: 5.0, 2: 20.0})
    found = block_of(side, A, comparison.DEFAULTS, B)
    assert found == pytest.approx({A: math.log(0.5), B: math.log(2.0), comparison.DEFAULTS: 0.0})


def test_a_crash_in_a_block_counts_against_the_configuration() -> None:
    side = FakeServerSide({0: 10.0, 1: None, 2: 5.0})
    found = block_of(side, A, comparison.DEFAULTS, B)
    assert found is not None
    assert found[A] == pytest.approx(math.log(CENSORED_FROM))
    assert found[B] == pytest.approx(math.log(0.5))
    assert side.recovered == 1


def test_time_outs_count_against_the_configuration_they_began_under() -> None:
    side = FakeServerSide({0: 10.0, 1: 5.0, 2: 5.0}, timeouts=3)
    found = block_of(side, A, comparison.DEFAULTS, B)
    assert found is not None
    assert found[A] == pytest.approx(math.log(0.5))
    assert found[B] == pytest.approx(math.log(CENSORED_FROM))


def test_a_window_spoilt_from_outside_is_taken_again_but_not_for_ever() -> None:
    side = FakeServerSide({0: 10.0, 1: 5.0, 2: 20.0}, spoilt={0: 1, 1: 99})
    found = block_of(side, A, comparison.DEFAULTS, B)
    assert side.measured == [1] * (1 + comparison.TAKEN_AGAIN) + [0, 0, 2]
    assert found == pytest.approx({A: math.log(5.0), B: math.log(2.0), comparison.DEFAULTS: 0.0})


def test_a_time_out_in_a_window_that_was_spoilt_counts_too() -> None:
    side = FakeServerSide({0: 10.0, 1: 5.0}, timeouts=3)
    windows = iter(
        replace(window, before=LoadCounts(timeouts=before))
        for window, before in ((with_steal(measured(5.0)), 2), (measured(5.0), 3))
    )
    defaults = replace(measured(10.0), before=LoadCounts(timeouts=1))
    side.measure = lambda changes: next(windows) if changes else defaults  # type: ignore[method-assign]
    found = block_of(side, comparison.DEFAULTS, A)
    assert found is not None
    assert found[A] == pytest.approx(math.log(CENSORED_FROM))


def test_a_block_without_defaults_is_void() -> None:
    assert block_of(FakeServerSide({0: None, 1: 5.0}), A, comparison.DEFAULTS) is None


def test_lost_clients_end_the_comparison() -> None:
    side = FakeServerSide({0: 10.0})

    def gone(_: Mapping[str, KnobValue]) -> Measured:
        raise WorkloadError("the clients have ended")

    side.measure = gone  # type: ignore[method-assign]
    with pytest.raises(WorkloadError):
        block_of(side, comparison.DEFAULTS)
