"""The agents' state: a metrics window and a load profile as a vector of fixed length.

Each feature is a name and a function, so the vector's layout is this list and nothing else.
Rates and sizes enter as ``log1p``: they span decades. The agent normalises online.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.domain.load import LoadProfile
from backend.domain.metrics import MetricsWindow

Reading = Callable[[MetricsWindow, LoadProfile], float]


@dataclass(frozen=True)
class Feature:
    """One coordinate of the state.

    Attributes:
        name: for people, and for the layout's digest.
        read: its value.
        offered: whether it tells what is asked of the server, however that does: knobs do not
            change it (the number of clients they do: slow answers make more of them wait).
    """

    name: str
    read: Reading
    offered: bool = False


def _rate(name: str, *, offered: bool = False) -> Feature:
    return Feature(
        f"log_{name}_per_s", lambda w, _: math.log1p(max(w.rates.get(name, 0.0), 0.0)), offered
    )


def _gauge(name: str) -> Feature:
    return Feature(name, lambda w, _: w.gauges.get(name, 0.0))


def _mix_entropy(_: MetricsWindow, profile: LoadProfile) -> float:
    return -sum(p * math.log(p) for p in profile.mix.values() if p > 0)


def _hit_ratio(window: MetricsWindow, _: LoadProfile) -> float:
    hit, read = window.rates.get("blocks_hit", 0.0), window.rates.get("blocks_read", 0.0)
    return hit / (hit + read) if hit + read > 0 else 1.0


FEATURES: tuple[Feature, ...] = (
    Feature("log_calls_per_s", lambda _, p: math.log1p(p.calls_per_s), offered=True),
    Feature("log_mean_ms", lambda w, _: math.log1p(w.mean_ms or 0.0)),
    Feature("mix_entropy", _mix_entropy, offered=True),
    Feature("clients", lambda _, p: p.clients),
    Feature("active_sessions", lambda _, p: p.active_sessions),
    Feature("cpu_percent", lambda _, p: p.cpu_percent),
    Feature("memory_percent", lambda _, p: p.memory_percent),
    Feature("log_io_bytes_per_s", lambda _, p: math.log1p(max(p.io_bytes_per_s, 0.0))),
    Feature("checkpoints", lambda _, p: p.checkpoints),
    Feature("cache_hit_ratio", _hit_ratio),
    _rate("xact_commit", offered=True),
    _rate("xact_rollback"),
    _rate("blocks_read"),
    _rate("tup_returned"),
    _rate("temp_bytes"),
    _rate("wal_bytes"),
    _gauge("connections_waiting"),
    _gauge("waits_lock"),
    _gauge("waits_io"),
)

STATE_WIDTH = len(FEATURES)
OFFERED_COLUMNS = tuple(i for i, feature in enumerate(FEATURES) if feature.offered)
"""The coordinates by which a load is recognised."""
STATE_LAYOUT = hashlib.sha256("\n".join(f.name for f in FEATURES).encode()).hexdigest()[:16]
"""Digest of the features' names in their order: states of two layouts do not mean the same."""


def state_vector(window: MetricsWindow, profile: LoadProfile) -> NDArray[np.float64]:
    """The state, shape ``(STATE_WIDTH,)``, finite."""
    values = np.array([feature.read(window, profile) for feature in FEATURES], dtype=np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
