"""The profile of a workload: a few robust numbers by which genomes are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.state_features import FEATURES

Profile = Mapping[str, float]
NAMES = (
    "log_calls_per_s",
    "log_mean_ms",
    "mix_entropy",
    "log_xact_commit_per_s",
    "log_tup_returned_per_s",
    "log_blocks_read_per_s",
    "log_wal_bytes_per_s",
)
"""Rate, level of latency, entropy of the query classes, how much is read, how much is written."""
SCALE: Mapping[str, float] = {"mix_entropy": 0.5, "log_blocks_read_per_s": 3.0}
"""What counts as far apart; 1 (a factor of e) where nothing is said. How much is read from disk
hangs on what the cache has kept, and wanders by powers of ten within one workload."""
ALIKE = 1.5
"""Workloads further apart than this have nothing to tell each other. The halves of one run are 0.1
to 0.7 apart."""
SAME = 0.25
"""Distances that differ by no more than this do not differ."""
_COLUMNS = {feature.name: column for column, feature in enumerate(FEATURES)}


def profile_of(states: Sequence[NDArray[np.float64]]) -> Profile:
    """The medians of states of one workload; {} where there are none."""
    if len(states) == 0:
        return {}
    middle = np.median(np.array(states), axis=0)
    return {name: float(middle[_COLUMNS[name]]) for name in NAMES}


def distance(one: Profile, other: Profile) -> float:
    """Root mean square of the scaled differences; infinite where they share no number."""
    shared = [name for name in NAMES if name in one and name in other]
    if not shared:
        return float("inf")
    gaps = [(one[name] - other[name]) / SCALE.get(name, 1.0) for name in shared]
    return float(np.sqrt(np.mean(np.square(gaps))))
