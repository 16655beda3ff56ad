"""Records with every field filled in, each different from its default."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from backend.domain.experiment_plans import (
    ExperimentPlanRecord,
    KnobRange,
    PlanState,
    PromotionRecord,
    PromotionState,
)
from backend.domain.knobs import Knob, KnobSpace
from backend.domain.modes import (
    Arm,
    ChangeState,
    CommandKind,
    Mode,
    Phase,
    SafetyAction,
    TrialKind,
    TrialState,
    Verdict,
)
from backend.domain.plans import RunOutcome
from backend.domain.policies import (
    EvolutionRecord,
    GenomeRecord,
    PolicyUpdateRecord,
    PolicyVersionRecord,
)
from backend.domain.records import (
    ChangeRecord,
    ClientIntervalRecord,
    CommandRecord,
    EventRecord,
    FreezeRecord,
    HoursRecord,
    KnobSpaceRecord,
    KnobStatusRecord,
    KnownWorkloadRecord,
    LearningRecord,
    QueryClassRecord,
    QueryWindowRecord,
    StatusRecord,
    TransitionRecord,
    TrialRecord,
    WindowRecord,
)
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    PlanRunRecord,
    RunPurpose,
    ServedHint,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
    SteeringStatusRecord,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
CONFIG = {"work_mem": 4096, "random_page_cost": 1.1, "jit": False, "wal_compression": "lz4"}


def window(minutes: float = 0.0, **fields: object) -> WindowRecord:
    """A 10-second window that began ``minutes`` after NOW."""
    start = NOW + timedelta(minutes=minutes)
    full = WindowRecord(
        started_at=start,
        ended_at=start + timedelta(seconds=10),
        duration_s=10.0,
        phase=Phase.LEARNING,
        config=CONFIG,
        arm=Arm.CANDIDATE,
        index=0.75,
        coverage=0.93,
        quality=0.5,
        quality_reasons=("the load drifted by 40 %",),
        calls_per_s=120.5,
        mean_ms=8.25,
        rates={"commits": 40.5},
        gauges={"host_cpu_percent": 61.0},
        queries=(
            QueryWindowRecord("10.5.-77.t", 12, 3.5, 24, 100, 5, 1),
            QueryWindowRecord("10.5.9223372036854775807.n", 1, 250.0),
        ),
    )
    return replace(full, **fields)  # type: ignore[arg-type]


INTERVAL = ClientIntervalRecord(
    NOW, NOW + timedelta(seconds=2), "*", 100, 98, 1, 1, 5.5, 3.0, 20.0, 40.0, 5.0
)
TRIAL = TrialRecord(
    kind=TrialKind.PROMOTION,
    state=TrialState.FINISHED,
    proposer="knob agent",
    created_at=NOW,
    before={"work_mem": None, "jit": True},
    after={"work_mem": 65536, "jit": False},
    finished_at=NOW + timedelta(minutes=3),
    verdict=Verdict.ACCEPT,
    reasons=("lower by 25 %", "no class is worse"),
    effect=-0.25,
    ci_low=-0.31,
    ci_high=-0.18,
    confidence=0.9,
    blocks=6,
    max_blocks=12,
    block_log_ratios=(-0.3, -0.25),
    coverage=0.97,
    quality=0.88,
    needs_restart=True,
    class_effects={"10.5.-77.t": {"effect": -0.4, "ci_low": -0.5, "ci_high": -0.3}},
    progress=1.0,
    experiment_plan_id=4,
)
CHANGE = ChangeRecord(
    batch_id="b1",
    epoch=3,
    actor="operator",
    knob="work_mem",
    before_entry=None,
    after_entry="65536",
    before_value=4096,
    after_value=65536,
    state=ChangeState.PENDING,
    created_at=NOW,
    trial_id=7,
    detail="by hand",
    timeline="7301/1",
    place="10.0.0.1:5432",
)
EVENT = EventRecord(NOW, "warning", "conflict", "somebody changed jit", detail={"knobs": ["jit"]})
COMMAND = CommandRecord(
    CommandKind.SET_KNOBS, {"knobs": {"work_mem": 8192, "jit": False}}, "operator", NOW
)
LEARNING = LearningRecord(
    NOW, "knob", 12, 0.3, 0.02, -0.1, 0.15, 640, 0.9, {"latency": 0.4, "memory": -0.1}
)
SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 2097151, "log", "kB", 4096, context="session"),
        Knob("random_page_cost", "real", 0.5, 10, default=4.0),
        Knob("jit", "boolean", default=True),
        Knob("wal_compression", "categorical", choices=("off", "lz4"), default="off"),
        Knob("autovacuum_work_mem", "integer", 1024, 65536, special=(-1,), default=-1),
    ]
)
KNOB_SPACE = KnobSpaceRecord.of(SPACE)
TRANSITION = TransitionRecord(
    at=NOW,
    run="1b4e28ba2fa111d2883f0016d3cca427",
    workload="mixed",
    knob_space=SPACE.fingerprint,
    state_layout="0123456789abcdef",
    state=(1.5, 2.0, -0.25),
    config=CONFIG,
    objective=0.8,
    quality=0.6,
    censored=True,
    reward_terms={"latency": 0.22, "memory": -0.02},
)
KNOB = KnobStatusRecord(
    name="work_mem",
    value=4096,
    default=4096,
    kind="integer",
    unit="kB",
    low=64.0,
    high=2097151.0,
    choices=(),
    special=(-1, "off"),
    context="session",
    risk="medium",
    group="memory",
    description="Memory of a sort or hash before it spills",
    doc_url="https://www.postgresql.org/docs/current/runtime-config-resource.html",
    source="default",
    pending_restart=False,
    tunable=True,
    writable=True,
    note="per operation",
)
QUERY_CLASS = QueryClassRecord("10.5.-77.t", "SELECT * FROM orders WHERE id = $1", NOW)
KNOWN_WORKLOAD = KnownWorkloadRecord(
    number=3,
    seen_at=NOW,
    factor=0.75,
    noise=0.03,
    config=CONFIG,
    classes={
        "10.5.-77.t": {"share": 0.9, "mean_ms": 3.5},
        "10.5.9223372036854775807.n": {"share": 0.1, "mean_ms": 250.0},
    },
)
STATUS = StatusRecord(
    at=NOW,
    mode=Mode.AUTO,
    phase=Phase.LEARNING,
    server="127.0.0.1:5433",
    server_version="17.2",
    paused=True,
    frozen=True,
    safety=SafetyAction.BLOCK,
    safety_reasons=("CPU at 97 %",),
    index=0.8,
    trials=5,
    trials_by_verdict={"accept": 1, "reject": 4},
    activity="measuring",
    progress=0.4,
    policy_version=2,
    epoch=3,
    workload="mixed",
    fast_mode=True,
    started_at=NOW,
    ends_at=NOW + timedelta(minutes=15),
    fault="none so far",
    limits={"cpu_limit_percent": 90},
    left_today={"max_changes_per_day": 3},
    hindrance="outside the hours of trials",
    trial_hours=HoursRecord(("Mon 01:00-02:00",), False, NOW + timedelta(hours=13)),
    restart_hours=HoursRecord((), True),
)
EXPERIMENT_PLAN = ExperimentPlanRecord(
    created_at=NOW,
    author="alice@command-line",
    server_id="7300000000000000001",
    knobs=(
        KnobRange("work_mem", 4096.0, 65536.0, unit="kB"),
        KnobRange("jit", choices=(False, True)),
        KnobRange("wal_compression", choices=("off", "lz4")),
    ),
    trials=40,
    expires_at=NOW + timedelta(days=7),
    hours=("Mon-Fri 01:00-05:00 Europe/Berlin",),
    note="nights only",
    state=PlanState.APPROVED,
    begun=3,
    decided_at=NOW + timedelta(minutes=5),
    decided_by="bob@dashboard",
    reason="none so far",
)
PROMOTION_THAT_WAITS = PromotionRecord(
    trial_id=12,
    version_id=2,
    workload=1,
    created_at=NOW,
    state=PromotionState.DEPLOYED,
    decided_at=NOW + timedelta(hours=8),
    decided_by="bob@dashboard",
    reason="policy version 3",
)
FREEZE = FreezeRecord(True, "alice@command-line", NOW, "the sale begins")
CLASS_KEY = ClassKey("a0b1c2d3e4f50617", '"$user", "Läden", public')
EVIDENCE = HintEvidence(
    hint_set="no_nestloop+work_mem_64mb",
    settings={"enable_nestloop": "off", "work_mem": "64MB"},
    under={"enable_nestloop": "on", "work_mem": "4MB"},
    functions=("lower", "pg_catalog.date_trunc"),
    statements=5,
    pairs=24,
    effect=-0.5,
    ci_low=-0.625,
    ci_high=-0.375,
    confidence=0.975,
    default_ms=812.5,
    steered_ms=406.25,
    default_plan="Nested Loop\n  ->  Seq Scan on orders\n        Filter: (total > $1)",
    steered_plan="Hash Join\n  Hash Cond: (o.customer = c.id)",
    verified_at=NOW + timedelta(hours=1),
    server="7446109329283174023",
    database="shop",
    settings_in_force={"enable_nestloop": "on", "work_mem": "4MB", "random_page_cost": "1.1"},
)
STEERED_CLASS = SteeredClassRecord(
    key=CLASS_KEY,
    text="SELECT * FROM orders o JOIN customers c ON o.customer = c.id WHERE total > $1",
    state=SteeringState.WITHDRAWN,
    updated_at=NOW + timedelta(hours=2),
    mode=SteeringMode.PIN,
    reason="work_mem is 8MB, and was 4MB when it was verified",
    evidence=EVIDENCE,
    default_ms=790.5,
    plans=7,
    probes=31,
    explored_s=42.75,
    query_keys=("10.5.-77.t", "10.5.9223372036854775807.n"),
)
PLAN_RUN = PlanRunRecord(
    at=NOW,
    key=CLASS_KEY,
    statement="d41d8cd98f00b204e9800998ecf8427e",
    hint_set=EVIDENCE.hint_set,
    settings=EVIDENCE.settings,
    plan_hash="0123456789abcdef",
    purpose=RunPurpose.VERIFICATION,
    outcome=RunOutcome.TIMED_OUT,
    latency_s=1.625,
    default_latency_s=0.8125,
)
SERVICE_TIMING = ServiceTimingRecord(
    started_at=NOW,
    ended_at=NOW + timedelta(seconds=30),
    key=CLASS_KEY,
    hint_set=EVIDENCE.hint_set,
    arm="steered",
    executions=12,
    total_s=4.875,
    cancelled=2,
    failed=1,
    buckets={0: 1, 149: 9, 152: 2},
)
STEERING_STATUS = SteeringStatusRecord(
    at=NOW,
    enabled=True,
    hindrance="CPU at 97 %",
    activity="comparing two plans",
    share=0.05,
    spent_s=12.5,
    elapsed_s=360.25,
    where="stand-by",
    role="autopilot_explorer",
    served=3,
)
VERSION = PolicyVersionRecord(
    created_at=NOW,
    author="knob agent",
    config=CONFIG,
    trial_id=7,
    index=0.75,
    note="promoted",
    steering=(
        ServedHint(CLASS_KEY, STEERED_CLASS.text, EVIDENCE, pinned=True),
        ServedHint(replace(CLASS_KEY, search_path="public"), STEERED_CLASS.text, EVIDENCE),
    ),
    weights={"knob policy": "knob-policy-0a1b2c3d.npz", "genome": "genome-4e5f6071.json"},
)
POLICY_UPDATE = PolicyUpdateRecord(
    at=NOW,
    policy="plan",
    deployed=True,
    reason="8.0 % less latency on held-out runs",
    learnt_from=480,
    judged_on=120,
    gain=0.08,
    gain_low=0.03,
    gain_high=0.125,
    coverage=0.75,
    weights="plan-policy-0a1b2c3d.npz",
    replaced="plan-policy-99887766.npz",
    duration_s=4.5,
)
GENOME = GenomeRecord(
    at=NOW,
    study="evening",
    generation=3,
    origin="evolved",
    genes={"actor_lr": 0.0005, "gamma": 0.25},
    fitness={"trials_to_95": 21.5, "regret": 3.25, "harmful": 0.0},
    profile={"calls_per_s": 120.0},
    comparison={"gain": 0.1, "low": 0.02, "high": 0.18},
    deployed=True,
    reason="beats the default",
)
EVOLUTION = EvolutionRecord(
    began_at=NOW,
    at=NOW,
    by_itself=True,
    share=0.4,
    activity="evolving: 12 genomes",
    used_s=432.5,
    starts=3,
    ended_at=NOW,
    reason="Not deployed: there was no time",
    deployed=True,
)
