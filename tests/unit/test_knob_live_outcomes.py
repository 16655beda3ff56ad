"""What a trial of the live comparison came to, and what is left behind for it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from backend.domain.knobs import KnobConfig
from benchmarks.harness.offers import LoadCounts
from benchmarks.harness.windows import Measured
from benchmarks.live.outcomes import (
    CENSORED_FROM,
    Outcome,
    as_whole,
    best_measured,
    judge,
    lowest_measured,
    measured_indexes,
    next_to_confirm,
)
from tests.live_comparison import SHARES, measured, with_steal


def test_a_trial_is_judged_against_the_defaults_around_it() -> None:
    found = judge(measured(8.0), [measured(10.0), measured(14.0)], SHARES, 0, "")
    assert found.objective == pytest.approx(8.0 / 12.0)
    assert not found.censored
    assert found.quality == pytest.approx(1.0)
    assert found.coverage == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("candidate", "timeouts", "crash", "objective", "reason"),
    [
        (None, 0, "gone", CENSORED_FROM, "gone"),
        (measured(5.0), 2, "", CENSORED_FROM, "2 statements timed out"),
        (measured(30.0), 2, "", 3.0, "2 statements timed out"),
        (measured(5.0, calls=2), 0, "", CENSORED_FROM, "no statement came back"),
    ],
)
def test_a_crash_or_a_time_out_leaves_a_bound(
    candidate: Measured | None, timeouts: int, crash: str, objective: float, reason: str
) -> None:
    found = judge(candidate, [measured(10.0)], SHARES, timeouts, crash)
    assert found.censored
    assert found.objective == pytest.approx(objective)
    assert reason in found.reason


def test_a_pile_of_arrivals_is_the_configurations_fault_and_no_swing_of_the_load() -> None:
    slow = measured(40.0, calls=30)
    assert slow.quality(SHARES, measured(10.0)).value < 0.3
    piled = replace(slow, after=LoadCounts(backlog=True))
    assert piled.quality(SHARES, measured(10.0)).value == pytest.approx(1.0)


def test_the_final_configuration_is_the_best_by_its_own_measurements() -> None:
    defaults, a, b, c = (KnobConfig({"work_mem": value}) for value in (4, 5, 6, 7))
    tried = [
        (a, Outcome(0.7, 1, 1, False)),
        (a, Outcome(0.9, 1, 1, False)),
        (b, Outcome(0.78, 1, 1, False)),
        (c, Outcome(0.2, 1, 1, False)),
        (c, Outcome(1.15, 1, 1, True)),
        (defaults, Outcome(0.5, 1, 1, False)),
    ]
    assert best_measured(tried, defaults) == (b, pytest.approx(0.78))


def test_without_anything_better_the_defaults_stay() -> None:
    defaults, a = KnobConfig({"work_mem": 4}), KnobConfig({"work_mem": 5})
    assert best_measured([(a, Outcome(1.02, 1, 1, False))], defaults) == (defaults, 1.0)
    assert best_measured([], defaults) == (defaults, 1.0)


def test_a_trials_quality_is_the_mean_of_its_windows() -> None:
    good, spoilt = measured(10.0), with_steal(measured(10.0))
    each = spoilt.quality(SHARES).value
    assert each < 0.5
    found = judge(good, [good, spoilt], SHARES, 0, "")
    assert found.quality == pytest.approx((2 + each) / 3)
    assert found.reason.count("other machines") == 1
    found = judge(spoilt, [spoilt, spoilt], SHARES, 0, "")
    assert found.quality == pytest.approx(each)
    assert found.reason.count("other machines") == 1


DEFAULTS, A, B, C = (KnobConfig({"work_mem": value}) for value in (4, 5, 6, 7))


def test_a_measurement_is_worth_its_quality() -> None:
    tried = [
        (A, Outcome(0.5, 0.25, 1, False)),
        (B, Outcome(0.8, 1.0, 1, False)),
        (C, Outcome(0.5, 0.5, 1, False)),
        (C, Outcome(0.9, 1.0, 1, False)),
    ]
    found = measured_indexes(tried, DEFAULTS)
    assert found[A] == pytest.approx(0.5**0.25)  # three quarters of it count as 1
    assert found[B] == pytest.approx(0.8)
    assert found[C] == pytest.approx(math.exp((0.5 * math.log(0.5) + math.log(0.9)) / 1.5))
    assert lowest_measured(tried, DEFAULTS, 2) == [C, B]
    assert lowest_measured(as_whole(tried), DEFAULTS, 2) == [A, C]


def test_what_has_the_least_quality_is_measured_again_first() -> None:
    best, again = [A, B, C], []
    order = []
    for quality in (0.3, 1.0, 0.6, 0.4, 1.0):
        config = next_to_confirm(best, again)
        order.append(config)
        again.append((config, Outcome(0.8, quality, 1, False)))
    assert order == [A, B, C, A, C]
