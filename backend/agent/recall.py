"""Recall: what was best when the state was last where it is now.

A workload that comes back is answered with a configuration that was measured in it, instead of
being searched anew. Pure functions of what the agent has been told.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.agent.normalisation import RunningNormaliser
from backend.agent.replay import Replay

FloatArray = NDArray[np.float64]
RECALL_FROM = 8
"""Recall needs so many measurements of the agent's own."""
SHIFT = 4.0
"""The state has moved when it is so many times further from the last ones (squared distances) than
neighbouring ones usually are."""
NEAR = 0.5
"""States like the present one are within this share of the (squared) distance moved."""


def recalled_action(
    replay: Replay, normalised: RunningNormaliser, state: FloatArray
) -> FloatArray | None:
    """After the state has moved: the best action measured in states like this one.

    Args:
        replay: what was told; only the agent's own measurements count.
        normalised: of the states.
        state: the present one, raw, shape ``(state_width,)``.

    Returns:
        The action with the highest mean target, shape ``(action_width,)``; None while the state
        has not moved, or where nothing was measured before.
    """
    own = replay.own_rows()
    if len(own) < RECALL_FROM or len(state) == 0:
        return None
    states, now = normalised(replay["states"][own]), normalised(state)
    usual = np.median(((states[1:] - states[:-1]) ** 2).sum(axis=1))
    gap = ((states[-2:] - now) ** 2).sum(axis=1).min()
    if gap <= SHIFT * usual:
        return None  # still the same workload
    # Medians of three neighbours in time: one odd reading does not hide a sample.
    calm = states.copy()
    calm[1:-1] = np.median([states[:-2], states[1:-1], states[2:]], axis=0)
    near = ((calm - now) ** 2).sum(axis=1) < NEAR * gap
    known = own[near & (replay["censored"][own] == 0.0)]
    if len(known) == 0:
        return None  # not seen before
    actions, targets = replay["actions"][known], replay.targets()[known]
    same = (actions[:, None] == actions[None]).all(axis=2)
    means = (same * targets).sum(axis=1) / same.sum(axis=1)
    return np.asarray(actions[int(np.argmax(means))])
