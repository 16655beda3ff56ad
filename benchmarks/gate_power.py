"""How often the gate is right, on simulated noise: ``python -m benchmarks.gate_power``.

Draws the log ratios of blocks with a known true effect, and lets the gate itself
(``backend/policy_learner.py``) judge them: first as a promotion, then, when it is accepted, as a
probation. Each cell of the table reads

    promoted: kept by its own blocks alone -> kept with the pooled look

the share of all trials that is promoted, then the shares of those that stand their probation. At a
true effect of 0 or more a promotion is a false one; below 0 the first number is the gate's power.
Noise, always of the same standard deviation: independent normal blocks; Student's t with 3 degrees
of freedom (heavy tails); blocks of windows that are correlated with those before, as slow swings
make them, in the order ABBA or BAAB by lot; and, what that order is there to prevent, blocks that
are correlated with those before. Query classes are left out: their guard can only stop a promotion.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from backend.domain.modes import Verdict
from backend.policy_learner import GateSettings, judge_probation, judge_promotion

EFFECTS = (-0.10, -0.05, 0.0, 0.05)
"""True relative change of the latency index."""
BLOCK_SDS = (0.03, 0.05, 0.07, 0.10)
"""Standard deviation of the log ratio of a promotion's block (four windows)."""
PROBATION_BLOCKS = 6
PAIR_SD = math.sqrt(2)
"""A probation's pair has half the windows of a promotion's block."""
TAIL_DEGREES = 3
WINDOW_CORRELATION = 0.7
"""Between successive windows."""
BLOCK_CORRELATION = 0.3
"""Between successive blocks."""
LEAST_PROMOTED = 50
"""With fewer promotions, the share that is kept is not shown."""

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int, int], Floats]


def normal(rng: np.random.Generator, trials: int, blocks: int) -> Floats:
    """Independent blocks; shape (trials, blocks), standard deviation 1."""
    return rng.standard_normal((trials, blocks))


def heavy_tailed(rng: np.random.Generator, trials: int, blocks: int) -> Floats:
    """Independent blocks with outliers; standard deviation 1."""
    scale = math.sqrt((TAIL_DEGREES - 2) / TAIL_DEGREES)
    return scale * rng.standard_t(TAIL_DEGREES, (trials, blocks))


def _autoregression(
    rng: np.random.Generator, trials: int, steps: int, correlation: float
) -> Floats:
    """Stationary, of first order, standard deviation 1; shape (trials, steps)."""
    drawn = rng.standard_normal((trials, steps))
    fresh = math.sqrt(1 - correlation**2)
    for step in range(1, steps):
        drawn[:, step] = correlation * drawn[:, step - 1] + fresh * drawn[:, step]
    return drawn


def correlated_windows(rng: np.random.Generator, trials: int, blocks: int) -> Floats:
    """Blocks of four correlated windows, ABBA or BAAB by lot; standard deviation 1."""
    windows = _autoregression(rng, trials, 4 * blocks, WINDOW_CORRELATION)
    lots = rng.choice((-1.0, 1.0), (trials, blocks))
    drawn = lots * (windows.reshape(trials, blocks, 4) @ np.array([1.0, -1.0, -1.0, 1.0]))
    return drawn / float(drawn.std())


def correlated_blocks(rng: np.random.Generator, trials: int, blocks: int) -> Floats:
    """Blocks that are correlated with those before; standard deviation 1."""
    return _autoregression(rng, trials, blocks, BLOCK_CORRELATION)


NOISES: Mapping[str, Noise] = {
    "independent, normal": normal,
    f"heavy tails (t, {TAIL_DEGREES} degrees)": heavy_tailed,
    f"windows correlated ({WINDOW_CORRELATION:g})": correlated_windows,
    f"blocks correlated ({BLOCK_CORRELATION:g})": correlated_blocks,
}


@dataclass(frozen=True)
class Cell:
    """What became of the trials of one effect and one noise."""

    trials: int
    promoted: int
    kept_alone: int
    kept: int

    def __str__(self) -> str:
        share = self.promoted / self.trials
        text = (
            f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 1e-3 else f"{share:.2%}"
        )
        if not self.promoted:
            return "none"
        if self.promoted < LEAST_PROMOTED:
            return text
        alone, pooled = self.kept_alone / self.promoted, self.kept / self.promoted
        return f"{text}: {alone:.0%} -> {pooled:.0%}"


def promotion(blocks: list[float], gate: GateSettings) -> int:
    """After how many blocks the promotion is accepted; 0 where it is not."""
    for count in range(gate.min_blocks, gate.max_blocks + 1):
        verdict = judge_promotion(blocks[:count], {}, {}, 1.0, gate).verdict
        if verdict is not None:
            return count if verdict is Verdict.ACCEPT else 0
    raise AssertionError("the gate has a verdict at the last look")


def stands(pairs: list[float], earlier: list[float]) -> bool:
    """Whether the probation ends with the deployed configuration kept."""
    for count in range(2, len(pairs) + 1):
        verdict = judge_probation(pairs[:count], len(pairs), earlier).verdict
        if verdict is not None:
            return verdict is Verdict.ACCEPT
    raise AssertionError("a probation has a verdict at its last block")


def simulate(
    noise: Noise, effect: float, block_sd: float, trials: int, rng: np.random.Generator
) -> Cell:
    """Let the gate judge so many trials of one true effect."""
    gate = GateSettings()
    shift = math.log1p(effect)
    blocks = shift + block_sd * noise(rng, trials, gate.max_blocks)
    pairs = shift + PAIR_SD * block_sd * noise(rng, trials, PROBATION_BLOCKS)
    promoted = kept_alone = kept = 0
    for mine, later in zip(blocks.tolist(), pairs.tolist(), strict=True):
        used = promotion(mine, gate)
        if used:
            promoted += 1
            kept_alone += stands(later, [])
            kept += stands(later, mine[:used])
    return Cell(trials, promoted, kept_alone, kept)


def table(trials: int, seed: int) -> Table:
    """Every noise, effect and standard deviation; the same seed gives the same table."""
    shown = Table(
        title=f"promoted: kept by its own blocks -> kept with the pooled look ({trials} trials a "
        f"cell, seed {seed})",
        title_justify="left",
    )
    shown.add_column("noise")
    shown.add_column("true effect", justify="right")
    for block_sd in BLOCK_SDS:
        shown.add_column(f"sd {block_sd:.0%}", justify="right")
    for number, (name, noise) in enumerate(NOISES.items()):
        for row, effect in enumerate(EFFECTS):
            cells = [
                simulate(noise, effect, sd, trials, np.random.default_rng([seed, number, row, n]))
                for n, sd in enumerate(BLOCK_SDS)
            ]
            shown.add_row(
                name if row == 0 else "", f"{effect:+.0%}" if effect else "0%", *map(str, cells)
            )
        shown.add_section()
    return shown


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gate_power", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--trials", type=int, default=10_000, help="a cell (10000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    Console(width=120).print(table(arguments.trials, arguments.seed))


if __name__ == "__main__":
    main()
