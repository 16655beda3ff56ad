"""How far the plan agent's expectations are believed, checked on plans of known gain."""

from __future__ import annotations

import numpy as np
import pytest

from backend.plan_agent.belief import Belief, CheckedPlans

CLASSES, PLANS = 200, 4


def checked(
    gain_of: tuple[float, float], *, noise: float = 0.0, censored: bool = False
) -> CheckedPlans:
    """Plans of many classes whose gain is so much of what was expected and of their costs."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(CLASSES), PLANS)
    expected = rng.uniform(0.0, 1.5, CLASSES * PLANS)
    dearer = np.maximum(rng.normal(0.3, 0.8, CLASSES * PLANS), 0.0)
    gains = gain_of[0] * expected - gain_of[1] * dearer
    gains += rng.normal(0.0, noise, CLASSES)[classes]
    ended = np.full(len(gains), censored)
    return CheckedPlans(classes, classes, expected, dearer, gains, ended)


def test_before_anything_was_checked_the_planner_is_taken_at_its_word() -> None:
    belief = Belief()
    assert belief == Belief.checked(
        CheckedPlans(*(np.zeros(0, kind) for kind in (int, int, float, float, float, bool)))
    )
    assert belief.gain(np.array([0.4]), 1.0) < 0.0


@pytest.mark.parametrize("truth", [(0.9, 0.0), (0.3, 0.0), (0.8, 0.6), (0.0, 0.3)])
def test_it_learns_whom_to_trust(truth: tuple[float, float]) -> None:
    belief = Belief.checked(checked(truth))
    assert (belief.trust, belief.planner_trust) == pytest.approx(truth, abs=0.05)


def test_what_falls_short_is_the_best_of_a_statement() -> None:
    sure, unsure = (Belief.checked(checked((0.8, 0.2), noise=noise)) for noise in (0.0, 1.0))
    assert sure.shortfall < 0.1
    assert unsure.shortfall > 0.5


def test_bounds_that_hold_say_nothing_against_a_belief() -> None:
    """Upper bounds above what is believed leave it as it was; those below draw it down."""
    high, low = checked((2.0, 0.0), censored=True), checked((0.1, 0.0), censored=True)
    assert Belief.checked(high).trust == pytest.approx(Belief().trust, abs=0.01)
    assert Belief.checked(low).trust < 0.2


def test_a_class_of_many_plans_counts_no_more_than_one_of_few() -> None:
    """One class in which every guess came true against nine in which none did."""
    classes = np.concatenate([np.zeros(900, int), np.arange(1, 10)])
    expected = np.ones(len(classes))
    gains = np.where(classes == 0, 1.0, 0.0)
    plans = CheckedPlans(
        classes, classes, expected, np.zeros(len(classes)), gains, np.zeros(len(classes), bool)
    )
    assert Belief.checked(plans).trust < 0.2
