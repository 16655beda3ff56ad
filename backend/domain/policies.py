"""Records of policies: what is deployed, what Level 1 learnt, what Level 2 measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from backend.domain.knobs import KnobValue
from backend.domain.steering import ServedHint


@dataclass(frozen=True)
class PolicyVersionRecord:
    """A deployed state: knobs, served hint sets and learned weights, with parent and evidence.

    ``config`` holds the knobs that differ from the server's own. ``index`` is the chain-linked
    latency index of the workload in which it was promoted (1.0 at the root). ``steering``: what
    the steering table serves in mode auto, by key. ``weights``: ``knob policy`` or
    ``plan policy`` -> the name of its content-addressed file.
    """

    created_at: datetime
    author: str
    config: Mapping[str, KnobValue]
    id: int | None = None
    parent_id: int | None = None
    trial_id: int | None = None
    index: float = 1.0
    note: str = ""
    active: bool = True
    steering: tuple[ServedHint, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyUpdateRecord:
    """One attempt of Level 1 to replace a learned policy.

    ``policy``: ``knob`` or ``plan``. ``learnt_from`` transitions (knob) or plan runs (plan), and
    ``judged_on`` held-out ones. ``gain`` is the relative reduction of latency on these against the
    policy replaced (0.1: 10 % less) with the interval [``gain_low``, ``gain_high``]; None where it
    could not be judged. ``coverage``: effective sample size / ``judged_on``, in [0, 1].
    ``weights``: the file of the new policy, "" where it was not deployed; ``replaced``: that of
    the policy replaced, "" for none.
    """

    at: datetime
    policy: str
    deployed: bool
    reason: str
    learnt_from: int
    judged_on: int
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    coverage: float
    weights: str = ""
    replaced: str = ""
    duration_s: float = 0.0
    id: int | None = None


@dataclass(frozen=True)
class GenomeRecord:
    """One individual of Level 2 whose fitness was measured.

    ``origin``: ``default``, ``archive`` or ``evolved``. ``fitness``: trials_to_95, regret, spread,
    harmful, cpu_s, memory_bytes. ``profile``: of the workload that it was measured for.
    ``comparison`` with the incumbent on what the evolution never saw: gain, low, high; empty where
    they were not compared.
    """

    at: datetime
    study: str
    generation: int
    origin: str
    genes: Mapping[str, float]
    fitness: Mapping[str, float]
    profile: Mapping[str, float]
    comparison: Mapping[str, float]
    deployed: bool = False
    reason: str = ""
    id: int | None = None


@dataclass(frozen=True)
class EvolutionRecord:
    """The evolution that is at work, or the one that ended last; the store holds the newest state.

    ``at``: its newest sign of life. ``share`` of its time is over, in [0, 1]; ``activity`` is
    for people. ``used_s``: seconds at work, over all its ``starts``. ``by_itself``: the supervisor
    began it, and starts it again after a kill. ``ended_at`` is None while it is not over;
    ``reason``: what came of it; ``deployed``: whether another genome stands since.
    """

    began_at: datetime
    at: datetime
    by_itself: bool = False
    share: float = 0.0
    activity: str = ""
    used_s: float = 0.0
    starts: int = 1
    ended_at: datetime | None = None
    reason: str = ""
    deployed: bool = False
