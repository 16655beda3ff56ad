"""What steered classes did in service: percentiles, fair ratios, intervals that hold."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from backend.domain.service_latency import (
    FEWEST_EXECUTIONS,
    ServiceHours,
    class_service,
    hourly,
    merged,
    service_latency,
)
from tests.steered_classes import KEY, OTHER_KEY, START, timing

HOUR = timedelta(hours=1)


def _random_times(seed, count, median_s=0.01, spread=0.5):
    return list(median_s * np.random.default_rng(seed).lognormal(0, spread, count))


# -- each arm by itself ------------------------------------------------------------------------


def test_an_arm_in_figures():
    times_s = _random_times(0, 20_000)
    steered = class_service([timing("steered", times_s, cancelled=3, failed=2)]).steered
    assert steered.executions == 20_000
    assert steered.mean_ms == pytest.approx(np.mean(times_s) * 1e3)
    for name, share in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
        assert getattr(steered, name) == pytest.approx(
            np.percentile(times_s, share) * 1e3, rel=0.03
        )
    assert (steered.cancelled, steered.failed) == (3, 2)


@pytest.mark.parametrize("time_s", [2e-7, 1e-6, 0.00123, 0.5, 90.0])
def test_a_percentile_of_one_execution_is_at_most_a_bucket_off(time_s):
    steered = class_service([timing("steered", [time_s])]).steered
    for quantile_ms in (steered.p50_ms, steered.p95_ms, steered.p99_ms):
        assert quantile_ms / 1e3 == pytest.approx(max(time_s, 1e-6), rel=0.091)


def test_an_arm_that_never_ended_well_has_no_times():
    service = class_service([timing("steered", [], cancelled=4)])
    assert service.steered.mean_ms is None
    assert service.steered.p50_ms is None
    assert service.steered.cancelled == 4
    assert service.default.executions == 0


def test_classes_are_told_apart_and_only_the_last_hint_set_counts():
    found = service_latency(
        [
            timing("steered", [0.5], START, hint_set="the one before"),
            timing("steered", [0.01], START + HOUR),
            timing("steered", [0.03], START + 2 * HOUR),
            timing("default", [0.2], START, key=OTHER_KEY),
        ]
    )
    assert set(found) == {KEY, OTHER_KEY}
    assert found[KEY].steered.mean_ms == pytest.approx(20.0)
    assert (found[KEY].began_at, found[KEY].hint_set) == (START + HOUR, "no_nestloop")
    assert service_latency([]) == {}


def test_merging_loses_nothing_but_the_moments():
    parts = [timing("steered", _random_times(seed, 50, spread=1)) for seed in range(4)]
    one = merged(parts)
    assert one.executions == 200 == sum(one.buckets.values())
    assert one.total_s == pytest.approx(sum(part.total_s for part in parts))
    later = [timing(arm, [0.01], START + HOUR) for arm in ("steered", "default")]
    assert [len(hourly(some)) for some in (parts, later, parts + later)] == [1, 2, 3]


# -- the ratio ---------------------------------------------------------------------------------


def _service(ratio, default=400, steered=4000, spread=0.5, seed=1):
    return class_service(
        [
            timing("default", _random_times(seed, default, 0.02, spread)),
            timing("steered", _random_times(seed + 1, steered, 0.02 * ratio, spread)),
        ]
    )


@pytest.mark.parametrize("ratio", [0.3, 0.8, 1.0, 1.6])
def test_the_ratio_is_that_of_the_means(ratio):
    service = _service(ratio)
    raw = service.steered.mean_ms / service.default.mean_ms - 1
    assert service.ratio.effect == pytest.approx(raw, abs=0.01)
    assert service.ratio.low < ratio - 1 < service.ratio.high
    assert service.typical.low < ratio - 1 < service.typical.high
    assert service.hindrance == ""


def test_more_executions_make_the_interval_narrower():
    few, many = (_service(0.8, default=count).ratio for count in (50, 5000))
    assert many.high - many.low < (few.high - few.low) / 3
    assert many.high < 0 < few.high


def test_too_few_executions_are_no_ratio():
    assert _service(0.5, default=FEWEST_EXECUTIONS).ratio is not None
    service = _service(0.5, default=FEWEST_EXECUTIONS - 1)
    assert service.ratio is None
    assert service.hindrance == "too few executions of the default plan (19)"
    assert "steered plan (5)" in _service(0.5, steered=5).hindrance


def test_arms_that_ran_at_different_times_are_not_compared():
    service = class_service(
        [
            timing("default", _random_times(1, 400, 0.1), START),
            timing("steered", _random_times(2, 4000, 0.01), START + HOUR),
        ]
    )
    assert service.ratio is None
    assert "same hours" in service.hindrance


def test_a_slow_hour_with_a_larger_default_share_is_not_held_against_the_default_plan():
    # Ten times slower for both, and half of the executions under the default plan: the raw means
    # say that steered executions take a quarter of the time, but both plans are alike.
    service = class_service(
        [
            timing("default", _random_times(1, 100, 0.01), START),
            timing("steered", _random_times(2, 5000, 0.01), START),
            timing("default", _random_times(3, 1000, 0.1), START + HOUR),
            timing("steered", _random_times(4, 1000, 0.1), START + HOUR),
        ]
    )
    assert service.steered.mean_ms < 0.4 * service.default.mean_ms
    assert service.ratio.effect == pytest.approx(0, abs=0.1)
    assert service.typical.effect == pytest.approx(0, abs=0.1)
    assert service.ratio.low < 0 < service.ratio.high


def test_means_and_most_executions_may_say_the_opposite():
    steered = _random_times(1, 40_000, 0.012, 0.1)
    default = [*_random_times(2, 9800, 0.01, 0.1), *_random_times(3, 200, 2.0, 0.1)]
    service = class_service([timing("default", default), timing("steered", steered)])
    assert service.ratio.effect < -0.5
    assert service.typical.low > 0


def test_equal_times_do_not_make_the_interval_a_point():
    service = class_service([timing("default", [0.02] * 30), timing("steered", [0.01] * 300)])
    assert service.ratio.low < -0.5 < service.ratio.high < 0


def test_a_few_short_executions_out_of_a_heavy_tail_prove_nothing():
    # One execution in 200 takes 100 times as long. Those under the default plan had luck.
    steered = [0.01] * 19_900 + [1.0] * 100
    service = class_service([timing("default", [0.0101] * 150), timing("steered", steered)])
    assert service.ratio.effect > 0.4
    assert service.ratio.low < 0


def test_what_the_default_plan_was_once_seen_to_do_counts_in_later_hours():
    tail = [0.01] * 1990 + [1.0] * 10
    steered = [timing("steered", [0.012] * 1000, START + hour * HOUR) for hour in range(2)]
    lucky = timing("default", [0.01] * 200, START + HOUR)
    only_luck = ServiceHours([*steered, lucky]).compare()[0]
    seen_before = ServiceHours([*steered, timing("default", tail), lucky]).compare(first=1)[0]
    assert only_luck.effect == pytest.approx(seen_before.effect)
    assert only_luck.low > 0 > seen_before.low


def test_from_a_later_hour_on():
    timings = []
    for hour in range(4):
        at, ratio = START + hour * HOUR, 0.5 if hour < 3 else 2.0
        timings += [
            timing("default", _random_times(hour, 300, 0.01), at),
            timing("steered", _random_times(hour + 9, 3000, 0.01 * ratio), at),
        ]
    hours = ServiceHours(timings)
    assert len(hours.hours) == 4
    assert hours.compare()[0].effect < 0
    assert hours.compare(first=3)[0].effect == pytest.approx(1.0, abs=0.15)
    assert hours.compare(first=4) == (None, None)


@pytest.mark.parametrize("count", [25, 200])
@pytest.mark.parametrize("spread", [0.2, 1.0, 2.0])
def test_equal_plans_are_never_proven_apart(count, spread):
    for seed in range(60):
        service = _service(1.0, default=count, steered=count * 20, spread=spread, seed=1000 * seed)
        assert service.ratio.low < 0 < service.ratio.high
