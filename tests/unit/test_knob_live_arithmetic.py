"""The arithmetic of the live comparison: means, gains, differences and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.live.arithmetic import (
    NOTHING,
    best_of,
    cumulative_regret,
    difference_interval,
    gain_interval,
    is_harmful,
    mean_interval,
    regret_so_far,
    spread,
    stratified_interval,
)


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.30, 0.34, 0.28, 0.33, 0.31, 0.30]
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 5, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high))
    assert found.blocks == 6


def test_one_block_has_no_interval_and_none_has_no_mean() -> None:
    one = mean_interval([0.2])
    assert one.value == 0.2
    assert (one.low, one.high) == (-math.inf, math.inf)
    assert str(one) == "+0.200"
    assert mean_interval([]) is NOTHING
    assert str(NOTHING) == "-"


def test_strata_count_alike_whatever_their_size() -> None:
    found = stratified_interval([[0.1, 0.1], [0.4, 0.4, 0.4, 0.4]])
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


def test_the_strata_interval_is_that_of_welch() -> None:
    a, b = [0.10, 0.16, 0.13], [0.40, 0.44, 0.36, 0.48]
    found = stratified_interval([a, b])
    parts = [np.var(v, ddof=1) / len(v) for v in (a, b)]
    freedom = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts)) / 2
    assert found.value == pytest.approx((np.mean(a) + np.mean(b)) / 2)
    assert found.high - found.value == pytest.approx(half)


def test_a_stratum_of_one_block_leaves_the_error_unknown() -> None:
    found = stratified_interval([[0.1, 0.2], [0.3]])
    assert found.value == pytest.approx(0.225)
    assert found.high == math.inf


def test_a_gain_is_one_minus_the_geometric_mean_of_the_ratios() -> None:
    logs = [math.log(0.5), None, math.log(0.6), math.log(0.55)]
    found = gain_interval([logs])
    known = [value for value in logs if value is not None]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(known), scale=stats.sem(known))
    assert found.value == pytest.approx(1 - (0.5 * 0.6 * 0.55) ** (1 / 3))
    assert (found.low, found.high) == pytest.approx((1 - math.exp(high), 1 - math.exp(low)))
    assert found.blocks == 3
    assert gain_interval([[None]]) is NOTHING


def test_a_difference_is_positive_where_ours_is_faster() -> None:
    found = difference_interval([([math.log(0.5)] * 3, [math.log(0.9)] * 3)])
    assert (found.low, found.value, found.high) == pytest.approx((0.4, 0.4, 0.4))


def test_a_difference_is_the_difference_of_the_gains() -> None:
    ours = [math.log(v) for v in (0.5, 0.61, 0.52)]
    peer = [math.log(v) for v in (0.7, 0.66, 0.8)]
    found = difference_interval([(ours, peer)])
    assert found.value == pytest.approx(gain_interval([ours]).value - gain_interval([peer]).value)
    assert found.low < found.value < found.high


def test_the_noise_of_the_defaults_is_not_in_a_difference() -> None:
    noise = [-0.3, 0.2, 0.4, -0.1]
    found = difference_interval([([n - 0.5 for n in noise], [n - 0.4 for n in noise])])
    assert found.high - found.low == pytest.approx(0.0, abs=1e-12)


def test_a_difference_uses_blocks_that_hold_both() -> None:
    found = difference_interval([([math.log(0.5), None, 0.0], [math.log(0.7), 0.0, None])])
    assert found.value == pytest.approx(0.2)
    assert found.blocks == 1
    assert found.low == -math.inf  # one block: anything, but never faster than no time at all
    assert found.high == pytest.approx(0.7)


def test_regret_counts_from_the_best_known_by_then() -> None:
    assert regret_so_far([1.3, 0.8, 0.9, 0.7]) == pytest.approx([0.3, 0.0, 0.1, 0.0])


def test_cumulative_regret_counts_from_the_best_of_the_cell() -> None:
    assert cumulative_regret([1.3, 0.8, 0.55], 0.6) == pytest.approx(0.7 + 0.2 - 0.05)


@pytest.mark.parametrize(("objective", "harmful"), [(1.05, False), (1.0999, False), (1.11, True)])
def test_harm_begins_at_ten_per_cent(objective: float, harmful: bool) -> None:
    assert is_harmful(objective) is harmful


def test_the_best_leaves_out_what_is_unknown() -> None:
    assert best_of({"a": 0.1, "b": math.nan, "c": 0.3}) == "c"
    assert best_of({"b": math.nan}) is None
    assert spread([0.4]) == 0.0
