"""Stacks of small networks: what they learn, each from its own samples."""

from __future__ import annotations

import numpy as np
import pytest

from backend.policy.networks import LearningStoppedError, Stack, fit

RNG = np.random.default_rng(1)
INPUTS = RNG.uniform(-1.0, 1.0, (200, 2))
ANSWERS = (INPUTS[:, :1] - 0.5 * INPUTS[:, 1:])[None]
NOT_BOUNDS = np.zeros(200, dtype=np.bool_)


def learnt(weights: np.ndarray, targets: np.ndarray = ANSWERS, bounds=NOT_BOUNDS) -> Stack:
    return fit(
        INPUTS, targets, weights, bounds=bounds, hidden=(16,), steps=200, seed=0, weight_decay=0.01
    )  # fmt: skip


def test_each_copy_learns_from_its_own_samples_alone() -> None:
    left = INPUTS[:, 0] < 0.0
    targets = np.where(left[:, None], 1.0, -1.0)[None] * np.ones((1, 200, 1))
    values = learnt(np.array([left, ~left], dtype=np.float64), targets)(INPUTS)[..., 0]
    assert values.shape == (2, 200)
    assert np.abs(values[0] - 1.0).max() < 0.2
    assert np.abs(values[1] + 1.0).max() < 0.2


def test_a_function_is_learnt_and_the_same_seed_learns_the_same() -> None:
    first, again = learnt(np.ones((1, 200))), learnt(np.ones((1, 200)))
    assert np.square(first(INPUTS) - ANSWERS).mean() < 0.02 * ANSWERS.var()
    np.testing.assert_array_equal(first(INPUTS), again(INPUTS))


def test_less_than_a_bound_is_no_error() -> None:
    high = np.full((1, 200, 1), 3.0)
    bounds = INPUTS[:, 0] < 0.0
    targets = np.where(bounds[:, None], high, ANSWERS)
    stack = learnt(np.ones((1, 200)), targets, bounds)
    assert np.abs(stack(INPUTS)[0, ~bounds] - ANSWERS[0, ~bounds]).mean() < 0.1
    assert stack(INPUTS)[0, bounds].max() < 2.0


def test_learning_can_be_stopped() -> None:
    asked = iter([False, True])
    with pytest.raises(LearningStoppedError):
        fit(
            INPUTS, ANSWERS, np.ones((1, 200)), bounds=NOT_BOUNDS, hidden=(4,), steps=1_000_000,
            seed=0, stopped=lambda: next(asked),
        )  # fmt: skip


def test_a_stack_comes_back_from_its_arrays() -> None:
    stack = learnt(np.ones((2, 200)))
    again = Stack.restored(stack.arrays(), squashed=False)
    np.testing.assert_array_equal(again(INPUTS), stack(INPUTS))
    np.testing.assert_array_equal(stack.copies(slice(1, 2))(INPUTS)[0], stack(INPUTS)[1])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("layer_3"),
        lambda arrays: arrays.update(layer_1=np.zeros((1, 1, 3))),
        lambda arrays: arrays.update(layer_2=np.zeros((1, 5, 1))),
        lambda arrays: arrays.update(layer_0=np.full_like(arrays["layer_0"], np.nan)),
        lambda arrays: arrays.clear(),
    ],
)
def test_damaged_arrays_are_refused(spoil) -> None:
    layers = (np.ones((1, 2, 4)), np.ones((1, 1, 4)), np.ones((1, 4, 1)), np.ones((1, 1, 1)))
    arrays = Stack(layers).arrays()
    spoil(arrays)
    with pytest.raises(ValueError, match=r"layers|biases|weights"):
        Stack.restored(arrays, squashed=False)
