"""Load profile, latency index and sample quality: the values; sample_filter computes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from backend.domain.metrics import QueryKey


@dataclass(frozen=True)
class LoadProfile:
    """What the clients asked for, and what the server did about it, over one window.

    *Offered load* (``calls_per_s``, ``mix``, ``clients``) is what pairing and quality use. What
    knobs themselves change (``active_sessions``, ``cpu_percent``, ...) goes into the agent's
    state and is balanced across the arms of a trial. ``mean_ms``: mean time of each class.
    """

    calls_per_s: float
    mix: Mapping[QueryKey, float]
    clients: float
    active_sessions: float = 0.0
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    io_bytes_per_s: float = 0.0
    checkpoints: float = 0.0
    mean_ms: Mapping[QueryKey, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LatencyIndex:
    """The load-normalised objective: 1.0 is the reference, lower is better.

    ``value = sum(w_q * t_q) / sum(w_q * t_q0)`` over the compared query classes, with reference
    call shares ``w_q`` and reference mean times ``t_q0``. ``coverage`` is the share of the
    reference's execution time that the compared classes hold, in [0, 1].
    """

    value: float
    coverage: float
    classes: int


@dataclass(frozen=True)
class SampleQuality:
    """How far a window can be trusted, in [0, 1], with the reasons for what is missing."""

    value: float
    reasons: tuple[str, ...] = ()
    factors: Mapping[str, float] = field(default_factory=dict)
