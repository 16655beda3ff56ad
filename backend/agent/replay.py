"""The knob agent's memory: weighted transitions in flat arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from backend.agent.normalisation import rank_gumbel, standardised
from backend.domain.transition import Transition

FloatArray = NDArray[np.float64]
_FIELDS = (
    "states",
    "actions",
    "rewards",
    "next_states",
    "qualities",
    "censored",
    "masks",
    "episodes",
)
ONLINE = 0
"""The episode of what this agent was told itself; recorded ones count from 1."""
OFFLINE_PULL = 20.0
"""Recorded transitions together pull on the critics like so many of the agent's own: they lead
at first and fade as the agent sees for itself."""


class Replay:
    """A ring buffer of transitions with a bootstrap weight per ensemble member.

    Args:
        capacity: transitions kept; the oldest goes first.
        state_width, action_width: lengths of the raw state and of the encoded action.
        members: size of the critics' ensemble. Each transition gets one weight per member
            (exponential with mean 1, the Bayesian bootstrap of Rubin, 1981), drawn once.
        ranked: whether targets are ranks, or standardised rewards.
    """

    def __init__(
        self,
        capacity: int,
        state_width: int,
        action_width: int,
        members: int,
        *,
        ranked: bool = True,
    ) -> None:
        self.capacity = capacity
        self._scaled = rank_gumbel if ranked else standardised
        self.size = 0
        self._next = 0
        self._data: dict[str, FloatArray] = {
            name: np.zeros((0, width) if width is not None else (0,))
            for name, width in zip(
                _FIELDS,
                (state_width, action_width, None, state_width, None, None, members, None),
                strict=True,
            )
        }

    def add(self, transition: Transition, rng: np.random.Generator, episode: int = ONLINE) -> None:
        """Keep a transition; its reward may be -inf where it is a censored bound.

        Rewards are compared within an ``episode`` only: those of another run, on another
        workload or machine, are on another scale.
        """
        row: dict[str, FloatArray | float] = {
            "states": transition.state,
            "actions": transition.action,
            "rewards": transition.reward,
            "next_states": transition.next_state,
            "qualities": transition.quality,
            "censored": float(transition.censored),
            "masks": rng.exponential(1.0, self._data["masks"].shape[1]),
            "episodes": float(episode),
        }
        if self._next >= len(self._data["rewards"]):  # grow by doubling up to the capacity
            length = min(self.capacity, max(64, 2 * len(self._data["rewards"])))
            for name, old in self._data.items():
                grown = np.zeros((length, *old.shape[1:]))
                grown[: len(old)] = old
                self._data[name] = grown
        for name, value in row.items():
            self._data[name][self._next] = value
        self._next = (self._next + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def link_next_state(self, state: FloatArray) -> None:
        """Tell which state followed the newest transition."""
        if self.size:
            self._data["next_states"][self._next - 1] = state

    def __getitem__(self, field: str) -> FloatArray:
        """The filled rows of ``states``, ``actions``, ``rewards``, ``masks`` and so on."""
        return self._data[field][: self.size]

    @property
    def online(self) -> NDArray[np.bool_]:
        """Which of the filled rows this agent was told itself."""
        return np.asarray(self["episodes"] == ONLINE)

    def own_rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that this agent was told itself, in the order of telling."""
        order = np.roll(np.arange(self.size), -self._next if self.size == self.capacity else 0)
        return order[self.online[order]]

    def targets(self) -> FloatArray:
        """Rewards ranked within their episode: higher is better, shape ``(size,)``.

        A censored reward is only an upper bound. It is replaced by what can be expected below
        it: the mean of the measured targets that are lower (the lowest, where there is none).
        """
        targets = np.zeros(self.size)
        for episode in np.unique(self["episodes"]):
            rows = self["episodes"] == episode
            scaled, censored = self._scaled(self["rewards"][rows]), self["censored"][rows] > 0.0
            measured = np.sort(scaled[~censored])
            if censored.any() and measured.size:
                lower = np.maximum(np.searchsorted(measured, scaled[censored]), 1)
                means = np.cumsum(measured)[lower - 1] / lower
                scaled[censored] = np.minimum(scaled[censored], means)
            targets[rows] = scaled
        return targets

    def draw(self, batches: int, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw row numbers, shape ``(batches, batch_size)``, with odds as sqrt(quality).

        The loss weighs by sqrt(quality) once more, so that a sample's pull is its quality.
        """
        odds = np.sqrt(self["qualities"])
        recorded = ~self.online
        if (total := odds[recorded].sum()) > OFFLINE_PULL:
            odds[recorded] *= OFFLINE_PULL / total
        return rng.choice(self.size, size=(batches, batch_size), p=odds / odds.sum())

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that :meth:`restore` needs."""
        filled: dict[str, NDArray[np.generic]] = {n: self[n] for n in _FIELDS}
        return {**filled, "next": np.array(self._next)}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from what :meth:`arrays` gave.

        Raises:
            ValueError: the arrays do not fit this replay.
        """
        size = len(arrays["rewards"])
        following = int(arrays["next"])
        if size > self.capacity or not 0 <= following < max(self.capacity, 1):
            raise ValueError(f"replay of {size} transitions, capacity {self.capacity}")
        for name in _FIELDS:
            values = np.asarray(arrays[name], dtype=np.float64)
            if values.shape != (size, *self._data[name].shape[1:]):
                raise ValueError(f"replay field {name} has shape {values.shape}")
            self._data[name] = values.copy()
        self.size, self._next = size, following
