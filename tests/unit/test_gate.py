"""The gate: false promotions, power, the guard of single classes, probation, allowances."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from statistics import fmean, median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.domain.modes import Verdict
from backend.gate import (
    GateSettings,
    Interval,
    class_intervals,
    judge_final,
    judge_probation,
    judge_probe,
    judge_promotion,
    t_interval,
    trial_alpha,
)

GATE = GateSettings()
Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]
NOISE_SD = 0.05
"""Standard deviation of a block's log ratio: what blocks of four 10 s windows show."""


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    return rng.normal(0, NOISE_SD, shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Student's t with 3 degrees of freedom: now and then a block is far off."""
    return rng.standard_t(3, shape) / math.sqrt(3) * NOISE_SD


def autocorrelated(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A first-order process: each block resembles the one before by 0.2."""
    fresh = rng.normal(0, NOISE_SD, shape)
    path = np.empty(shape)
    path[:, 0] = fresh[:, 0]
    for step in range(1, shape[1]):
        path[:, step] = 0.2 * path[:, step - 1] + math.sqrt(1 - 0.2**2) * fresh[:, step]
    return path


def ratio_of_few(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Ratios of two means of a few exponential times each: rare, slow statements rule."""
    few = 2 / NOISE_SD**2 / 20
    scale = NOISE_SD / math.sqrt(2 / few)
    return (np.log(rng.gamma(few, size=shape)) - np.log(rng.gamma(few, size=shape))) * scale


def run_trial(
    blocks: NDArray[np.float64],
    gate: GateSettings = GATE,
    classes: Mapping[str, NDArray[np.float64]] | None = None,
    shares: Mapping[str, float] | None = None,
    coverage: float = 1.0,
) -> tuple[Verdict, int]:
    """Look after each block, as a trial does; the verdict and the blocks that it took."""
    for n in range(1, gate.max_blocks + 1):
        judged = judge_promotion(
            blocks[:n].tolist(),
            {name: values[:n].tolist() for name, values in (classes or {}).items()},
            shares or {},
            coverage,
            gate,
        )
        if judged.verdict is not None:
            return judged.verdict, n
    raise AssertionError("a promotion has a verdict after max_blocks")


def verdicts(effect: float, draw: Draw, trials: int, seed: int, gate: GateSettings = GATE):
    noise = draw(np.random.default_rng(seed), (trials, gate.max_blocks))
    return Counter(run_trial(math.log1p(effect) + row, gate)[0] for row in noise)


# -- intervals ------------------------------------------------------------------------------


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


# -- probation ------------------------------------------------------------------------------


def test_probation_waits_for_three_blocks():
    assert judge_probation([], 4).verdict is None
    assert judge_probation([-0.3], 4).verdict is None
    assert judge_probation([-0.3, -0.31], 4).verdict is None


def test_probation_accepts_what_is_still_better():
    judged = judge_probation([-0.30, -0.31, -0.29], 4)
    assert judged.verdict is Verdict.ACCEPT
    assert "still better" in judged.reasons[0]


def test_probation_undoes_what_is_proven_worse():
    judged = judge_probation([0.30, 0.31, 0.29], 4)
    assert judged.verdict is Verdict.REJECT
    assert "proven worse" in judged.reasons[0]


def test_probation_goes_on_while_unclear_and_undoes_at_the_end():
    unclear = [-0.1, 0.1, -0.12, 0.11]
    assert judge_probation(unclear[:3], 4).verdict is None
    judged = judge_probation(unclear, 4)
    assert judged.verdict is Verdict.REJECT
    assert "unclear at the end" in judged.reasons[0]


UNCLEAR_BUT_BETTER = [-0.25, 0.02, -0.2, 0.05]
"""Mean -0.095; alone its interval reaches far above 0."""


def test_the_promotions_blocks_decide_what_probation_leaves_unclear():
    assert judge_probation(UNCLEAR_BUT_BETTER, 4).verdict is Verdict.REJECT
    judged = judge_probation(UNCLEAR_BUT_BETTER, 4, earlier=[*CLEAR, *CLEAR])
    assert judged.verdict is Verdict.ACCEPT
    assert "still better with the promotion's 8 blocks -20" in judged.reasons[0]
    # The interval shown is that of the probation's own blocks.
    assert judged.interval == judge_probation(UNCLEAR_BUT_BETTER, 4).interval
    assert judged.interval.high > 0


def test_the_promotions_blocks_decide_at_the_last_look_only():
    earlier = [*CLEAR, *CLEAR]
    assert judge_probation(UNCLEAR_BUT_BETTER[:3], 4, earlier=earlier).verdict is None
    assert judge_probation(UNCLEAR_BUT_BETTER, 6, earlier=earlier).verdict is None
    judged = judge_probation([0.30, 0.31, 0.29], 3, earlier=[-0.9] * 20)
    assert judged.verdict is Verdict.REJECT
    assert "proven worse" in judged.reasons[0]


def test_a_probation_that_points_the_other_way_is_not_outvoted():
    own = [0.1, -0.09, 0.11, -0.1]  # a mean just above 0
    judged = judge_probation(own, 4, earlier=CLEAR * 5)
    assert judged.verdict is Verdict.REJECT
    assert "unclear at the end" in judged.reasons[0]
    assert "with the promotion's 20 blocks" in judged.reasons[1]


def test_promotion_and_probation_together_may_be_too_little():
    judged = judge_probation(UNCLEAR_BUT_BETTER, 4, earlier=[-0.1, 0.15, -0.12, 0.19])
    assert judged.verdict is Verdict.REJECT


def keep_rate(effect: float, noise_sd: float, pooled: bool, seed: int) -> float:
    """Share of promoted candidates that stand their probation of six pairs of windows."""
    rng = np.random.default_rng(seed)
    kept = promoted = 0
    for _ in range(600):
        blocks = math.log1p(effect) + rng.normal(0, noise_sd, GATE.max_blocks)
        verdict, took = run_trial(blocks)
        if verdict is not Verdict.ACCEPT:
            continue
        promoted += 1
        # A pair is half a block of the promotion.
        own = (math.log1p(effect) + rng.normal(0, noise_sd * math.sqrt(2), 6)).tolist()
        earlier = blocks[:took].tolist() if pooled else []
        looks = (judge_probation(own[:n], 6, earlier).verdict for n in range(2, 7))
        kept += next(v for v in looks if v is not None) is Verdict.ACCEPT
    assert promoted > 100
    return kept / promoted


def test_probation_keeps_real_gains():
    assert keep_rate(-0.10, 0.05, pooled=True, seed=20) >= 0.97
    assert keep_rate(-0.10, 0.05, pooled=False, seed=20) <= 0.85
    assert keep_rate(-0.05, 0.05, pooled=True, seed=21) >= 0.8


@pytest.mark.parametrize("max_blocks", [2, 3, 4, 10])
def test_probation_always_ends(max_blocks):
    rng = np.random.default_rng(18)
    for _ in range(50):
        blocks = rng.normal(0, 0.1, max_blocks).tolist()
        assert judge_probation(blocks, max_blocks).verdict is not None


def test_probation_seldom_keeps_what_is_worse():
    rng = np.random.default_rng(19)
    kept = 0
    for row in rng.normal(math.log(1.0), 0.07, (1000, 6)):
        for n in range(2, 7):
            judged = judge_probation(row[:n].tolist(), 6)
            if judged.verdict is not None:
                kept += judged.verdict is Verdict.ACCEPT
                break
    assert kept / 1000 <= 0.05


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
