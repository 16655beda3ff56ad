"""Recorded tuning of simulated databases: what Level 0 leaves behind, with a known truth.

A stand-in for the knob agent, cheap enough for hundreds of episodes: it mutates the best
configuration that it measured, a few knobs at a time, and now and then looks elsewhere nearby.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from backend.agent.action_grid import ActionGrid
from backend.domain.knobs import KnobValue
from backend.domain.records import KnobSpaceRecord, TransitionRecord
from backend.policy.recorded_trials import RecordedTrials
from backend.protocols import Clock, Store
from backend.state_features import OFFERED_COLUMNS, STATE_LAYOUT, STATE_WIDTH
from backend.targets.simulated_model import DEFAULT_SPACE, ResponseModel

FloatArray = NDArray[np.float64]
SPACE = DEFAULT_SPACE
NOISE = 0.05
"""Of one measurement's ln(index)."""
STOPPED_ABOVE = 1.5
"""The safety monitor stops what is so much slower, and a bound is all that is recorded."""
BOUND = 1.3


LOAD, TASTE = OFFERED_COLUMNS[:2]
"""The state's coordinates that show how much is asked for, and which workload it is."""


@dataclass(frozen=True)
class Workload:
    """A simulated database under one load: the truth, and what a state shows of it."""

    model: ResponseModel
    load: float
    state: FloatArray = field(repr=False)

    def log_index(self, action: FloatArray) -> float:
        """The exact ln(index) of an encoded configuration; 0 is the default one's."""
        return math.log(self.model.index_of(SPACE.decode(action), self.load))


def workload(
    seed: int, *, best: Mapping[str, KnobValue] | None = None, taste: float = 0.0
) -> Workload:
    """A workload whose knobs weigh as the seed says.

    Args:
        seed: of weights and load.
        best: where its optimum lies; None: where that of all others does.
        taste: what its states show of that.
    """
    load = float(np.random.default_rng([seed, 17]).uniform(0.5, 1.2))
    state = np.full(STATE_WIDTH, 1.0)
    state[LOAD], state[TASTE] = 4.0 + math.log(load), taste
    return Workload(ResponseModel(seed=seed, best=best), load, state)


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
            state = one.state + 0.1 * rng.standard_normal(STATE_WIDTH)
            rows.append((state, action, -told, rng.uniform(0.5, 1.0), stopped, number))
            if not stopped and told < best_log:
                best, best_log = action, told
            step = 0.4 if rng.random() < 0.3 else 0.2
            near = grid.mutate(best[None], np.full(1, 2.0), step, rng)
            action = grid.within(near, best, 0.4)[0]
    states, actions, gains, qualities, censored, episodes = map(np.array, zip(*rows, strict=True))
    return RecordedTrials(SPACE, states, actions, gains, qualities, censored, episodes)


def store_transitions(store: Store, clock: Clock, data: RecordedTrials) -> None:
    """Store what was recorded as the tuner would have."""
    store.add_knob_space(KnobSpaceRecord.of(SPACE))
    for row in range(len(data)):
        gain = float(data.gains[row])
        store.add_transition(
            TransitionRecord(
                at=clock.now() + timedelta(seconds=row),
                run="run",
                workload=f"demo {data.episodes[row]}",
                knob_space=SPACE.fingerprint,
                state_layout=STATE_LAYOUT,
                state=tuple(map(float, data.states[row])),
                config=dict(SPACE.decode(data.actions[row])),
                objective=math.exp(-gain),
                quality=float(data.qualities[row]),
                censored=bool(data.censored[row]),
                reward_terms={"latency": gain},
            )
        )
