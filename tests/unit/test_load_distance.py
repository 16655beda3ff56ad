"""What loads have in common, how far they lie apart, and what is read of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.catalog.metrics import postgresql_metrics
from backend.domain.load import LoadProfile
from backend.sample_filter import (
    MIN_CALLS,
    Reference,
    common_share,
    load_distance,
    load_profile,
    offers_more,
    window_noise,
)
from tests.window_strategies import ANY_CLASSES, CLASSES, RATES, few
from tests.windows import key, poisson_window, window

RATE = st.just(0.0) | st.floats(1e-3, 1000)


# -- what a load and a reference have in common -----------------------------------------------


@few
@given(CLASSES)
def test_a_load_has_all_in_common_with_its_own_reference(classes):
    there = window(classes)
    assert common_share([there], Reference.from_windows([there])) == pytest.approx(1.0)


@few
@given(CLASSES, ANY_CLASSES)
def test_the_common_share_is_a_share(classes, others):
    share = common_share([window(others)], Reference.from_windows([window(classes)]))
    assert 0.0 <= share <= 1.0


def test_the_common_share_is_the_lower_of_both_sides():
    reference = Reference.from_windows([window({1: (100, 3.0), 2: (100, 1.0)})])
    assert common_share([window({3: (100, 1.0)})], reference) == 0.0
    # Class 2 rests: three quarters of the reference's time are left.
    assert common_share([window({1: (100, 3.0)})], reference) == pytest.approx(0.75)
    # Both run, and hold a third of the time that the server is busy.
    busy = window({1: (100, 3.0), 2: (100, 1.0), 3: (100, 8.0)})
    assert common_share([busy], reference) == pytest.approx(1 / 3)
    # Slower statements of known classes change nothing of what is offered.
    assert common_share([window({1: (100, 30.0), 2: (1, 1.0)})], reference) == pytest.approx(1.0)


def test_statements_that_hardly_come_back_do_not_count_against_a_reference():
    reference = Reference.from_windows([window({1: (100, 3.0)})])
    rare = dict.fromkeys(range(10, 20), (MIN_CALLS - 1, 500.0))
    assert common_share([window({1: (100, 3.0), **rare})], reference) == pytest.approx(1.0)


def test_a_class_that_was_hardly_to_be_expected_is_not_missed():
    reference = Reference.from_windows([window({1: (980, 1.0), 2: (20, 1000.0)})])
    # It holds 95 % of the time in 2 % of the statements.
    assert common_share([window({1: (140, 1.0)})], reference) == pytest.approx(1.0)
    assert common_share([window({1: (160, 1.0)})], reference) < 0.1


def test_an_empty_reference_has_nothing_in_common():
    assert common_share([window({1: (100, 3.0)})], Reference({})) == 0.0


# -- load -------------------------------------------------------------------------------------


def _distance(rng, rates_a, rates_b, duration_s=10.0):
    a, b = (load_profile(poisson_window(rng, rates, duration_s)) for rates in (rates_a, rates_b))
    return load_distance(a, b, duration_s)


@pytest.mark.parametrize("duration_s", [5.0, 10.0, 60.0])
def test_chance_alone_hardly_counts_as_a_distance(duration_s):
    rng = np.random.default_rng(1)
    found = [_distance(rng, RATES, RATES, duration_s) for _ in range(1000)]
    # exp(-2 * 0.05) = 0.9: a window of the same load keeps its quality.
    assert np.mean(np.array(found) <= 0.05) >= 0.95


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_half_or_double_the_load_lies_far_apart(factor):
    rng = np.random.default_rng(2)
    found = [_distance(rng, RATES, np.array(RATES) * factor) for _ in range(200)]
    assert np.quantile(found, 0.05) > 0.3
    assert np.median(found) == pytest.approx(math.log(2) - 2 * math.sqrt(2 / 190), abs=0.2)


def test_another_mix_at_the_same_rate_lies_far_apart():
    rng = np.random.default_rng(3)
    found = [_distance(rng, RATES, RATES[::-1]) for _ in range(200)]
    assert np.quantile(found, 0.05) > 0.3


@few
@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    RATE,
    RATE,
)
def test_the_distance_is_symmetric_and_never_negative(p, q, rate_a, rate_b):
    a, b = (
        LoadProfile(rate, {key(n): x / (sum(mix) or 1) for n, x in enumerate(mix)}, clients=1)
        for rate, mix in ((rate_a, p), (rate_b, q))
    )
    there, back = load_distance(a, b, 10.0), load_distance(b, a, 10.0)
    assert there >= 0
    assert there == pytest.approx(back)
    assert load_distance(a, a, 10.0) == 0


def test_idle_against_busy_is_infinitely_far():
    idle, busy = LoadProfile(0, {}, 0), LoadProfile(10, {key(1): 1.0}, 1)
    assert load_distance(idle, busy, 10) == math.inf
    assert load_distance(idle, idle, 10) == 0


MANY = {1: (400, 1.0), 2: (40, 10.0)}
COSTS_MS = {key(1): 1.0, key(2): 10.0, key(3): 2000.0}


def test_a_batch_job_of_few_heavy_statements_shows_in_the_work_alone():
    quiet, busy = load_profile(window(MANY)), load_profile(window({**MANY, 3: (8, 2000.0)}))
    assert load_distance(quiet, busy, 10) < 0.05
    assert load_distance(quiet, busy, 10, COSTS_MS) > 1
    assert load_distance(quiet, busy, 10, COSTS_MS) == load_distance(busy, quiet, 10, COSTS_MS)


def test_a_class_that_the_reference_does_not_know_costs_what_it_took():
    quiet, busy = load_profile(window(MANY)), load_profile(window({**MANY, 3: (8, 2000.0)}))
    known = {key(1): 1.0, key(2): 10.0}
    expected = load_distance(quiet, busy, 10, COSTS_MS)
    assert load_distance(quiet, busy, 10, known) == pytest.approx(expected)


def test_how_slow_the_server_was_does_not_change_the_work():
    fast, slow = window(MANY), window({n: (calls, 5 * ms) for n, (calls, ms) in MANY.items()})
    assert load_distance(load_profile(fast), load_profile(slow), 10, COSTS_MS) == 0


def test_chance_alone_hardly_counts_as_more_work():
    rng = np.random.default_rng(5)
    costs = {key(n): ms for n, ms in enumerate((1.0, 2.0, 5.0, 20.0, 50.0, 200.0))}
    found = []
    for _ in range(1000):
        a, b = (load_profile(poisson_window(rng, RATES)) for _ in range(2))
        found.append(load_distance(a, b, 10.0, costs) - load_distance(a, b, 10.0))
    assert np.mean(np.array(found) <= 0.05) >= 0.95


def test_more_is_more_statements_or_more_work():
    usual, fewer = load_profile(window(MANY)), load_profile(window({1: (200, 1.0), 2: (20, 10.0)}))
    heavier = load_profile(window({1: (390, 1.0), 2: (39, 10.0), 3: (8, 2000.0)}))
    assert offers_more(usual, fewer, COSTS_MS)
    assert not offers_more(fewer, usual, COSTS_MS)
    assert offers_more(heavier, usual, COSTS_MS)
    assert not offers_more(usual, usual, COSTS_MS)


def _course(levels, calls=1000):
    """Windows of 5 s at those levels of load; at load 2 all takes 1.8 times as long."""
    noise = np.random.default_rng(6).normal(0, 0.02, len(levels))
    return [
        window({1: (int(calls * level), (1 + 0.8 * (level - 1)) * math.exp(off))}, 5)
        for level, off in zip(levels, noise, strict=True)
    ]


def test_the_noise_of_a_window_leaves_out_neighbours_of_different_load():
    steady, swinging = _course([1.0] * 40), _course([1.0, 1.0, 2.0, 2.0] * 10)
    reference = Reference.from_windows(steady)
    for windows in (steady, swinging):
        found = window_noise(windows, reference, comparable_only=True)
        assert found == pytest.approx(0.02, rel=0.4)
    assert window_noise(swinging, reference, comparable_only=False) > 0.2
    assert window_noise(steady[:3], reference, comparable_only=True) is None


def test_the_profile_reads_offered_load_and_use():
    profile = load_profile(
        window(
            {1: (30, 1.0), 2: (10, 1.0)},
            duration_s=20,
            gauges={
                "connections_active": 2, "connections_idle": 3,
                "connections_idle_in_transaction": 1, "host_cpu_percent": 55,
                "host_memory_percent": 40,
            },
            rates={
                "host_read_bytes": 100, "host_write_bytes": 20,
                "checkpoints_timed": 0.05, "checkpoints_requested": 0.1,
            },
        )
    )  # fmt: skip
    assert profile.calls_per_s == 2
    assert profile.mix == {key(1): 0.75, key(2): 0.25}
    assert (profile.clients, profile.active_sessions) == (6, 2)
    assert (profile.cpu_percent, profile.memory_percent) == (55, 40)
    assert profile.io_bytes_per_s == 120
    assert profile.checkpoints == pytest.approx(3)


def test_the_profile_of_an_empty_window():
    assert load_profile(window({})) == LoadProfile(0.0, {}, 0.0)


def test_every_metric_that_the_filter_reads_is_in_the_catalogue():
    read = {
        "connections_active", "connections_idle", "connections_idle_in_transaction",
        "host_cpu_percent", "host_memory_percent", "host_read_bytes", "host_write_bytes",
        "checkpoints_timed", "checkpoints_requested", "maintenance_running",
        "host_steal_percent", "longest_statement_s",
    }  # fmt: skip
    catalogue = postgresql_metrics()
    assert read <= set(catalogue.metrics) | set(catalogue.derived)
