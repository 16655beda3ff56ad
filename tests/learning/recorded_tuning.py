"""Recorded tuning of simulated databases: what Level 0 leaves behind, with a known truth.

A stand-in for the knob agent, cheap enough for hundreds of episodes: it mutates the best
configuration that it measured, a few knobs at a time, and now and then looks elsewhere nearby.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.agent.action_grid import ActionGrid
from backend.domain.knobs import KnobValue
from backend.policy.recorded_trials import RecordedTrials
from backend.targets.simulated_model import DEFAULT_SPACE, ResponseModel

FloatArray = NDArray[np.float64]
SPACE = DEFAULT_SPACE
NOISE = 0.05
"""Of one measurement's ln(index)."""
STOPPED_ABOVE = 1.5
"""The safety monitor stops what is so much slower, and a bound is all that is recorded."""
BOUND = 1.3


@dataclass(frozen=True)
class Workload:
    """A simulated database under one load: the truth, and what a state shows of it."""

    model: ResponseModel
    load: float
    shown: FloatArray = field(repr=False)

    def log_index(self, action: FloatArray) -> float:
        """The exact ln(index) of an encoded configuration; 0 is the default one's."""
        return math.log(self.model.index_of(SPACE.decode(action), self.load))


def workload(
    seed: int, *, best: dict[str, KnobValue] | None = None, gain: float = 0.35
) -> Workload:
    """A workload whose knobs weigh as the seed says; its state shows the load and the mix."""
    rng = np.random.default_rng([seed, 17])
    load = float(rng.uniform(0.5, 1.2))
    model = ResponseModel(seed=seed, gain=gain, best=best)
    jit_good = 1.0 if best is None else 3.0
    return Workload(model, load, np.array([load, jit_good, rng.normal()]))


def recorded(
    workloads: Sequence[Workload], tells: int, seed: int, *, noise: float = NOISE
) -> RecordedTrials:
    """One episode of tuning for each workload."""
    grid, rng = ActionGrid(SPACE), np.random.default_rng(seed)
    rows: list[tuple[FloatArray, FloatArray, float, float, bool, int]] = []
    for number, one in enumerate(workloads):
        standing = SPACE.encode(SPACE.default_config())
        best, best_log, action = standing, math.inf, standing
        for _ in range(tells):
            true = one.log_index(action)
            told = true + noise * rng.standard_normal()
            stopped = math.exp(true) > STOPPED_ABOVE
            told = math.log(BOUND) if stopped else told
            state = one.shown + 0.1 * rng.standard_normal(len(one.shown))
            rows.append((state, action, -told, rng.uniform(0.5, 1.0), stopped, number))
            if not stopped and told < best_log:
                best, best_log = action, told
            step = 0.4 if rng.random() < 0.3 else 0.2
            near = grid.mutate(best[None], np.full(1, 2.0), step, rng)
            action = grid.within(near, best, 0.4)[0]
    states, actions, gains, qualities, censored, episodes = map(np.array, zip(*rows, strict=True))
    return RecordedTrials(SPACE, states, actions, gains, qualities, censored, episodes)
