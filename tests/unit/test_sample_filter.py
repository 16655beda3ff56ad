"""The sample-aware filter: latency index, load distance and sample quality."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.catalog.metrics import postgresql_metrics
from backend.domain.load import LoadProfile
from backend.sample_filter import (
    MIN_CALLS,
    IndexChain,
    Reference,
    class_log_ratios,
    common_share,
    latency_index,
    load_distance,
    load_profile,
    merge_queries,
    offers_more,
    outside_events,
    paired_log_ratio,
    sample_quality,
    window_noise,
)
from tests.windows import key, poisson_window, window

few = settings(deadline=None, max_examples=40)
CALLS = st.integers(MIN_CALLS, 10_000)
RATE = st.just(0.0) | st.floats(1e-3, 1000)
MEAN_MS = st.floats(0.01, 10_000)
CLASSES = st.dictionaries(st.integers(0, 30), st.tuples(CALLS, MEAN_MS), min_size=1, max_size=12)
ANY_CLASSES = st.dictionaries(
    st.integers(0, 30), st.tuples(st.integers(0, 50), st.floats(0, 10_000)), max_size=12
)


# -- the index ------------------------------------------------------------------------------


@few
@given(CLASSES)
def test_the_index_of_the_reference_itself_is_one(classes):
    there = window(classes)
    index = latency_index([there], Reference.from_windows([there]))
    assert index.value == pytest.approx(1.0)
    assert index.coverage == pytest.approx(1.0)
    assert index.classes == len(classes)


@few
@given(CLASSES, st.data())
def test_composition_alone_cannot_move_the_index(classes, data):
    reference = Reference.from_windows([window(classes)])
    other_mix = {n: (data.draw(CALLS), mean_ms) for n, (_, mean_ms) in classes.items()}
    assert latency_index([window(other_mix)], reference).value == pytest.approx(1.0)


@few
@given(CLASSES, st.floats(0.01, 100))
def test_the_index_scales_with_all_times(classes, factor):
    reference = Reference.from_windows([window(classes)])
    slower = window({n: (calls, mean * factor) for n, (calls, mean) in classes.items()})
    assert latency_index([slower], reference).value == pytest.approx(factor)


def test_a_class_weighs_by_its_share_of_the_reference_time():
    # 100 * 1 ms + 10 * 30 ms: the second class holds 300 of 400 ms.
    reference = Reference.from_windows([window({1: (100, 1.0), 2: (10, 30.0)})])
    assert reference.time_share(key(2)) == pytest.approx(0.75)
    halved = window({1: (100, 1.0), 2: (10, 15.0)})
    assert latency_index([halved], reference).value == pytest.approx(1 - 0.75 / 2)


@few
@given(ANY_CLASSES, ANY_CLASSES)
def test_coverage_stays_in_bounds_whatever_ran(before, now):
    reference = Reference.from_windows([window(before)])
    index = latency_index([window(now)], reference)
    paired = paired_log_ratio([window(now)], [window(before)], reference)
    if index is not None:
        assert 0 <= index.coverage <= 1
        assert index.value >= 0
    if paired is not None:
        assert 0 <= paired[1] <= 1
        assert math.isfinite(paired[0])


def test_a_class_that_vanished_is_told_by_coverage_not_by_the_value():
    reference = Reference.from_windows([window({1: (100, 1.0), 2: (10, 30.0)})])
    index = latency_index([window({1: (100, 2.0)})], reference)
    assert index.value == pytest.approx(2.0)
    assert index.coverage == pytest.approx(0.25)
    assert index.classes == 1


def test_classes_seen_too_rarely_or_only_now_are_not_compared():
    reference = Reference.from_windows([window({1: (100, 1.0), 2: (MIN_CALLS - 1, 50.0)})])
    assert set(reference.per_class) == {key(1)}
    now = window({1: (MIN_CALLS - 1, 9.0), 3: (100, 1.0)})
    assert latency_index([now], reference) is None


def test_nothing_to_compare_gives_none_and_not_a_division_by_zero():
    empty = Reference.from_windows([])
    assert empty.exec_time_ms == 0
    assert empty.time_share(key(1)) == 0
    assert latency_index([window({1: (10, 1.0)})], empty) is None
    no_time = Reference.from_windows([window({1: (10, 0.0)})])
    assert latency_index([window({1: (10, 1.0)})], no_time) is None
    assert paired_log_ratio([window({1: (10, 0.0)})], [window({1: (10, 1.0)})], no_time) is None


def test_windows_are_added_up_by_class():
    merged = merge_queries([window({1: (10, 1.0), 2: (5, 2.0)}), window({1: (30, 3.0)})])
    assert merged[key(1)].calls == 40
    assert merged[key(1)].mean_ms == pytest.approx((10 * 1 + 30 * 3) / 40)
    assert merged[key(2)].calls == 5


# -- what a load and a reference have in common -------------------------------------------


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


# -- pairs and chains -----------------------------------------------------------------------


@few
@given(CLASSES, st.floats(0.1, 10))
def test_two_arms_compare_by_the_fixed_shares(classes, factor):
    shares = Reference.from_windows([window(classes)])
    candidate = window({n: (calls, mean * factor) for n, (calls, mean) in classes.items()})
    log_ratio, coverage = paired_log_ratio([candidate], [window(classes)], shares)
    assert log_ratio == pytest.approx(math.log(factor), abs=1e-9)
    assert coverage == pytest.approx(1.0)


def test_swapping_the_arms_turns_the_sign_for_a_uniform_effect():
    shares = Reference.from_windows([window({1: (50, 1.0), 2: (50, 10.0)})])
    a, b = window({1: (50, 1.0), 2: (50, 10.0)}), window({1: (50, 1.3), 2: (50, 13.0)})
    there, _ = paired_log_ratio([b], [a], shares)
    back, _ = paired_log_ratio([a], [b], shares)
    assert there == pytest.approx(-back)


def test_the_pair_ignores_classes_outside_the_fixed_set():
    shares = Reference.from_windows([window({1: (50, 1.0)})])
    a = window({1: (50, 1.0), 9: (50, 1.0)})
    b = window({1: (50, 1.0), 9: (50, 100.0)})
    assert paired_log_ratio([b], [a], shares)[0] == pytest.approx(0.0)


def test_the_pair_tells_what_the_compared_classes_hold():
    shares = Reference.from_windows([window({1: (100, 1.0), 2: (10, 30.0)})])
    log_ratio, coverage = paired_log_ratio(
        [window({1: (50, 2.0)})], [window({1: (50, 1.0), 2: (5, 30.0)})], shares
    )
    assert log_ratio == pytest.approx(math.log(2))
    assert coverage == pytest.approx(0.25)


def test_class_log_ratios_leave_out_what_was_seen_too_rarely():
    ratios = class_log_ratios(
        [window({1: (50, 2.0), 2: (1, 9.0), 3: (50, 0.0)})],
        [window({1: (50, 1.0), 2: (50, 1.0), 3: (50, 1.0)})],
        [key(1), key(2), key(3), key(4)],
    )
    assert ratios == {key(1): pytest.approx(math.log(2))}


@few
@given(CLASSES, st.lists(st.floats(0.2, 2.0), min_size=1, max_size=6))
def test_a_chain_multiplies_the_effects_of_its_links(classes, factors):
    chain = IndexChain(Reference.from_windows([window(classes)]))
    present = window(classes)
    for factor in factors:
        present = window(
            {str_key.queryid: (q.calls, q.mean_ms * factor)
             for str_key, q in present.queries.items()}
        )  # fmt: skip
        chain = chain.link(math.log(factor), [present])
        # Right after a link the present windows are the reference, so only the factor speaks.
        assert chain.publish([present]).value == pytest.approx(chain.factor)
    assert chain.factor == pytest.approx(math.prod(factors))


def test_a_chain_keeps_its_reference_when_the_new_windows_hold_nothing():
    first = Reference.from_windows([window({1: (50, 1.0)})])
    chain = IndexChain(first).link(math.log(0.5), [])
    assert chain.reference is first
    assert chain.publish([window({1: (50, 1.0)})]).value == pytest.approx(0.5)
    assert chain.publish([window({2: (50, 1.0)})]) is None


# -- load -----------------------------------------------------------------------------------

RATES = (20.0, 10.0, 5.0, 2.0, 1.0, 0.4)


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


# -- quality --------------------------------------------------------------------------------

STEADY = window({1: (100, 1.0), 2: (50, 2.0)})


def test_a_good_window_has_full_quality_and_nothing_to_explain():
    quality = sample_quality(
        STEADY, coverage=0.9, paired=load_profile(STEADY), halves=(STEADY, STEADY)
    )
    assert quality.value == 1
    assert quality.reasons == ()
    assert set(quality.factors) == {"coverage", "load", "steadiness", "outside"}


@few
@given(
    ANY_CLASSES,
    ANY_CLASSES,
    ANY_CLASSES,
    st.floats(0, 1),
    st.floats(0, 100),
    st.floats(0, 3),
)
def test_quality_stays_in_bounds_and_low_quality_is_explained(
    now, paired, half, coverage, steal, maintenance
):
    quality = sample_quality(
        window(now, gauges={"host_steal_percent": steal, "maintenance_running": maintenance}),
        coverage=coverage,
        paired=load_profile(window(paired)),
        halves=(window(half, 5), window(now, 5)),
    )
    assert 0 <= quality.value <= 1
    assert quality.value == pytest.approx(math.prod(quality.factors.values()))
    if quality.value < 0.6:
        assert quality.reasons


def test_an_empty_window_is_worth_nothing():
    quality = sample_quality(window({}), coverage=1.0)
    assert quality.value == 0
    assert quality.reasons == ("no statement ran in the window",)


def test_lacking_coverage_is_named_with_both_shares():
    quality = sample_quality(STEADY, coverage=0.35, min_coverage=0.7)
    assert quality.value == pytest.approx(0.5)
    assert "35%" in quality.reasons[0]
    assert "70%" in quality.reasons[0]
    assert sample_quality(STEADY, coverage=0.0, min_coverage=0.0).value == 1


def test_a_load_apart_from_its_pair_is_named_with_both_rates():
    doubled = window({1: (200, 1.0), 2: (100, 2.0)})
    quality = sample_quality(doubled, coverage=1.0, paired=load_profile(STEADY))
    assert quality.value < 0.5
    (reason,) = quality.reasons
    assert "30.0/s" in reason
    assert "15.0/s" in reason


def test_a_load_that_moved_inside_the_window_is_named_with_both_halves():
    first, second = window({1: (50, 1.0)}, 5), window({1: (200, 1.0)}, 5)
    quality = sample_quality(window({1: (250, 1.0)}), coverage=1.0, halves=(first, second))
    assert quality.value < 0.3
    (reason,) = quality.reasons
    assert "10.0/s" in reason
    assert "40.0/s" in reason


def test_a_half_without_any_statement_spoils_the_window():
    halves = (window({}, 5), window({1: (100, 1.0)}, 5))
    assert sample_quality(window({1: (100, 1.0)}), coverage=1.0, halves=halves).value == 0


@pytest.mark.parametrize(
    ("gauges", "word"),
    [({"maintenance_running": 0.5}, "maintenance"), ({"host_steal_percent": 12.0}, "12 %")],
)
def test_outside_events_are_named_and_cost_quality(gauges, word):
    disturbed = window({1: (100, 1.0)}, gauges=gauges)
    (event,) = outside_events(disturbed)
    assert word in event
    quality = sample_quality(disturbed, coverage=1.0)
    assert quality.value == pytest.approx(0.3)
    assert event in quality.reasons


def test_a_little_steal_is_no_event():
    assert outside_events(window({1: (9, 1.0)}, gauges={"host_steal_percent": 4.0})) == ()


def test_the_same_poisson_load_keeps_most_of_its_quality():
    rng = np.random.default_rng(4)
    values = []
    for _ in range(500):
        a, b = poisson_window(rng, RATES, 5), poisson_window(rng, RATES, 5)
        whole, other = poisson_window(rng, RATES), poisson_window(rng, RATES)
        values.append(
            sample_quality(whole, coverage=1.0, paired=load_profile(other), halves=(a, b)).value
        )
    assert np.mean(np.array(values) >= 0.8) >= 0.9
    assert np.mean(np.array(values) < 0.3) <= 0.01


@pytest.mark.parametrize("calls_per_s", [12.0, 40.0, 200.0])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_pair_at_half_or_double_the_load_falls_below_the_floor_of_trials(calls_per_s, factor):
    """0.3 is level1.min_quality: such a window is repeated, at slow and at busy servers."""
    calls = int(10 * calls_per_s)
    there, here = window({1: (calls, 5.0)}), window({1: (int(calls * factor), 5.0)})
    quality = sample_quality(here, coverage=1.0, paired=load_profile(there))
    assert quality.value < 0.3 or min(calls, calls * factor) < 100
