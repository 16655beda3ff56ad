"""Steering: which statements get which hint set, on what evidence, and what came of it.

A *query class* is known here by the fingerprint of its statement and the search path under which
its names mean what they mean (:class:`ClassKey`); telemetry knows it by its ``queryid``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from backend.domain.modes import Mode
from backend.domain.plans import RunOutcome


@dataclass(frozen=True, order=True)
class ClassKey:
    """A query class, as steering tells it from others.

    Args:
        fingerprint: of its statement without constants, 16 hexadecimal digits
            (``pglast.fingerprint``).
        search_path: the schemas, as ``SHOW search_path`` prints them.
    """

    fingerprint: str
    search_path: str


@dataclass(frozen=True)
class StatementSample:
    """A statement of a class as it was executed, its parameters filled in as literals.

    It may hold data of people: samples are kept in a file that only the autopilot may read, never
    in the store, a log, a page or a report.

    Args:
        key: its class.
        text: one statement, without parameters and semicolon.
        seen_at: when it was executed, or read from a file.
        source: ``plug-in``, ``file`` or ``log``.
    """

    key: ClassKey
    text: str = field(repr=False)
    seen_at: datetime
    source: str


class SteeringMode(str, Enum):
    """What an operator wants for a class.

    AUTO: steered while the evidence stands, but for a share of executions that keeps running the
    default plan. PIN: always steered, whatever the autopilot's mode, until a human says otherwise.
    OFF: never.
    """

    AUTO = "auto"
    PIN = "pin"
    OFF = "off"


class SteeringState(str, Enum):
    """What is known of a class.

    WAITING: not explored yet. EXPLORING: plans are tried. VERIFIED: a hint set was proven faster.
    DEFAULT_BEST: nothing was proven faster than the default plan. WITHDRAWN: a verified hint set
    no longer pays, or holds under other settings than those in force. REFUSED: it may not be run
    on trial.
    """

    WAITING = "waiting"
    EXPLORING = "exploring"
    VERIFIED = "verified"
    DEFAULT_BEST = "default plan is best"
    WITHDRAWN = "withdrawn"
    REFUSED = "not tried"


@dataclass(frozen=True)
class DatabaseIdentity:
    """What evidence was made for, and counts for alone.

    Args:
        server: :attr:`ServerInfo.server_id`; "" where nobody wrote it down.
        database: its name.
    """

    server: str = ""
    database: str = ""


@dataclass(frozen=True)
class HintEvidence:
    """Why a hint set may be served: paired runs of one statement under both plans.

    Args:
        hint_set: its name, and ``settings``: planner setting → value to send.
        under: planner setting → value in force while it was verified, as ``SHOW`` prints it, of
            all that ``settings`` names.
        functions: the functions that the statement calls, none of them volatile.
        statements: different statements of the class that were run.
        pairs: pairs of runs, one under each plan.
        effect: relative change of the time (-0.5: half), with the one-sided bounds
            ``ci_low`` and ``ci_high`` at ``confidence``.
        default_ms, steered_ms: mean latency of a run.
        default_plan, steered_plan: ``EXPLAIN`` as text, without constants of the statements.
        verified_at: when.
        server, database: see :class:`DatabaseIdentity`.
        settings_in_force: planner setting → value, as ``under``, of all that may be named.
    """

    hint_set: str
    settings: Mapping[str, str]
    under: Mapping[str, str]
    functions: tuple[str, ...]
    statements: int
    pairs: int
    effect: float
    ci_low: float
    ci_high: float
    confidence: float
    default_ms: float
    steered_ms: float
    default_plan: str
    steered_plan: str
    verified_at: datetime
    server: str = ""
    database: str = ""
    settings_in_force: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> DatabaseIdentity:
        """Where it was made."""
        return DatabaseIdentity(self.server, self.database)


@dataclass(frozen=True)
class SteeredClassRecord:
    """What stands for a query class now: at most one record a key.

    Args:
        key: the class.
        text: its statement without literals.
        state, reason: what is known, and why, for people.
        mode: what an operator wants.
        updated_at: when anything of this changed.
        evidence: of the hint set that was proven last; None before the first. It stays when the
            hint set is withdrawn.
        default_ms: the default plan's latency when it was measured last.
        plans: different plans that the hint sets lead to, the default plan included.
        probes: runs made to find a better plan, and ``explored_s``: the server's time they took.
        query_keys: the same class in telemetry (``QueryClassRecord.key``), as far as known.
    """

    key: ClassKey
    text: str
    state: SteeringState
    updated_at: datetime
    mode: SteeringMode = SteeringMode.AUTO
    reason: str = ""
    evidence: HintEvidence | None = None
    default_ms: float | None = None
    plans: int | None = None
    probes: int = 0
    explored_s: float = 0.0
    query_keys: tuple[str, ...] = ()

    def is_served(self, mode: Mode) -> bool:
        """Whether it is steered now.

        What a human pinned is, in every mode of the autopilot; what was verified, and is still,
        in mode auto alone.
        """
        if self.evidence is None or self.mode is SteeringMode.OFF:
            return False
        return self.mode is SteeringMode.PIN or (
            mode is Mode.AUTO and self.state is SteeringState.VERIFIED
        )

    @property
    def hint(self) -> ServedHint | None:
        """What a policy version holds of it; None where it is not served in mode auto."""
        if self.evidence is None or not self.is_served(Mode.AUTO):
            return None
        return ServedHint(self.key, self.text, self.evidence, self.mode is SteeringMode.PIN)


@dataclass(frozen=True)
class ServedHint:
    """A hint set as a policy version holds it: served in mode auto, and where ``pinned`` in every.

    Args:
        key: the query class.
        text: its statement without literals.
        evidence: the hint set with what proved it.
        pinned: whether a human wants it served whatever the evidence says.
    """

    key: ClassKey
    text: str
    evidence: HintEvidence
    pinned: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells two of them apart: class, hint set, where and when it was proven, pin."""
        evidence = self.evidence
        return (
            self.key,
            evidence.hint_set,
            tuple(sorted(evidence.settings.items())),
            evidence.home,
            evidence.verified_at,
            self.pinned,
        )


