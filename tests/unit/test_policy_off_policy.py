"""Off-policy estimates: what is known of a policy from trials of another."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.domain.knobs import Knob, KnobSpace
from backend.policy.knob_policy import MEMBERS, Critics, States
from backend.policy.networks import Stack
from backend.policy.off_policy import Estimate, estimate
from backend.policy.recorded_trials import FOLDS, FloatArray, RecordedTrials
from backend.policy.updates import Rule

SPACE = KnobSpace([Knob(name, "real", -1, 1, default=0.0) for name in ("steep", "flat")])
SLOPE = 0.5
ALPHA = 0.005


def trials(rng: np.random.Generator, *, rows: int = 200, noise: float = 0.05) -> RecordedTrials:
    """One long episode: the gain rises by SLOPE with the first knob, the second does nothing."""
    actions = rng.uniform(-0.5, 0.5, (rows, 2))
    actions[0] = 0.0
    return RecordedTrials(
        SPACE,
        np.zeros((rows, 1)),
        actions,
        SLOPE * actions[:, 0] + noise * rng.standard_normal(rows) + 7.0,
        np.ones(rows),
        np.zeros(rows, np.bool_),
        np.zeros(rows, np.int64),
    )


def critics(slope: float) -> Critics:
    """Critics who all expect the gain to rise by ``slope``, times 20, with the first knob.

    Their small inputs pass the activation where it is as good as linear.
    """
    copies = (FOLDS + 1) * MEMBERS
    first = np.zeros((copies, 3, 2))
    first[:, 1, 0], first[:, 1, 1] = 1e-3, -1e-3
    last = np.tile(np.array([[1e3 * slope], [-1e3 * slope]]), (copies, 1, 1))
    zeros = np.zeros((copies, 1, 2)), np.zeros((copies, 1, 1))
    return Critics(States.of(np.zeros((2, 1))), Stack((first, zeros[0], last, zeros[1])))


def judged(data: RecordedTrials, slope: float, wanted: tuple[float, float]) -> Estimate:
    actions = np.tile(np.array(wanted), (len(data), 1))
    return estimate(
        data, data.folds(), critics(slope), actions, data.first_actions(), alpha=ALPHA, seed=0
    )


def test_the_critics_of_these_tests_say_what_they_are_told() -> None:
    gains = critics(0.5).gains(np.zeros((2, 1)), np.array([[0.4, 0.3], [-0.4, 0.0]]))
    np.testing.assert_allclose(gains[..., 0] - gains[..., 1], 0.4, atol=1e-6)


@pytest.mark.parametrize("believed", [0.0, 0.25, SLOPE, 1.0])
def test_what_was_measured_nearby_corrects_the_critics(believed: float) -> None:
    found = judged(trials(np.random.default_rng(0), rows=1000), believed, (0.3, 0.0))
    assert found.interval is not None
    true, critics_word = math.expm1(-SLOPE * 0.3), math.expm1(-believed * 0.3)
    assert abs(found.interval.effect - true) < 0.005 + 0.25 * abs(critics_word - true)
    if believed == SLOPE:
        assert found.interval.low < true < found.interval.high


def test_a_policy_that_is_worse_is_estimated_to_be() -> None:
    found = judged(trials(np.random.default_rng(1)), SLOPE, (-0.4, 0.2))
    assert found.interval is not None
    assert found.interval.low > 0.05
    assert "not clearly better" in Rule(0.02).objection(found)


@pytest.mark.parametrize("wanted", [(1.0, 0.0), (0.3, 1.0)])
def test_what_nothing_was_tried_near_has_no_coverage(wanted: tuple[float, float]) -> None:
    found = judged(trials(np.random.default_rng(2)), SLOPE, wanted)
    assert found.coverage < 0.02
    assert "too little was recorded" in Rule(0.02).objection(found)


def test_the_interval_misses_as_seldom_as_it_says() -> None:
    missed = 0
    for seed in range(200):
        data = trials(np.random.default_rng(100 + seed), rows=60, noise=0.2)
        found = judged(data, SLOPE, (0.2, 0.0)).interval
        assert found is not None
        missed += not found.low < math.expm1(-SLOPE * 0.2) < found.high
    assert missed <= 8  # 2 are expected; 0.5 % on either side


def test_poor_samples_count_for_less() -> None:
    data = trials(np.random.default_rng(4))
    spoilt = data.actions[:, 0] > 0.1
    gains = np.where(spoilt, data.gains - 1.0, data.gains)

    def found(quality: float) -> float:
        qualities = np.where(spoilt & (np.arange(200) % 2 == 0), quality, 1.0)
        mixed = np.where(spoilt & (np.arange(200) % 2 == 0), gains, data.gains)
        rows = RecordedTrials(
            SPACE, data.states, data.actions, mixed, qualities, data.censored, data.episodes
        )
        interval = judged(rows, SLOPE, (0.3, 0.0)).interval
        assert interval is not None
        return interval.effect

    assert found(1.0) > 0.1
    assert found(0.01) < 0.0


def test_a_bound_is_no_praise() -> None:
    data = trials(np.random.default_rng(5), noise=0.01)
    high = data.actions[:, 0] > 0.15

    def effect(bound: float) -> float:
        gains = np.where(high, 7.0 + bound, data.gains)
        rows = RecordedTrials(
            SPACE, data.states, data.actions, gains, data.qualities, high, data.episodes
        )
        interval = judged(rows, SLOPE, (0.3, 0.0)).interval
        assert interval is not None
        return interval.effect

    assert effect(-0.5) > 0.1  # known to be as bad at least
    assert effect(5.0) == pytest.approx(math.expm1(-SLOPE * 0.3), abs=0.03)  # says nothing


def test_scales_of_episodes_are_never_compared() -> None:
    data = trials(np.random.default_rng(6))
    episodes = np.arange(200) // 20

    def found(offsets: FloatArray) -> Estimate:
        shifted = RecordedTrials(
            SPACE, data.states, data.actions, data.gains + offsets[episodes],
            data.qualities, data.censored, episodes,
        )  # fmt: skip
        return judged(shifted, SLOPE, (0.3, 0.0))

    even, odd = found(np.zeros(10)), found(np.random.default_rng(7).normal(0.0, 3.0, 10))
    assert even.interval is not None
    assert odd.interval is not None
    assert odd.interval.effect == pytest.approx(even.interval.effect)
    assert odd.interval.high == pytest.approx(even.interval.high)


def test_the_rule_names_what_is_missing() -> None:
    rule = Rule(min_improvement=0.02)
    found = judged(trials(np.random.default_rng(0)), SLOPE, (0.3, 0.0))
    assert rule.objection(found) == ""
    assert "too few independent parts" in rule.objection(Estimate(None, 1.0, 50.0, 60))
    assert "below 90%" in Rule(min_improvement=0.9).objection(found)
    nothing = Estimate(found.interval, math.nan, math.nan, 60)
    assert "too little was recorded" in rule.objection(nothing)
