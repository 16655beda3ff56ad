"""What a knob policy learns from and is judged on: recorded transitions as arrays, and folds.

Gains of two episodes (a run and a workload of it) are on different scales: nothing here compares
them. The rows of one trial, told by their configuration, always lie on one side of a split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import KnobSpace
from backend.domain.transition import Transition
from backend.training_data import TrainingData

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FOLDS = 5
"""Parts that take turns in being held out."""


@dataclass(frozen=True, eq=False)
class RecordedTrials:
    """Measurements, one a row, oldest first within their episode.

    Args:
        space: of the actions' encoding.
        states: raw, shape ``(n, state_width)``.
        actions: encoded configurations, shape ``(n, space.width)``.
        gains: ``-ln(objective)``, shape ``(n,)``: comparable within an episode only.
        qualities: in [0, 1].
        censored: whether ``gains`` is only an upper bound.
        episodes: number of the episode, from 0.
    """

    space: KnobSpace
    states: FloatArray
    actions: FloatArray
    gains: FloatArray
    qualities: FloatArray
    censored: NDArray[np.bool_]
    episodes: IntArray

    @classmethod
    def of(cls, data: TrainingData) -> RecordedTrials:
        """The arrays of sorted transitions; an episode without a measured gain is left out."""
        kept = [episode for episode in data.episodes if any(not step.censored for step in episode)]
        rows = [step for episode in kept for step in episode]
        gains = [gain for episode in kept for gain in _gains(episode)]
        return cls(
            space=data.space,
            states=np.array([step.state for step in rows]),
            actions=np.array([step.action for step in rows]).reshape(-1, data.space.width),
            gains=np.array(gains),
            qualities=np.array([step.quality for step in rows]),
            censored=np.array([step.censored for step in rows], dtype=np.bool_),
            episodes=np.repeat(np.arange(len(kept)), [len(episode) for episode in kept]),
        )

    def __len__(self) -> int:
        return len(self.gains)

    def first_actions(self) -> FloatArray:
        """For each row, what stood when its episode began: the first configuration of it."""
        _, first = np.unique(self.episodes, return_index=True)
        return np.asarray(self.actions[first[self.episodes]])

    def trials(self) -> IntArray:
        """The number of each row's trial: what measured one configuration in one episode."""
        keys = np.column_stack([self.episodes, self.actions.round(6)])
        _, first, trial = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        return np.asarray(np.argsort(np.argsort(first))[trial.ravel()], dtype=np.int64)

    def folds(self) -> IntArray:
        """Which fold holds each row out, in [0, FOLDS): whole episodes where there are enough.

        Else each episode is cut into as many blocks of time; all rows of one configuration
        belong to the block in which it was measured first.
        """
        count = int(self.episodes.max(initial=-1)) + 1
        if count >= FOLDS:
            return np.asarray(self.episodes * FOLDS // count)
        folds, trials = np.zeros(len(self), dtype=np.int64), self.trials()
        for episode in range(count):
            rows = self.episodes == episode
            order = trials[rows] - trials[rows].min()
            folds[rows] = order * FOLDS // (order.max() + 1)
        return folds


def _gains(episode: Sequence[Transition]) -> list[float]:
    """A gain for each step; where a bound is infinite, that of the worst measured one."""
    measured = [-math.log(step.objective) for step in episode if not step.censored]
    return [
        -math.log(step.objective) if math.isfinite(step.objective) else min(measured)
        for step in episode
    ]
