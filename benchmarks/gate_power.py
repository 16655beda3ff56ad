"""How often the gate is right, on simulated noise: ``python -m benchmarks.gate_power``.

Draws the log ratios of pairs of windows with a known true effect, two a block, and lets the gate
itself (``backend/gate.py``) judge them: first as a promotion, with the allowance of a
day's first one, then, when it is accepted, as a probation. Each cell of the table reads

    promoted: kept by its own blocks alone -> kept with the pooled look

the share of all trials that is promoted, then the shares of those that stand their probation. At a
true effect of 0 or more a promotion is a false one; below 0 the first number is the gate's power.
Noise, always of the same standard deviation of a block: independent normal pairs; Student's t with
3 degrees of freedom (heavy tails); pairs of windows that are correlated with those before, as slow
swings make them, in the order ABBA or BAAB by lot; and, what that order is there to prevent, pairs
and blocks that are correlated with those before. Query classes are left out: their guard can only
stop a promotion.
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

from backend.config import load_settings
from backend.domain.modes import Verdict
from backend.gate import GateSettings, judge_probation, judge_promotion, trial_alpha

EFFECTS = (-0.10, -0.05, 0.0, 0.05)
"""True relative change of the latency index."""
BLOCK_SDS = (0.03, 0.05, 0.07, 0.10)
"""Standard deviation of the log ratio of a promotion's block (four windows)."""
PROBATION_BLOCKS = 6
PAIR_SD = math.sqrt(2)
"""A pair has half the windows of a block."""
TAIL_DEGREES = 3
WINDOW_CORRELATION = 0.7
"""Between successive windows."""
BLOCK_CORRELATION = 0.3
"""Between successive blocks."""
LEAST_PROMOTED = 50
"""With fewer promotions, the share that is kept is not shown."""

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int, int], Floats]
"""From generator, trials and blocks to pairs, shape (trials, blocks, 2); a block is their mean, of
standard deviation 1."""


def normal(rng: np.random.Generator, trials: int, blocks: int) -> Floats:
    """Independent pairs."""
    return PAIR_SD * rng.standard_normal((trials, blocks, 2))


def heavy_tailed(rng: np.random.Generator, trials: int, blocks: int) -> Floats:
    """Independent pairs with outliers."""
    scale = PAIR_SD * math.sqrt((TAIL_DEGREES - 2) / TAIL_DEGREES)
    return scale * rng.standard_t(TAIL_DEGREES, (trials, blocks, 2))


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
    """Pairs of correlated windows, in the order ABBA or BAAB by lot."""
    windows = _autoregression(rng, trials, 4 * blocks, WINDOW_CORRELATION)
    windows = windows.reshape(trials, blocks, 4)
    lots = rng.choice((-1.0, 1.0), (trials, blocks, 1))
    pairs = lots * (windows[:, :, [0, 3]] - windows[:, :, [1, 2]])
    return np.asarray(pairs / pairs.mean(axis=2).std(), dtype=np.float64)


def correlated_blocks(rng: np.random.Generator, trials: int, blocks: int) -> Floats:
    """Pairs that are correlated with those before, so that blocks are."""
    # Blocks of two pairs with a correlation of r have one of r (1 + r) / 2.
    of_pairs = (math.sqrt(1 + 8 * BLOCK_CORRELATION) - 1) / 2
    pairs = _autoregression(rng, trials, 2 * blocks, of_pairs).reshape(trials, blocks, 2)
    return pairs / math.sqrt((1 + of_pairs) / 2)


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


def first_of_a_day() -> GateSettings:
    """The gate of a day's first promotion, with the settings' defaults."""
    level1 = load_settings(environ={}).level1
    return GateSettings(
        alpha=trial_alpha(1, level1.alpha, level1.daily_alpha),
        min_improvement=level1.min_improvement,
        min_blocks=level1.min_blocks,
        max_blocks=level1.max_blocks,
    )


def promotion(pairs: list[float], gate: GateSettings) -> int:
    """After how many blocks, of two pairs each, the promotion is accepted; 0 where it is not."""
    blocks = [(a + b) / 2 for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    for count in range(gate.min_blocks, gate.max_blocks + 1):
        verdict = judge_promotion(blocks[:count], {}, {}, 1.0, gate, pairs[: 2 * count]).verdict
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
    gate = first_of_a_day()
    shift = math.log1p(effect)
    tried = shift + block_sd * noise(rng, trials, gate.max_blocks)
    # On probation a block is one pair.
    later = shift + PAIR_SD * block_sd * noise(rng, trials, PROBATION_BLOCKS).mean(axis=2)
    promoted = kept_alone = kept = 0
    for mine, pairs in zip(tried, later.tolist(), strict=True):
        used = promotion(mine.ravel().tolist(), gate)
        if used:
            promoted += 1
            kept_alone += stands(pairs, [])
            kept += stands(pairs, mine[:used].mean(axis=1).tolist())
    return Cell(trials, promoted, kept_alone, kept)


def table(trials: int, seed: int) -> Table:
    """Every noise, effect and standard deviation; the same seed gives the same table."""
    shown = Table(
        title=f"promoted: kept by its own blocks -> kept with the pooled look ({trials} trials a "
        f"cell, seed {seed}, alpha {first_of_a_day().alpha:g})",
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
