"""Trials of the gate over made-up noise: what blocks' log ratios look like."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from backend.domain.modes import Verdict
from backend.gate import GateSettings, judge_promotion

GATE = GateSettings()
Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]
NOISE_SD = 0.05
"""Standard deviation of a block's log ratio: what blocks of four 10 s windows show."""


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    return rng.normal(0, NOISE_SD, shape)


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Student's t with 3 degrees of freedom: now and then a block is far off."""
    return rng.standard_t(3, shape) / math.sqrt(3) * NOISE_SD


def autocorrelated(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A first-order process: each block resembles the one before by 0.2."""
    fresh = rng.normal(0, NOISE_SD, shape)
    path = np.empty(shape)
    path[:, 0] = fresh[:, 0]
    for step in range(1, shape[1]):
        path[:, step] = 0.2 * path[:, step - 1] + math.sqrt(1 - 0.2**2) * fresh[:, step]
    return path


def ratio_of_few(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Ratios of two means of a few exponential times each: rare, slow statements rule."""
    few = 2 / NOISE_SD**2 / 20
    scale = NOISE_SD / math.sqrt(2 / few)
    return (np.log(rng.gamma(few, size=shape)) - np.log(rng.gamma(few, size=shape))) * scale


def run_trial(
    blocks: NDArray[np.float64],
    gate: GateSettings = GATE,
    classes: Mapping[str, NDArray[np.float64]] | None = None,
    shares: Mapping[str, float] | None = None,
    coverage: float = 1.0,
) -> tuple[Verdict, int]:
    """Look after each block, as a trial does; the verdict and the blocks that it took."""
    for n in range(1, gate.max_blocks + 1):
        judged = judge_promotion(
            blocks[:n].tolist(),
            {name: values[:n].tolist() for name, values in (classes or {}).items()},
            shares or {},
            coverage,
            gate,
        )
        if judged.verdict is not None:
            return judged.verdict, n
    raise AssertionError("a promotion has a verdict after max_blocks")


def verdicts(effect: float, draw: Draw, trials: int, seed: int, gate: GateSettings = GATE):
    noise = draw(np.random.default_rng(seed), (trials, gate.max_blocks))
    return Counter(run_trial(math.log1p(effect) + row, gate)[0] for row in noise)