class RunPurpose(str, Enum):
    """Why a statement was run on trial."""

    PROBE = "probe"
    VERIFICATION = "verification"


@dataclass(frozen=True)
class PlanRunRecord:
    """One run of a statement under a hint set, as the agents learn from it.

    ``statement`` is a digest of the statement with its literals; ``default_latency_s`` that of the
    default plan for the same statement. ``latency_s`` is a lower bound where the outcome is
    TIMED_OUT.
    """

    at: datetime
    key: ClassKey
    statement: str
    hint_set: str
    settings: Mapping[str, str]
    plan_hash: str
    purpose: RunPurpose
    outcome: RunOutcome
    latency_s: float
    default_latency_s: float | None = None
    id: int | None = None


@dataclass(frozen=True)
class ServiceTimingRecord:
    """What a class did in service under one arm (``default`` or ``steered``) for a while.

    Measured at the clients by the plug-in. ``total_s`` and ``buckets`` are of the ``executions``
    that ended well; bucket *i* begins at 2^(i/8) microseconds.
    """

    started_at: datetime
    ended_at: datetime
    key: ClassKey
    hint_set: str
    arm: str
    executions: int
    total_s: float
    cancelled: int = 0
    failed: int = 0
    buckets: Mapping[int, int] = field(default_factory=dict)
    id: int | None = None


@dataclass(frozen=True)
class SteeringStatusRecord:
    """The explorer's present state; the store holds the newest one.

    Args:
        at: when.
        enabled: whether exploration is on; ``hindrance`` says why it is off, or what keeps it
            from going on now.
        activity: what it does now, for people.
        share: of the server's time that it may use, in (0, 1]; ``spent_s`` of ``elapsed_s`` so
            far in this run.
        where: whose time: ``primary``, or ``the server of steering.dsn``.
        role: the role that statements are tried under.
        served: classes that are steered now.
    """

    at: datetime
    enabled: bool = False
    hindrance: str = ""
    activity: str = ""
    share: float = 0.0
    spent_s: float = 0.0
    elapsed_s: float = 0.0
    where: str = "primary"
    role: str = ""
    served: int = 0
