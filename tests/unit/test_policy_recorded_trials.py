"""Recorded transitions as arrays, and which of them are held out together."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.domain.knobs import Knob, KnobSpace
from backend.domain.transition import Transition
from backend.policy.recorded_trials import FOLDS, RecordedTrials
from backend.training_data import TrainingData

SPACE = KnobSpace([Knob("work_mem", "integer", 64, 65536, "log", "kB", 4096)])


def step(value: float, objective: float, *, censored: bool = False) -> Transition:
    state = np.array([1.0, value])
    return Transition(state, np.array([value]), 0.0, state, objective, 1.0, censored)


def trials_of(*episodes: list[Transition]) -> RecordedTrials:
    names = tuple(f"demo {number}" for number in range(len(episodes)))
    return RecordedTrials.of(TrainingData(SPACE, tuple(map(tuple, episodes)), names, {}))


def test_gains_are_logarithms_and_higher_is_better() -> None:
    data = trials_of([step(0.0, 1.0), step(0.5, 0.5), step(-0.5, 2.0)])
    assert data.gains == pytest.approx([0.0, math.log(2), -math.log(2)])


def test_an_infinite_bound_counts_as_the_worst_that_was_measured() -> None:
    data = trials_of([step(0.0, 1.0), step(0.5, math.inf, censored=True), step(0.2, 1.5)])
    assert data.gains[1] == pytest.approx(-math.log(1.5))
    assert data.censored.tolist() == [False, True, False]


def test_an_episode_of_bounds_alone_tells_nothing() -> None:
    data = trials_of(
        [step(0.0, math.inf, censored=True), step(0.1, math.inf, censored=True)],
        [step(0.0, 1.0), step(0.1, 1.1)],
    )
    assert len(data) == 2
    assert data.episodes.tolist() == [0, 0]


def test_what_stood_is_the_first_of_each_episode() -> None:
    data = trials_of([step(0.1, 1.0), step(0.5, 0.9)], [step(-0.1, 1.0), step(0.6, 0.9)])
    assert data.first_actions().ravel() == pytest.approx([0.1, 0.1, -0.1, -0.1])


def test_whole_episodes_are_held_out_where_there_are_enough() -> None:
    data = trials_of(*[[step(0.1 * i, 1.0), step(0.2, 0.9)] for i in range(7)])
    folds = data.folds()
    assert set(folds) == set(range(FOLDS))
    for episode in range(7):
        assert len(set(folds[data.episodes == episode])) == 1


@pytest.mark.parametrize("episodes", [1, 2, 4])
def test_few_episodes_are_cut_into_blocks_of_time(episodes: int) -> None:
    one = [step(0.01 * i, 1.0) for i in range(23)]
    data = trials_of(*[one] * episodes)
    folds = data.folds()
    for episode in range(episodes):
        own = folds[data.episodes == episode]
        assert set(own) == set(range(FOLDS))
        assert (np.diff(own) >= 0).all()


def test_a_trial_is_never_on_both_sides() -> None:
    values = np.random.default_rng(3).choice([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], size=60)
    data = trials_of([step(float(value), 1.0) for value in values])
    folds, trials = data.folds(), data.trials()
    for trial in np.unique(trials):
        assert len(set(data.actions[trials == trial].ravel())) == 1
        assert len(set(folds[trials == trial])) == 1
    assert len(set(folds)) == FOLDS
