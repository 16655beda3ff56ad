"""Fitness, and the comparison that a winner must pass."""

from __future__ import annotations

import pytest

from backend.evolution.fitness import Comparison, Fitness
from backend.evolution.learning_run import LearningRun


def run(problem: str = "p", seed: int = 1, **numbers: float) -> LearningRun:
    known = {
        "trials_to_95": 20.0, "regret": 0.4, "final_regret": 0.1, "harmful": 0.2, "cpu_s": 1.0,
        "memory_bytes": 1000.0,
    }  # fmt: skip
    return LearningRun(problem, seed, proposals=15, reached=True, **{**known, **numbers})


def runs(trials: list[float], **numbers: float) -> list[LearningRun]:
    return [run(seed=seed, trials_to_95=value, **numbers) for seed, value in enumerate(trials)]


def test_fitness_is_the_mean_over_runs_and_the_spread_over_seeds() -> None:
    fitness = Fitness.of(
        [run("a", 1, regret=0.2), run("a", 2, regret=0.4), run("b", 1, regret=0.9, harmful=0.5)]
    )
    assert fitness.regret == pytest.approx(0.5)
    assert fitness.harmful == pytest.approx(0.3)
    assert fitness.spread == pytest.approx(0.1 * 2**0.5)
    assert fitness.objectives == (fitness.regret, fitness.spread + fitness.harmful, 1.0)


def test_fitness_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fitness.of([])


def test_a_clearly_faster_genome_wins() -> None:
    old, new = runs([20, 25, 30, 35, 40]), runs([10, 12, 16, 17, 20], regret=0.3)
    comparison = Comparison.of(new, old)
    assert comparison.wins
    assert comparison.trials.effect == pytest.approx(-0.5, abs=0.03)
    numbers = comparison.as_numbers()
    assert 0 < numbers["low"] < numbers["gain"] < numbers["high"]


def test_what_may_be_luck_does_not_win() -> None:
    old, new = runs([20, 25, 30, 35, 40]), runs([5, 45, 10, 60, 20], regret=0.3)
    comparison = Comparison.of(new, old)
    assert not comparison.wins
    assert "must stay below 0" in comparison.objections[0]


@pytest.mark.parametrize(
    ("worse", "told"), [({"regret": 0.5}, "misses 10.0% more"), ({"harmful": 0.3}, "harmful")]
)
def test_faster_but_worse_otherwise_does_not_win(worse: dict[str, float], told: str) -> None:
    old, new = runs([20, 25, 30, 35, 40]), runs([10, 12, 16, 17, 20], **worse)
    comparison = Comparison.of(new, old)
    assert not comparison.wins
    assert told in comparison.objections[0]


def test_only_the_same_luck_is_compared() -> None:
    old = [run("a", 1), run("a", 2), run("b", 1)]
    new = [run("a", 2, trials_to_95=10), run("b", 1, trials_to_95=10), run("b", 2)]
    assert Comparison.of(new, old).pairs == 2
    with pytest.raises(ValueError, match="at least 2"):
        Comparison.of(new[:1], old)


def test_a_smaller_alpha_asks_for_more() -> None:
    old, new = runs([20, 25, 30, 35, 40]), runs([12, 18, 17, 30, 24], regret=0.3)
    usual, strict = Comparison.of(new, old), Comparison.of(new, old, alpha=0.0001)
    assert usual.wins
    assert not strict.wins
    assert strict.trials.effect == usual.trials.effect
