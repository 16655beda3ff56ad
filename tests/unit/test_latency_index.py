"""The latency index, paired ratios and chains: composition alone never moves them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.sample_filter import (
    MIN_CALLS,
    IndexChain,
    Reference,
    class_log_ratios,
    latency_index,
    merge_queries,
    paired_log_ratio,
)
from tests.window_strategies import ANY_CLASSES, CALLS, CLASSES, few
from tests.windows import key, window

# -- the index --------------------------------------------------------------------------------


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


# -- pairs and chains -------------------------------------------------------------------------


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
