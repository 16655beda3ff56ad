"""Recall: what was best when the load was last what it is now.

A workload that comes back is answered with a configuration that was measured in it, instead of
being searched anew. Which measurements are of the same workload is told by the states alone: two
are linked where they lie no further apart than neighbouring tells do now and then. Pure functions
of what the agent has been told.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from backend.agent.normalisation import RunningNormaliser
from backend.agent.replay import Replay

FloatArray = NDArray[np.float64]
RECALL_FROM = 8
"""Recall needs so many measurements of the agent's own."""
LINK = 8.0
"""States are linked up to so many times the usual (median) squared distance of neighbouring tells.
Gaussian noise hardly ever reaches that far; a load that swings and odd readings do."""
LINKS = 3
"""Measurements are of the present load when a chain of so many links leads to them: enough to find
all of a load from an odd reading of it, too few to walk over to another one through all that lay
between when the load once went over slowly."""
LATEST = 2
"""The load has shifted when the last tells, so many, were all of another one."""


def recalled_action(
    replay: Replay,
    normalised: RunningNormaliser,
    state: FloatArray,
    columns: Sequence[int] = (),
) -> FloatArray | None:
    """After the load has shifted to one seen before: the best action measured under it.

    Args:
        replay: what was told; only the agent's own measurements count.
        normalised: of the states.
        state: the present one, raw, shape ``(state_width,)``.
        columns: the coordinates that tell the load; empty for all.

    Returns:
        The action with the highest mean reward, shape ``(action_width,)``; None while the load is
        the one of the last tells, or where it was not seen before.
    """
    own = replay.own_rows()
    if len(own) < RECALL_FROM or len(state) == 0:
        return None
    states, now = normalised(replay["states"][own]), normalised(state)
    if columns:
        states, now = states[:, list(columns)], now[list(columns)]
    usual = np.median(np.sum((states[1:] - states[:-1]) ** 2, axis=1))
    reach = float(np.sqrt(LINK * usual))
    here = _within(reach, states, now[None])
    if not here.any():
        return None  # not seen before
    for _ in range(LINKS - 1):
        here = _within(reach, states, states[here])
    if here[-LATEST:].any():
        return None  # still the same load
    known = own[here & (replay["censored"][own] == 0.0)]
    if len(known) == 0:
        return None
    actions, which = np.unique(replay["actions"][known], axis=0, return_inverse=True)
    # Means of rewards, not of ranks: there the luckiest measurement would weigh most.
    means = np.bincount(which.ravel(), replay["rewards"][known]) / np.bincount(which.ravel())
    return np.asarray(actions[int(np.argmax(means))])


def _within(reach: float, points: FloatArray, others: FloatArray) -> NDArray[np.bool_]:
    """Which points, shape ``(n, width)``, lie within reach of any of the others."""
    distances, _ = KDTree(others).query(points)
    return np.asarray(distances <= reach)
