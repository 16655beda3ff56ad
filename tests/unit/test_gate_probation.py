"""Probation: what was promoted has to go on being better."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.domain.modes import Verdict
from backend.gate import judge_probation
from tests.gate_noise import GATE, run_trial

CLEAR = [-0.29, -0.28, -0.30, -0.285]
"""Blocks of a promotion that leave no doubt."""


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
