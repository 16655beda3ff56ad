"""What an agent learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Transition:
    """State, action, reward, next state, quality.

    ``state`` and ``next_state`` have shape ``(state_width,)`` (raw, not normalised), ``action``
    the knob space's ``(width,)`` in [-1, 1]. ``objective`` is lower-is-better (a latency index);
    ``censored`` marks it as a lower bound. ``quality`` in [0, 1] weighs the sample;
    ``reward_terms`` adds up to ``reward``.
    """

    state: NDArray[np.float64]
    action: NDArray[np.float64]
    reward: float
    next_state: NDArray[np.float64]
    objective: float
    quality: float = 1.0
    censored: bool = False
    reward_terms: Mapping[str, float] = field(default_factory=dict)
