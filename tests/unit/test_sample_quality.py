"""Sample quality: what costs a window its quality is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.sample_filter import load_profile, outside_events, sample_quality
from tests.window_strategies import ANY_CLASSES, RATES, few
from tests.windows import poisson_window, window

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
    assert quality.value < 0.3
