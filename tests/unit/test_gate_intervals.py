"""The intervals that the gate judges by."""

from __future__ import annotations

import math
from statistics import fmean, median

import numpy as np
import pytest

from backend.gate import Interval, class_intervals, t_interval


def test_an_interval_is_relative_and_holds_the_mean():
    interval = Interval.of_log(math.log(0.75), math.log(1.1))
    assert interval.effect == pytest.approx(-0.25)
    assert interval.low == pytest.approx(0.75 / 1.1 - 1)
    assert interval.high == pytest.approx(0.75 * 1.1 - 1)


def test_students_interval_matches_a_textbook_example():
    # Mean 0.0, variance 0.02 / 3, n = 4, t(0.95, 3) = 2.3534.
    interval = t_interval([-0.1, 0.0, 0.0, 0.1], 0.05)
    margin = 2.3534 * math.sqrt(0.02 / 3 / 4)
    assert interval.high == pytest.approx(math.expm1(margin), rel=1e-4)
    assert interval.low == pytest.approx(math.expm1(-margin), rel=1e-4)


@pytest.mark.parametrize("blocks", [[], [0.1]])
def test_an_interval_needs_two_blocks(blocks):
    with pytest.raises(ValueError, match=rf"at least 2 blocks, not {len(blocks)}"):
        t_interval(blocks, 0.05)


@pytest.mark.parametrize("classes", [1, 2, 12])
def test_class_intervals_miss_as_seldom_as_they_say(classes):
    """At four blocks each side misses 5 %, however few classes lend each other their variance."""
    rng = np.random.default_rng(5)
    rows = rng.normal(0, 0.1, (1000, classes, 4))
    missed = 0
    for row in rows:
        found = class_intervals({str(n): values.tolist() for n, values in enumerate(row)}, 0.05)
        missed += found["0"].high < 0
    # 5 % of 1000 is 50, with a standard deviation of 7.
    assert missed / len(rows) <= 0.07


def test_of_two_blocks_each_the_mean_of_the_variances_is_typical():
    """Their median is less than half of the true variance: the bounds would miss twice as often."""
    rng = np.random.default_rng(6)
    missed = {"mean": 0, "median": 0}
    for row in rng.normal(0, 0.1, (300, 8, 2)):
        logs = {str(n): values.tolist() for n, values in enumerate(row)}
        for name, typical in (("mean", fmean), ("median", median)):
            found = class_intervals(logs, 0.05, typical=typical)
            missed[name] += sum(interval.high < 0 for interval in found.values())
    # 5 % of 2400 is 120, with a standard deviation of 11.
    assert missed["mean"] <= 155
    assert missed["median"] >= 190


def test_a_class_borrows_its_variance_from_the_others():
    """A class that by chance repeats itself is not taken for noiseless."""
    lucky = [0.0, 0.0001, -0.0001, 0.0]
    noisy = {str(n): [0.1, -0.1, 0.12, -0.09] for n in range(5)}
    alone = class_intervals({"lucky": lucky}, 0.05)["lucky"]
    among = class_intervals({"lucky": lucky, **noisy}, 0.05)["lucky"]
    assert among.high - among.low > 50 * (alone.high - alone.low)


def test_a_class_seen_in_one_block_has_no_interval():
    assert class_intervals({"a": [0.1]}, 0.05) == {}
    assert set(class_intervals({"a": [0.1], "b": [0.1, 0.2]}, 0.05)) == {"b"}
