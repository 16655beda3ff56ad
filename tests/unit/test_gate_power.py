"""The simulation of the gate: what it draws, and that it shows what the gate does."""

from __future__ import annotations

import numpy as np
import pytest

from backend.config import load_settings
from benchmarks import gate_power
from benchmarks.gate_power import Cell, Noise, first_of_a_day, promotion, simulate, stands


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("noise", gate_power.NOISES.values(), ids=gate_power.NOISES)
def test_noise_has_mean_zero_and_one_standard_deviation(noise: Noise) -> None:
    pairs = noise(rng(), 20_000, 8)
    assert pairs.shape == (20_000, 8, 2)
    drawn = pairs.mean(axis=2)
    assert np.mean(drawn) == pytest.approx(0.0, abs=0.03)
    # Three degrees have no fourth moment: the sample's deviation converges slowly.
    assert np.std(drawn) == pytest.approx(1.0, abs=0.1)


def test_the_lot_takes_the_correlation_of_windows_out_of_the_blocks() -> None:
    for name, noise in gate_power.NOISES.items():
        drawn = noise(rng(), 20_000, 2).mean(axis=2)
        found = float(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1])
        expected = gate_power.BLOCK_CORRELATION if name.startswith("blocks") else 0.0
        assert found == pytest.approx(expected, abs=0.05)


def test_a_clear_gain_is_promoted_at_the_first_look_and_kept() -> None:
    pairs = [-0.10, -0.11, -0.10, -0.09] * 4
    assert promotion(pairs, first_of_a_day()) == 4
    assert stands([-0.10, -0.11, -0.09, -0.10, -0.10, -0.10], [])


def test_a_clear_loss_is_not_promoted_and_not_kept() -> None:
    pairs = [0.10, 0.11, 0.10, 0.09] * 4
    assert promotion(pairs, first_of_a_day()) == 0
    assert not stands([0.10, 0.11, 0.09, 0.10, 0.10, 0.10], [-0.1] * 4)


def test_power_falls_with_noise_and_false_promotions_stay_below_alpha() -> None:
    sure = simulate(gate_power.normal, -0.10, 0.03, 200, rng())
    unsure = simulate(gate_power.normal, -0.10, 0.10, 200, rng())
    false = simulate(gate_power.normal, 0.0, 0.05, 400, rng())
    assert sure.promoted > unsure.promoted
    assert sure.kept >= sure.kept_alone
    assert false.promoted <= 8  # expected are 2 at the most


def test_the_rule_is_that_of_the_settings() -> None:
    level1, gate = load_settings(environ={}).level1, first_of_a_day()
    assert gate.alpha == level1.alpha
    assert (gate.min_blocks, gate.max_blocks) == (level1.min_blocks, level1.max_blocks)


def test_the_same_seed_gives_the_same_cell() -> None:
    first, again = (simulate(gate_power.normal, -0.05, 0.07, 50, rng(3)) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Cell(1000, 900, 450, 810), "90%: 50% -> 90%"),
        (Cell(10_000, 260, 10, 80), "2.6%: 4% -> 31%"),
        (Cell(10_000, 3, 0, 1), "0.03%"),
        (Cell(10_000, 0, 0, 0), "none"),
    ],
)
def test_a_cell_says_no_more_than_it_knows(cell: Cell, text: str) -> None:
    assert str(cell) == text
