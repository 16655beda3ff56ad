"""The gate: false promotions, power, the guard of single classes, probes, allowances."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.domain.modes import Verdict
from backend.gate import (
    GateSettings,
    judge_final,
    judge_probation,
    judge_probe,
    judge_promotion,
    t_interval,
    trial_alpha,
)
from tests.gate_noise import (
    GATE,
    autocorrelated,
    heavy_tailed,
    normal,
    ratio_of_few,
    run_trial,
    verdicts,
)

# -- the promotion rule ---------------------------------------------------------------------


@pytest.mark.parametrize("draw", [normal, heavy_tailed, autocorrelated, ratio_of_few])
def test_false_promotions_stay_below_alpha(draw):
    """Of 2,000 trials of nothing at most alpha are accepted, however often we look."""
    found = verdicts(0.0, draw, 2000, seed=11)
    assert found[Verdict.ACCEPT] / 2000 <= GATE.alpha
    # Not by refusing everything blindly: the same noise lets a real gain pass (see below).
    assert found.total() == 2000


def test_a_candidate_that_is_worse_is_never_promoted():
    assert verdicts(0.05, normal, 1000, seed=12)[Verdict.ACCEPT] == 0


@pytest.mark.parametrize("draw", [normal, heavy_tailed, autocorrelated, ratio_of_few])
@pytest.mark.parametrize(("effect", "least"), [(-0.25, 0.97), (-0.10, 0.6)])
def test_real_gains_are_promoted(effect, least, draw):
    found = verdicts(effect, draw, 400, seed=13)
    assert found[Verdict.ACCEPT] / 400 >= least
    assert found[Verdict.REJECT] / 400 <= 0.05


def test_a_large_gain_needs_few_blocks():
    noise = normal(np.random.default_rng(14), (200, GATE.max_blocks))
    took = [run_trial(math.log(0.75) + row)[1] for row in noise]
    assert np.mean(took) < 5.5


def test_futility_ends_a_trial_early():
    """Nothing to gain and little noise: rejected at the first look, not after all blocks."""
    noise = np.random.default_rng(15).normal(0, 0.003, (200, GATE.max_blocks))
    results = [run_trial(row) for row in noise]
    assert Counter(verdict for verdict, _ in results)[Verdict.REJECT] >= 195
    assert np.mean([blocks for _, blocks in results]) < 4.5


def test_no_verdict_before_the_first_look():
    assert judge_promotion([], {}, {}, 1.0, GATE).verdict is None
    for n in range(1, GATE.min_blocks):
        judged = judge_promotion([-0.5 - n * 1e-3] * n, {}, {}, 1.0, GATE)
        assert judged.verdict is None
        assert f"{n} of at least 4 blocks" in judged.reasons[0]


def test_a_gain_too_small_to_matter_is_not_promoted():
    steady = [-0.010, -0.011, -0.012, -0.011]
    judged = judge_promotion(steady, {}, {}, 1.0, GATE)
    assert judged.verdict is Verdict.REJECT
    assert "a gain of 2% is excluded" in judged.reasons[0]


def test_the_last_look_decides():
    unclear = [-0.3, 0.25, -0.28, 0.2, -0.3, 0.3, -0.25, 0.2]
    for n in range(GATE.min_blocks, GATE.max_blocks):
        assert judge_promotion(unclear[:n], {}, {}, 1.0, GATE).verdict is None
    judged = judge_promotion(unclear, {}, {}, 1.0, GATE)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "must stay below 0" in judged.reasons[0]


CLEAR = [-0.29, -0.28, -0.30, -0.285]


def test_an_acceptance_tells_its_evidence():
    judged = judge_promotion(CLEAR, {}, {}, 1.0, GATE)
    assert judged.verdict is Verdict.ACCEPT
    assert judged.interval.high < 0
    assert "over 4 blocks" in judged.reasons[0]


def test_lacking_coverage_is_never_accepted():
    for n in range(4, 8):
        judged = judge_promotion((CLEAR * 2)[:n], {}, {}, 0.6, GATE)
        assert judged.verdict is None
        assert "coverage 60% is below 70%" in judged.reasons
    assert judge_promotion(CLEAR * 2, {}, {}, 0.6, GATE).verdict is Verdict.INCONCLUSIVE


def test_a_hurt_class_rejects_though_the_total_gains():
    classes = {"fast": [-0.4, -0.41, -0.42, -0.4], "hurt": [0.30, 0.31, 0.29, 0.30]}
    judged = judge_promotion(CLEAR, classes, {"fast": 0.9, "hurt": 0.1}, 1.0, GATE)
    assert judged.verdict is Verdict.REJECT
    assert "proven slower by more than 10%" in judged.reasons[0]


def test_a_class_that_may_be_hurt_is_not_accepted():
    classes = {"fast": [-0.4, -0.5, -0.42, -0.4], "unclear": [0.2, -0.2, 0.25, -0.1]}
    judged = judge_promotion(CLEAR, classes, {"fast": 0.9, "unclear": 0.1}, 1.0, GATE)
    assert judged.verdict is None
    assert "may be slower" in judged.reasons[0]


def test_a_class_with_a_tiny_share_of_the_time_is_not_guarded():
    classes = {"fast": [-0.4, -0.41, -0.42, -0.4], "tiny": [0.30, 0.31, 0.29, 0.30]}
    shares = {"fast": 0.99, "tiny": 0.01}
    assert judge_promotion(CLEAR, classes, shares, 1.0, GATE).verdict is Verdict.ACCEPT


@pytest.mark.parametrize("seen", [[], [-0.4]])
def test_a_guarded_class_that_vanished_is_never_accepted(seen):
    """It may time out under the candidate: no interval is no proof of innocence."""
    shares = {"fast": 0.97, "gone": 0.03}
    for blocks in range(4, 9):
        classes = {"fast": ([-0.4, -0.41, -0.42, -0.4] * 2)[:blocks]}
        if seen:
            classes["gone"] = seen
        judged = judge_promotion((CLEAR * 2)[:blocks], classes, shares, 1.0, GATE)
        assert judged.verdict is (Verdict.INCONCLUSIVE if blocks == 8 else None)
        assert "1 query class(es) with 3% of the reference time ran too seldom" in judged.reasons[0]
        # Seen in every block it would have been accepted, and so with less of the time.
        whole = {**classes, "gone": classes["fast"]}
        for found, told in ((whole, shares), (classes, {"fast": 0.98, "gone": 0.02})):
            judged = judge_promotion((CLEAR * 2)[:blocks], found, told, 1.0, GATE)
            assert judged.verdict is Verdict.ACCEPT


def test_a_vanished_class_does_not_save_a_candidate_that_is_proven_worse():
    classes = {"hurt": [0.30, 0.31, 0.29, 0.30]}
    judged = judge_promotion(CLEAR, classes, {"gone": 0.5, "hurt": 0.5}, 1.0, GATE)
    assert judged.verdict is Verdict.REJECT


def test_a_class_just_beyond_the_limit_seldom_slips_through():
    """One class of six is 25 % slower, the total is a quarter faster: rejected or held back."""
    rng = np.random.default_rng(16)
    shares = dict.fromkeys("abcdef", 1 / 6)
    accepted = 0
    for _ in range(300):
        total = math.log(0.75) + rng.normal(0, 0.04, GATE.max_blocks)
        classes = {name: math.log(0.65) + rng.normal(0, 0.08, 8) for name in "abcde"}
        classes["f"] = math.log(1.25) + rng.normal(0, 0.08, 8)
        accepted += run_trial(total, GATE, classes, shares)[0] is Verdict.ACCEPT
    assert accepted / 300 <= 0.05


def test_harmless_classes_do_not_hold_a_real_gain_back():
    rng = np.random.default_rng(17)
    shares = dict.fromkeys("abcdef", 1 / 6)
    accepted = 0
    for _ in range(200):
        classes = {name: math.log(0.75) + rng.normal(0, 0.10, 8) for name in "abcdef"}
        total = np.mean(list(classes.values()), axis=0)
        accepted += run_trial(total, GATE, classes, shares)[0] is Verdict.ACCEPT
    assert accepted / 200 >= 0.9


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_never_evidence(bad):
    """Whatever a broken reading yields, it deploys nothing."""
    for blocks, coverage in (([*CLEAR, bad], 1.0), (CLEAR, math.nan)):
        assert judge_promotion(blocks, {}, {}, coverage, GATE).verdict is not Verdict.ACCEPT
    classes = {"a": [*CLEAR, bad]}
    assert judge_promotion(CLEAR, classes, {"a": 1.0}, 1.0, GATE).verdict is not Verdict.ACCEPT
    assert judge_probation([*CLEAR, bad], 8).verdict is not Verdict.ACCEPT
    assert judge_probation([*CLEAR[:2], 0.1], 3, [*CLEAR, bad]).verdict is Verdict.REJECT


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-3, 3), max_size=12),
    st.dictionaries(
        st.sampled_from("abc"), st.lists(st.floats(-3, 3), min_size=0, max_size=8), max_size=3
    ),
    st.floats(0, 1),
)
def test_the_rule_always_answers(blocks, classes, coverage):
    judged = judge_promotion(blocks, classes, dict.fromkeys(classes, 0.5), coverage, GATE)
    if len(blocks) < GATE.min_blocks:
        assert judged.verdict is None
    if len(blocks) >= GATE.max_blocks:
        assert judged.verdict is not None
    assert judged.reasons
    if judged.verdict is Verdict.ACCEPT:
        assert judged.interval.high < 0
        assert coverage >= GATE.min_coverage
        assert judged.interval.effect <= -GATE.min_improvement


# -- probes and the final comparison ----------------------------------------------------------


def test_a_probe_must_go_beyond_the_noise():
    judged = judge_probe(-0.051, -0.05)
    assert judged.verdict is Verdict.ACCEPT
    assert judged.interval.low == judged.interval.high == pytest.approx(math.expm1(-0.051))
    for not_promising in (-0.05, 0.0, 0.3, math.nan):
        assert judge_probe(not_promising, -0.05).verdict is Verdict.REJECT


@pytest.mark.parametrize(
    ("blocks", "verdict"),
    [
        ([-0.2, -0.21, -0.19], Verdict.ACCEPT),
        ([0.2, 0.21, 0.19], Verdict.REJECT),
        ([-0.2, 0.21, -0.1], Verdict.INCONCLUSIVE),
        ([-0.2, -0.21, math.nan], Verdict.INCONCLUSIVE),
    ],
)
def test_the_final_comparison_decides_after_all_its_blocks(blocks, verdict):
    for n in range(len(blocks)):
        judged = judge_final(blocks[:n], {}, 3)
        assert judged.verdict is None
        assert judged.reasons == (f"{n} of 3 blocks",)
    judged = judge_final(blocks, {"a": [-0.1, -0.2, -0.1]}, 3)
    assert judged.verdict is verdict
    assert set(judged.class_intervals) == {"a"}
    if math.isfinite(sum(blocks)):
        assert judged.interval == t_interval(blocks, 0.025)


# -- the day's allowance --------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-4, 0.49), st.floats(1e-4, 0.99), st.integers(1, 500))
def test_a_days_allowances_sum_to_less_than_the_days_bound(alpha, daily, promotions):
    spent = [trial_alpha(n, alpha, daily) for n in range(1, promotions + 1)]
    assert sum(spent) <= daily
    assert all(0 < a <= alpha for a in spent)
    assert spent == sorted(spent, reverse=True)


def test_the_first_promotion_of_a_day_is_number_one():
    assert trial_alpha(1, 0.05, 0.2) == 0.05
    with pytest.raises(ValueError, match="number 1, not 0"):
        trial_alpha(0, 0.05, 0.2)


def test_the_gate_counts_its_looks():
    assert GATE.looks == 5
    assert GateSettings(min_blocks=3, max_blocks=3).looks == 1
