"""Targets fitted to recorded transitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from backend.domain.knobs import Knob, KnobSpace
from backend.domain.transition import Transition
from backend.evolution.problems import (
    LEAST_GAIN,
    MOST_TRAINING,
    FittedProblem,
    ModelProblem,
    curriculum,
    fit,
)
from backend.evolution.regression import Regression
from backend.state_features import STATE_WIDTH
from backend.training_data import TrainingData

SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 1048576, "log", "kB", 4096),
        Knob("random_page_cost", "real", 1.0, 10.0, "log", default=4.0),
        Knob("jit", "boolean", default=True),
    ]
)


def log_index(action: np.ndarray, taste: float) -> float:
    """Falls with work_mem, the more the greater the taste; jit costs."""
    return -0.4 * taste * float(action[0]) + 0.2 * float(action[1]) ** 2 + 0.1 * float(action[2])


def episode(taste: float, rows: int, seed: int, noise: float = 0.02) -> tuple[Transition, ...]:
    rng = np.random.default_rng(seed)
    steps = []
    for _ in range(rows):
        action = SPACE.encode(SPACE.decode(rng.uniform(-1.0, 1.0, SPACE.width)))
        objective = math.exp(log_index(action, taste) + noise * rng.standard_normal())
        state = np.full(STATE_WIDTH, taste)
        steps.append(Transition(state, action, -objective, state, objective))
    return tuple(steps)


def recorded(workloads: int, rows: int = 25) -> TrainingData:
    return TrainingData(
        space=SPACE,
        episodes=tuple(episode(0.5 + 0.1 * n, rows, n) for n in range(workloads)),
        workloads=tuple(f"w{n}" for n in range(workloads)),
        left_out={},
    )


def actions_and_truth(taste: float) -> tuple[np.ndarray, np.ndarray]:
    steps = episode(taste, 200, seed=99, noise=0.0)
    return np.array([s.action for s in steps]), np.log([s.objective for s in steps])


def test_a_regression_foretells_what_it_has_not_seen_and_how_noisy_it_is() -> None:
    steps = [episode(0.5, 25, 1, 0.05), episode(0.9, 25, 2, 0.05)]
    regression = Regression(
        np.array([s.action for part in steps for s in part]),
        np.repeat([0, 1], 25),
        np.array([math.log(s.objective) for part in steps for s in part]),
    )
    for group, taste in enumerate((0.5, 0.9)):
        actions, truth = actions_and_truth(taste)
        error = regression.predict(actions, group) - truth
        assert np.sqrt(np.mean(error**2)) < 0.25 * np.std(truth)
    assert 0.02 < regression.noise < 0.1


def test_a_regression_needs_some_rows() -> None:
    with pytest.raises(ValueError, match="at least 3 rows"):
        Regression(np.zeros((2, 1)), np.zeros(2, dtype=np.int64), np.zeros(2))


def test_a_fitted_problem_is_zero_at_the_default_and_has_the_recorded_gain() -> None:
    steps = episode(0.9, 25, 3)
    (problem,) = fit(SPACE, {"w": steps})
    assert problem.log_index(SPACE.default_config()) == pytest.approx(0.0)
    default = log_index(SPACE.encode(SPACE.default_config()), 0.9)
    best = min(math.log(step.objective) for step in steps)
    assert problem.gain == pytest.approx(default - best, abs=0.1)
    assert problem.state(np.random.default_rng(0)).tolist() == [0.9] * STATE_WIDTH


def test_a_workload_without_a_gain_is_no_problem() -> None:
    flat = [replace(step, objective=1.0) for step in episode(0.5, 25, 3)]
    assert fit(SPACE, {"flat": flat}) == ()


def test_a_response_model_is_the_same_for_the_same_seed_and_has_a_gain() -> None:
    one, two, other = (ModelProblem(SPACE, seed) for seed in (1, 1, 2))
    config = SPACE.decode(np.full(SPACE.width, 0.3))
    assert one.log_index(SPACE.default_config()) == pytest.approx(0.0)
    assert one.log_index(config) == two.log_index(config) != other.log_index(config)
    assert one.gain >= LEAST_GAIN


def names(problems: Sequence[object]) -> set[str]:
    return {problem.name for problem in problems}  # type: ignore[attr-defined]


def test_training_and_held_out_share_no_workload_and_no_fit() -> None:
    made = curriculum(recorded(9))
    assert not names(made.training) & names(made.held_out)
    fits = [
        {id(p.regression) for p in part if isinstance(p, FittedProblem)}
        for part in (made.training, made.held_out)
    ]
    assert len(fits[0]) == len(fits[1]) == 1
    assert not fits[0] & fits[1]
    assert sum(isinstance(p, FittedProblem) for p in made.training) <= MOST_TRAINING
    assert made.profile


def test_one_workload_is_for_training_and_models_judge() -> None:
    made = curriculum(recorded(1))
    assert "w0" in names(made.training)
    assert made.held_out
    assert all(isinstance(problem, ModelProblem) for problem in made.held_out)


def test_without_records_there_are_models() -> None:
    made = curriculum(None)
    assert made.training
    assert made.held_out
    assert made.profile == {}


def test_workloads_with_too_few_measurements_are_left_out() -> None:
    assert names(curriculum(recorded(1, rows=5)).training) == names(curriculum(None).training)


def test_the_digest_follows_what_was_recorded() -> None:
    assert curriculum(recorded(3)).digest == curriculum(recorded(3)).digest
    assert curriculum(recorded(3)).digest != curriculum(recorded(3, rows=26)).digest
