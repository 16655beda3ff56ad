"""What the store holds: one frozen record a table row. Times are aware and in UTC.

These records are the whole interface between the tuner, the workload and the dashboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.domain.modes import (
    Arm,
    ChangeState,
    CommandKind,
    CommandState,
    Mode,
    Phase,
    SafetyAction,
    TrialKind,
    TrialState,
    Verdict,
)
from backend.errors import KnobBoundsError

_KNOB_FIELDS = (
    "name", "kind", "low", "high", "scale", "unit", "default", "choices", "special", "context",
)  # fmt: skip


@dataclass(frozen=True)
class QueryClassRecord:
    """A normalised statement as pg_stat_statements shows it (no literals). ``key`` = QueryKey."""

    key: str
    text: str
    first_seen_at: datetime


@dataclass(frozen=True)
class QueryWindowRecord:
    """One query class over one window."""

    key: str
    calls: int
    mean_ms: float
    rows: int = 0
    shared_blocks_hit: int = 0
    shared_blocks_read: int = 0
    temp_blocks_written: int = 0


@dataclass(frozen=True)
class WindowRecord:
    """A metrics window as judged by the sample filter.

    ``index`` is the published latency index against the beginning of its workload, None where it
    cannot be told (no reference yet, too little coverage). ``rates`` and ``gauges`` carry every
    metric.
    """

    started_at: datetime
    ended_at: datetime
    duration_s: float
    phase: Phase
    config: Mapping[str, KnobValue]
    id: int | None = None
    arm: Arm | None = None
    trial_id: int | None = None
    index: float | None = None
    coverage: float = 0.0
    quality: float = 1.0
    quality_reasons: tuple[str, ...] = ()
    calls_per_s: float = 0.0
    mean_ms: float | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    queries: tuple[QueryWindowRecord, ...] = ()


@dataclass(frozen=True)
class ClientIntervalRecord:
    """Client-side truth of the workload generator over a few seconds, one statement class.

    Latencies in ms count from the scheduled arrival (``response``) or the send (``service``).
    ``class_name`` is ``*`` for all classes together.
    """

    started_at: datetime
    ended_at: datetime
    class_name: str
    offered: int
    completed: int
    errors: int
    timeouts: int
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    service_mean_ms: float | None = None


@dataclass(frozen=True)
class TrialRecord:
    """One candidate, its evidence and its verdict.

    ``effect`` is the relative change of the latency index (-0.25: a quarter lower) with the
    interval [``ci_low``, ``ci_high``] at ``confidence``; ``block_log_ratios`` holds one
    log(candidate / incumbent) a block; ``class_effects`` maps a query key to
    ``{"effect", "ci_low", "ci_high", "incumbent_ms", "candidate_ms"}``. ``experiment_plan_id``: of
    the plan that it was tried under, in mode ``approve``.
    """

    kind: TrialKind
    state: TrialState
    proposer: str
    created_at: datetime
    before: Mapping[str, KnobValue | None]
    after: Mapping[str, KnobValue]
    id: int | None = None
    finished_at: datetime | None = None
    verdict: Verdict | None = None
    reasons: tuple[str, ...] = ()
    effect: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    confidence: float = 0.95
    blocks: int = 0
    max_blocks: int = 0
    block_log_ratios: tuple[float, ...] = ()
    coverage: float | None = None
    quality: float | None = None
    needs_restart: bool = False
    class_effects: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    progress: float = 0.0
    experiment_plan_id: int | None = None


@dataclass(frozen=True)
class ChangeRecord:
    """One journalled knob change. Values are native; None stands for "no entry".

    ``before_entry`` and ``after_entry`` are what postgresql.auto.conf held and will hold;
    ``before_value`` is the effective value before. ``timeline`` and ``place`` tell the server
    it was made on (see ``ServerIdentity``).
    """

    batch_id: str
    epoch: int
    actor: str
    knob: str
    before_entry: str | None
    after_entry: str | None
    before_value: KnobValue | None
    after_value: KnobValue | None
    state: ChangeState
    created_at: datetime
    id: int | None = None
    trial_id: int | None = None
    settled_at: datetime | None = None
    detail: str = ""
    timeline: str = ""
    place: str = ""


@dataclass(frozen=True)
class LeaseRecord:
    """The newest lease: who may act, and until when (UTC)."""

    epoch: int
    holder: str
    expires_at: datetime
    released: bool

    def expired(self, now: datetime) -> bool:
        """Whether it ran out without having been released."""
        return not self.released and now > self.expires_at


@dataclass(frozen=True)
class KnownWorkloadRecord:
    """A workload that the tuner can tell from others, with the reference of its latency index.

    ``classes`` maps a query key to ``{"share": of the calls, "mean_ms"}``, measured under the
    entries ``config``; ``factor`` is the index that these have against the beginning of this
    workload. ``noise``: standard deviation of one window's log index.
    """

    number: int
    seen_at: datetime
    factor: float
    noise: float
    config: Mapping[str, KnobValue]
    classes: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class EventRecord:
    """Something worth telling. ``level``: info, warning or error; ``kind``: a short slug."""

    at: datetime
    level: str
    kind: str
    message: str
    id: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CommandRecord:
    """An operator's request, queued in the store. ``payload`` depends on ``kind``:

    SET_KNOBS ``{"knobs": {name: value}}``, ROLL_BACK ``{"batch_id": ...}`` or
    ``{"version_id": ...}`` or ``{}`` (to the last good), SET_MODE ``{"mode": ...}``,
    APPROVE / DECLINE ``{"trial_id": ...}`` (of a promotion), DRAFT_PLAN ``{"document": ...}`` or
    ``{}`` (the tuner's own), APPROVE_PLAN / DECLINE_PLAN ``{"plan_id": ...}``, FREEZE
    ``{"reason": ...}`` or ``{}``, STEER ``{"fingerprint": ..., "search_path": ...,
    "mode": "auto", "pin" or "off"}``. ``result`` is what came of it, for people.
    """

    kind: CommandKind
    payload: Mapping[str, Any]
    actor: str
    created_at: datetime
    id: int | None = None
    state: CommandState = CommandState.QUEUED
    finished_at: datetime | None = None
    result: str = ""


@dataclass(frozen=True)
class LearningRecord:
    """One learning step of an agent; None where the quantity does not exist yet."""

    at: datetime
    agent: str
    step: int
    reward: float | None = None
    critic_loss: float | None = None
    actor_loss: float | None = None
    noise: float | None = None
    replay_size: int = 0
    quality: float | None = None
    reward_terms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class KnobSpaceRecord:
    """A knob space that transitions refer to, with all that encoding their values takes."""

    fingerprint: str
    shape: str
    knobs: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, space: KnobSpace) -> KnobSpaceRecord:
        """The record of a space."""
        knobs = tuple({name: getattr(knob, name) for name in _KNOB_FIELDS} for knob in space)
        return cls(space.fingerprint, space.shape_fingerprint, knobs)

    def space(self) -> KnobSpace:
        """The space again.

        Raises:
            KnobBoundsError: the record is damaged, or belongs to a newer version.
        """
        try:
            space = KnobSpace([Knob(**{n: k[n] for n in _KNOB_FIELDS}) for k in self.knobs])
        except (KeyError, TypeError) as error:
            raise KnobBoundsError(f"knob space {self.fingerprint}: {error!r:.200}") from error
        if (space.fingerprint, space.shape_fingerprint) != (self.fingerprint, self.shape):
            raise KnobBoundsError(
                f"knob space {self.fingerprint} describes {space.fingerprint} instead"
            )
        return space


@dataclass(frozen=True)
class TransitionRecord:
    """One measurement as the knob agent was told it: what offline training learns from.

    ``run`` is drawn anew by each tuner. Objectives of one run and workload can be compared with
    each other (1 is the run's reference, lower is better), those of two runs cannot.
    ``knob_space`` is a KnobSpaceRecord's fingerprint, ``config`` holds every knob of it in native
    values; ``state_layout`` is the digest of the names of ``state``'s features. ``state`` is empty
    where nothing was known. NaN stands for an objective without a bound (``censored``).
    """

    at: datetime
    run: str
    workload: str
    knob_space: str
    state_layout: str
    state: tuple[float, ...]
    config: Mapping[str, KnobValue]
    objective: float
    quality: float = 1.0
    censored: bool = False
    reward_terms: Mapping[str, float] = field(default_factory=dict)
    id: int | None = None


@dataclass(frozen=True)
class KnobStatusRecord:
    """A catalogued knob as it stands on the server now: all that the Knobs page shows."""

    name: str
    value: KnobValue | None
    default: KnobValue | None
    kind: str
    unit: str | None
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    special: tuple[KnobValue, ...]
    context: str
    risk: str
    group: str
    description: str
    doc_url: str
    source: str
    pending_restart: bool
    tunable: bool
    writable: bool
    note: str = ""


@dataclass(frozen=True)
class FreezeRecord:
    """The freeze switch as it was thrown last. It stands whether or not a tuner runs."""

    frozen: bool
    actor: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True)
class HoursRecord:
    """Hours of trials or restarts: as they are set (empty: always), and whether they are now.

    ``changes_at``: when they begin, or are over; None: not within two weeks.
    """

    hours: tuple[str, ...]
    are_open: bool
    changes_at: datetime | None = None


@dataclass(frozen=True)
class StatusRecord:
    """The tuner's present state; the store holds the newest one.

    ``index`` is the present latency index of the present workload (None until it is known) with
    the newest windows of the deployed configuration. ``progress`` in [0, 1] belongs to
    ``activity``; ``limits`` are the settings of section ``safety``. ``genome``: id of the record of
    Level 2's genome in force, None for that of the settings. ``measures_alone``: a baseline or the
    final comparison is being measured, and what can wait rests. ``left_today``: of each limit of a
    day, by its setting. ``hindrance``: why nothing new is tried now, "" where something may be.
    """

    at: datetime
    mode: Mode
    phase: Phase
    server: str = ""
    server_version: str = ""
    paused: bool = False
    frozen: bool = False
    safety: SafetyAction = SafetyAction.ALLOW
    safety_reasons: tuple[str, ...] = ()
    index: float | None = None
    trials: int = 0
    trials_by_verdict: Mapping[str, int] = field(default_factory=dict)
    activity: str = ""
    progress: float | None = None
    policy_version: int | None = None
    epoch: int = 0
    workload: str = ""
    fast_mode: bool = False
    started_at: datetime | None = None
    ends_at: datetime | None = None
    fault: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)
    left_today: Mapping[str, int] = field(default_factory=dict)
    hindrance: str = ""
    trial_hours: HoursRecord | None = None
    restart_hours: HoursRecord | None = None
    genome: int | None = None
    measures_alone: bool = False
