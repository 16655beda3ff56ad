"""An in-memory reader and command queue with a synthetic, realistic run, for the page tests."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from backend.domain.knobs import KnobValue
from backend.domain.modes import (
    Arm,
    ChangeState,
    CommandKind,
    CommandState,
    Mode,
    Phase,
    TrialKind,
    TrialState,
    Verdict,
)
from backend.domain.records import (
    ChangeRecord,
    ClientIntervalRecord,
    CommandRecord,
    EventRecord,
    KnobStatusRecord,
    LearningRecord,
    PolicyVersionRecord,
    QueryClassRecord,
    QueryWindowRecord,
    StatusRecord,
    TrialRecord,
    WindowRecord,
)
from backend.domain.steering import (
    PlanRunRecord,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringStatusRecord,
)
from backend.errors import StoreError
from tests.dashboard import fake_steering
from tests.dashboard.fake_steering import HOSTILE

MANUAL = "https://www.postgresql.org/docs/current/"

QUERIES: tuple[tuple[str, str, float, float], ...] = (
    ("SELECT p.id, p.name, p.price_cents FROM products p WHERE p.id = $1", "simple", 0.8, 44.0),
    (
        "SELECT o.id, o.total_cents, c.email FROM orders o JOIN customers c ON c.id = "
        "o.customer_id WHERE o.created_at >= $1 ORDER BY o.created_at DESC LIMIT $2",
        "two-table join",
        6.5,
        18.0,
    ),
    (
        "SELECT b.name, count(*), sum(oi.quantity * oi.price_cents) FROM order_items oi "
        "JOIN products p ON p.id = oi.product_id JOIN brands b ON b.id = p.brand_id JOIN orders o "
        "ON o.id = oi.order_id WHERE o.created_at BETWEEN $1 AND $2 GROUP BY b.name "
        "ORDER BY 3 DESC LIMIT $3",
        "multi-join",
        128.0,
        2.2,
    ),
    (
        "SELECT date_trunc($1, created_at) AS day, count(*), avg(total_cents) FROM orders "
        "GROUP BY 1 ORDER BY 1",
        "aggregation",
        210.0,
        1.1,
    ),
    (
        "SELECT customer_id, total_cents, rank() OVER (PARTITION BY region ORDER BY total_cents "
        "DESC) FROM orders JOIN customers ON customers.id = customer_id WHERE region = $1",
        "analytical",
        284.0,
        0.6,
    ),
    ("INSERT INTO events (customer_id, kind, payload) VALUES ($1, $2, $3)", "writes", 1.1, 25.0),
    (f"SELECT $1 AS note /* {HOSTILE} */", "simple", 0.4, 1.0),
)


def knob_status(
    name: str,
    kind: str,
    default: KnobValue,
    *,
    value: KnobValue | None = None,
    unit: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    special: tuple[KnobValue, ...] = (),
    context: str = "reload",
    risk: str = "low",
    group: str = "Planner",
    description: str = "",
    writable: bool = True,
    note: str = "",
) -> KnobStatusRecord:
    """A knob status with everything else as a server would tell it."""
    return KnobStatusRecord(
        name=name,
        value=default if value is None else value,
        default=default,
        kind=kind,
        unit=unit,
        low=low,
        high=high,
        choices=choices,
        special=special,
        context=context,
        risk=risk,
        group=group,
        description=description,
        doc_url=MANUAL + "runtime-config.html",
        source="default" if value is None else "configuration file",
        pending_restart=False,
        tunable=writable,
        writable=writable,
        note=note,
    )


def knob_statuses() -> list[KnobStatusRecord]:
    """Some twenty knobs of every kind, unit and context."""
    integer, real, boolean, categorical = "integer", "real", "boolean", "categorical"
    memory, wal, io = "Memory", "WAL and checkpoints", "I/O"
    return [
        knob_status(
            "shared_buffers",
            integer,
            16384,
            unit="8kB",
            low=2048,
            high=524288,
            context="restart",
            risk="medium",
            group=memory,
            description="Memory for the server's own page cache.",
        ),
        knob_status(
            "work_mem",
            integer,
            4096,
            value=32768,
            unit="kB",
            low=64,
            high=524288,
            group=memory,
            risk="medium",
            description="Memory of one sort or hash before it spills to disk.",
        ),
        knob_status(
            "maintenance_work_mem",
            integer,
            65536,
            unit="kB",
            low=1024,
            high=1048576,
            group=memory,
            description="Memory of VACUUM and CREATE INDEX.",
        ),
        knob_status(
            "hash_mem_multiplier",
            real,
            2.0,
            low=1.0,
            high=8.0,
            group=memory,
            description="How many work_mem a hash table may take.",
        ),
        knob_status(
            "effective_cache_size",
            integer,
            524288,
            value=786432,
            unit="8kB",
            low=16384,
            high=2097152,
            description="What the planner believes the caches hold.",
        ),
        knob_status(
            "random_page_cost",
            real,
            4.0,
            value=1.1,
            low=0.5,
            high=10.0,
            description="Price of a random page against a sequential one.",
        ),
        knob_status(
            "seq_page_cost", real, 1.0, low=0.1, high=4.0, description="Price of a sequential page."
        ),
        knob_status(
            "cpu_tuple_cost", real, 0.01, low=0.001, high=0.1, description="Price of one row."
        ),
        knob_status(
            "effective_io_concurrency",
            integer,
            1,
            value=64,
            low=0,
            high=512,
            group=io,
            description="How many reads ahead a bitmap scan starts.",
        ),
        knob_status(
            "default_statistics_target",
            integer,
            100,
            low=10,
            high=1000,
            description="Detail of the statistics that ANALYZE gathers.",
        ),
        knob_status(
            "jit",
            boolean,
            True,
            value=False,
            context="session",
            description="Compile expensive queries before they run.",
        ),
        knob_status(
            "enable_nestloop",
            boolean,
            True,
            context="session",
            risk="high",
            description="Whether the planner may use nested loops.",
        ),
        knob_status(
            "plan_cache_mode",
            categorical,
            "auto",
            choices=("auto", "force_custom_plan", "force_generic_plan"),
            context="session",
            description="Whether prepared statements use generic plans.",
        ),
        knob_status(
            "wal_compression",
            categorical,
            "off",
            choices=("off", "pglz", "lz4", "zstd"),
            group=wal,
            description="Compress full page images in the WAL.",
        ),
        knob_status(
            "wal_buffers",
            integer,
            -1,
            value=512,
            unit="8kB",
            low=8,
            high=32768,
            special=(-1,),
            context="restart",
            group=wal,
            description="Memory for WAL not yet written; -1 follows shared_buffers.",
        ),
        knob_status(
            "max_wal_size",
            integer,
            1024,
            value=4096,
            unit="MB",
            low=256,
            high=65536,
            group=wal,
            risk="medium",
            description="WAL between two checkpoints.",
        ),
        knob_status(
            "checkpoint_timeout",
            integer,
            300,
            unit="s",
            low=30,
            high=3600,
            group=wal,
            description="Longest time between two checkpoints.",
        ),
        knob_status(
            "checkpoint_completion_target",
            real,
            0.9,
            low=0.1,
            high=0.95,
            group=wal,
            description="Share of the interval that a checkpoint spreads its writes over.",
        ),
        knob_status(
            "bgwriter_delay",
            integer,
            200,
            unit="ms",
            low=10,
            high=10000,
            group=io,
            description="Pause between two rounds of the background writer.",
        ),
        knob_status(
            "max_parallel_workers_per_gather",
            integer,
            2,
            low=0,
            high=8,
            context="session",
            group="Parallelism",
            description="Workers that one query may start.",
        ),
        knob_status(
            "huge_pages",
            categorical,
            "try",
            choices=("off", "on", "try"),
            context="restart",
            risk="high",
            group=memory,
            writable=False,
            note="the host offers no huge pages",
            description="Large memory pages for shared buffers.",
        ),
    ]


class FakeStore:
    """Reader and queue at once. ``commands`` take effect when ``work`` is called.

    Args:
        empty: nothing was written yet (the tuner has not started).
    """

    def __init__(self, *, empty: bool = False, now: datetime | None = None, seed: int = 7) -> None:
        self.now = now or datetime.now(timezone.utc)
        self.failure: str | None = None
        self.reads = 0
        self._status: StatusRecord | None = None
        self._windows: list[WindowRecord] = []
        self._classes: dict[str, QueryClassRecord] = {}
        self._intervals: list[ClientIntervalRecord] = []
        self._trials: list[TrialRecord] = []
        self._changes: list[ChangeRecord] = []
        self._versions: list[PolicyVersionRecord] = []
        self._events: list[EventRecord] = []
        self._learning: list[LearningRecord] = []
        self._knobs: list[KnobStatusRecord] = []
        self._commands: list[CommandRecord] = []
        self._steered: list[SteeredClassRecord] = []
        self._timings: list[ServiceTimingRecord] = []
        self._plan_runs: list[PlanRunRecord] = []
        self._steering_status: SteeringStatusRecord | None = None
        if not empty:
            _Run(self, random.Random(seed)).write()

    def _read(self) -> None:
        self.reads += 1
        if self.failure is not None:
            raise StoreError(self.failure, remedy="see whether the disk is full")

    # -- TelemetryReader --------------------------------------------------------------------

    def status(self) -> StatusRecord | None:
        self._read()
        return self._status

    def windows(
        self, *, since: datetime | None = None, limit: int = 500, trial_id: int | None = None
    ) -> Sequence[WindowRecord]:
        return [
            replace(w, queries=())
            for w in self.query_windows(since=since, limit=10**6)
            if trial_id is None or w.trial_id == trial_id
        ][-limit:]

    def query_windows(
        self, *, since: datetime | None = None, limit: int = 500
    ) -> Sequence[WindowRecord]:
        self._read()
        return [w for w in self._windows if since is None or w.started_at >= since][-limit:]

    def query_classes(self) -> Mapping[str, QueryClassRecord]:
        self._read()
        return dict(self._classes)

    def client_intervals(
        self, *, since: datetime | None = None, class_name: str | None = "*", limit: int = 2000
    ) -> Sequence[ClientIntervalRecord]:
        self._read()
        return [
            i
            for i in self._intervals
            if (since is None or i.started_at >= since) and class_name in (None, i.class_name)
        ][-limit:]

    def trials(self, *, limit: int = 200) -> Sequence[TrialRecord]:
        self._read()
        return self._trials[-limit:]

    def trial(self, trial_id: int) -> TrialRecord | None:
        self._read()
        return next((t for t in self._trials if t.id == trial_id), None)

    def changes(self, *, limit: int = 500) -> Sequence[ChangeRecord]:
        self._read()
        return self._changes[-limit:]

    def policy_versions(self, *, limit: int = 200) -> Sequence[PolicyVersionRecord]:
        self._read()
        return self._versions[-limit:]

    def events(self, *, level: str | None = None, limit: int = 200) -> Sequence[EventRecord]:
        self._read()
        return [e for e in self._events if level in (None, e.level)][-limit:]

    def learning(self, *, agent: str = "knob", limit: int = 1000) -> Sequence[LearningRecord]:
        self._read()
        return [r for r in self._learning if r.agent == agent][-limit:]

    def knob_statuses(self) -> Sequence[KnobStatusRecord]:
        self._read()
        return list(self._knobs)

    def commands(self, *, limit: int = 100) -> Sequence[CommandRecord]:
        self._read()
        return self._commands[-limit:]

    def steered_classes(self) -> Sequence[SteeredClassRecord]:
        self._read()
        return sorted(self._steered, key=lambda record: record.key)

    def plan_runs(
        self, *, fingerprint: str | None = None, limit: int = 10_000
    ) -> Sequence[PlanRunRecord]:
        self._read()
        return [r for r in self._plan_runs if fingerprint in (None, r.key.fingerprint)][-limit:]

    def service_timings(
        self, *, since: datetime | None = None, limit: int = 10_000
    ) -> Sequence[ServiceTimingRecord]:
        self._read()
        return [t for t in self._timings if since is None or t.started_at >= since][-limit:]

    def steering_status(self) -> SteeringStatusRecord | None:
        self._read()
        return self._steering_status

    # -- CommandQueue -----------------------------------------------------------------------

    def submit(self, command: CommandRecord) -> int:
        if self.failure is not None:
            raise StoreError(self.failure)
        number = len(self._commands) + 1
        self._commands.append(replace(command, id=number))
        return number

    def command(self, command_id: int) -> CommandRecord | None:
        return next((c for c in self._commands if c.id == command_id), None)

    def take(self) -> CommandRecord | None:
        for i, command in enumerate(self._commands):
            if command.state is CommandState.QUEUED:
                self._commands[i] = replace(command, state=CommandState.RUNNING)
                return self._commands[i]
        return None

    def finish(self, command_id: int, state: CommandState, result: str) -> None:
        self._commands[command_id - 1] = replace(
            self._commands[command_id - 1],
            state=state,
            result=result,
            finished_at=datetime.now(timezone.utc),
        )

    # -- what a tuner would do --------------------------------------------------------------

    def beat(self, **fields: Any) -> None:
        """The tuner's heartbeat: a fresh status."""
        if self._status is not None:
            self._status = replace(self._status, at=datetime.now(timezone.utc), **fields)

    def work(self) -> None:
        """Carry out every queued command as the tuner would."""
        while (command := self.take()) is not None:
            assert command.id is not None
            state, result = self._carry_out(command)
            self.finish(command.id, state, result)

    def _carry_out(self, command: CommandRecord) -> tuple[CommandState, str]:
        payload = command.payload
        if command.kind is CommandKind.SET_KNOBS:
            knobs = dict(payload["knobs"])
            if knobs.get("work_mem") == 524288:
                return CommandState.REFUSED, (
                    "work_mem = 512 MB times 100 sessions passes the memory budget of 3.2 GB"
                )
            self._change(knobs, command.actor, f"human-{command.id}")
            return CommandState.DONE, f"applied and read back: {', '.join(knobs)}"
        if command.kind is CommandKind.ROLL_BACK:
            batch = payload.get("batch_id") or self._changes[-1].batch_id
            undone = [c for c in self._changes if c.batch_id == batch]
            before = {c.knob: c.before_value for c in undone if c.before_value is not None}
            self._change(before, command.actor, f"undo-{command.id}")
            self._changes = [
                replace(c, state=ChangeState.ROLLED_BACK) if c.batch_id == batch else c
                for c in self._changes
            ]
            return CommandState.DONE, f"rolled back {len(undone)} changes"
        if command.kind is CommandKind.STEER:
            return self._steer(payload)
        fields: dict[CommandKind, dict[str, Any]] = {
            CommandKind.PAUSE: {"paused": True},
            CommandKind.RESUME: {"paused": False},
            CommandKind.FREEZE: {"frozen": True},
            CommandKind.UNFREEZE: {"frozen": False},
        }
        if command.kind is CommandKind.SET_MODE:
            fields[command.kind] = {"mode": Mode(payload["mode"])}
        self.beat(**fields.get(command.kind, {}))
        return CommandState.DONE, "done"

    def _steer(self, payload: Mapping[str, Any]) -> tuple[CommandState, str]:
        wanted = SteeringMode(payload["mode"])
        for i, record in enumerate(self._steered):
            if record.key.fingerprint == payload["fingerprint"]:
                if wanted is SteeringMode.PIN and record.evidence is None:
                    return CommandState.REFUSED, "no hint set was proven faster yet"
                self._steered[i] = replace(record, mode=wanted)
                return CommandState.DONE, f"{record.key.fingerprint} is on {wanted.value}"
        return CommandState.REFUSED, f"no query class {payload['fingerprint']}"

    def _set(self, name: str, value: KnobValue | None) -> None:
        self._knobs = [
            replace(k, value=value, source="configuration file") if k.name == name else k
            for k in self._knobs
        ]

    def _change(self, knobs: Mapping[str, KnobValue], actor: str, batch: str) -> None:
        now = datetime.now(timezone.utc)
        before = {k.name: k.value for k in self._knobs}
        for name, value in knobs.items():
            self._changes.append(
                ChangeRecord(
                    id=len(self._changes) + 1,
                    batch_id=batch,
                    epoch=3,
                    actor=actor,
                    knob=name,
                    before_entry=None,
                    after_entry=str(value),
                    before_value=before[name],
                    after_value=value,
                    state=ChangeState.APPLIED,
                    created_at=now,
                    settled_at=now,
                )
            )
            self._set(name, value)


WINDOW_S = 12.0


class _Run:
    """Writes a run of about an hour: baseline, learning with four promotions, optimised."""

    PROMOTIONS: tuple[tuple[float, dict[str, tuple[KnobValue, KnobValue]], float], ...] = (
        (0.30, {"work_mem": (4096, 32768)}, -0.118),
        (0.45, {"random_page_cost": (4.0, 1.1), "effective_io_concurrency": (1, 64)}, -0.094),
        (0.58, {"jit": (True, False)}, -0.063),
        (0.72, {"max_wal_size": (1024, 4096)}, -0.031),
    )

    def __init__(self, store: FakeStore, rng: random.Random) -> None:
        self.store, self.rng = store, rng
        self.started_at = store.now - timedelta(minutes=62)
        self.count = int(62 * 60 / WINDOW_S)

    def write(self) -> None:
        """Fill the store."""
        store = self.store
        store._knobs = knob_statuses()
        for i, (text, *_rest) in enumerate(QUERIES):
            key = f"10.16384.{90071992547409 + i * 7919}.t"
            store._classes[key] = QueryClassRecord(key, text, self.started_at)
        self._trials()
        self._telemetry()
        self._learning()
        self._events()
        self._steering()
        store._status = StatusRecord(
            at=store.now,
            mode=Mode.AUTO,
            phase=self._phase(0.99),
            server="127.0.0.1:54321/shop",
            server_version="PostgreSQL 17.10",
            index=self._level(1.0),
            trials=len(store._trials),
            trials_by_verdict={
                v.value: sum(t.verdict is v for t in store._trials) for v in Verdict
            },
            activity="measuring block 3 of 6 of trial 17 (promotion)",
            progress=0.46,
            policy_version=len(store._versions),
            epoch=3,
            workload="mixed",
            fast_mode=True,
            started_at=self.started_at,
            ends_at=store.now + timedelta(minutes=9),
            safety_reasons=(),
            limits={
                "enabled": True,
                "query_timeout": 30.0,
                "memory_limit_gb": 2.0,
                "memory_limit_percent": 92.0,
                "cpu_limit_percent": 98.0,
                "connections_limit_percent": 90.0,
                "max_error_rate": 0.02,
                "rollback_threshold": 0.15,
                "max_consecutive_failures": 3,
                "max_changes_per_day": 50,
                "sandbox_enabled": False,
            },
        )

    def _at(self, share: float) -> datetime:
        return self.started_at + timedelta(seconds=share * self.count * WINDOW_S)

    def _phase(self, share: float) -> Phase:
        if share < 0.02:
            return Phase.STARTING
        if share < 0.16:
            return Phase.BASELINE
        return Phase.LEARNING if share < 0.8 else Phase.OPTIMISED

    def _level(self, share: float) -> float:
        level = 1.0
        for at, _delta, effect in self.PROMOTIONS:
            if share >= at:
                level *= 1.0 + effect
        return level

    def _trials(self) -> None:
        store = self.store
        store._versions.append(
            PolicyVersionRecord(
                created_at=self._at(0.02),
                author="tuner",
                config={},
                id=1,
                note="the server as found",
                active=False,
            )
        )
        config: dict[str, KnobValue] = {}
        number = 0
        for p, (at, delta, effect) in enumerate(self.PROMOTIONS):
            for probe in range(3):
                number += 1
                bad = probe == 1
                self._trial(
                    number,
                    at - 0.09 + probe * 0.02,
                    TrialKind.PROBE,
                    delta,
                    Verdict.REJECT if bad else Verdict.ACCEPT,
                    effect=abs(effect) * 0.7 if bad else effect * 1.1,
                    width=0.16,
                )
            number += 1
            self._trial(
                number,
                at - 0.025,
                TrialKind.PROMOTION,
                delta,
                Verdict.ACCEPT,
                effect=effect,
                width=0.05,
            )
            config.update({k: after for k, (_b, after) in delta.items()})
            store._versions.append(
                PolicyVersionRecord(
                    created_at=self._at(at),
                    author="knob agent",
                    config=dict(config),
                    id=p + 2,
                    parent_id=p + 1,
                    trial_id=number,
                    index=self._level(at),
                    note="promoted",
                    active=p == len(self.PROMOTIONS) - 1,
                )
            )
            for name, (before, after) in delta.items():
                store._changes.append(
                    ChangeRecord(
                        id=len(store._changes) + 1,
                        batch_id=f"trial-{number}",
                        epoch=3,
                        actor="knob agent",
                        knob=name,
                        before_entry=None,
                        after_entry=str(after),
                        before_value=before,
                        after_value=after,
                        state=ChangeState.KEPT,
                        created_at=self._at(at - 0.025),
                        trial_id=number,
                        settled_at=self._at(at),
                        detail="read back after reload",
                    )
                )
        self._trial(
            number + 1,
            0.985,
            TrialKind.PROMOTION,
            {"hash_mem_multiplier": (2.0, 4.0)},
            None,
            effect=-0.04,
            width=0.2,
        )
        store._trials.append(
            replace(
                store._trials[-1],
                id=number + 2,
                state=TrialState.APPLYING,
                effect=None,
                ci_low=None,
                ci_high=None,
                block_log_ratios=(),
                blocks=0,
                class_effects={},
                quality=None,
                before={"checkpoint_timeout": 300},
                after={"checkpoint_timeout": 900},
                reasons=("waiting for approval",),
                created_at=self._at(0.995),
                progress=0.0,
            )
        )

    def _trial(
        self,
        number: int,
        at: float,
        kind: TrialKind,
        delta: Mapping[str, tuple[KnobValue, KnobValue]],
        verdict: Verdict | None,
        *,
        effect: float,
        width: float,
    ) -> None:
        blocks = 1 if kind is TrialKind.PROBE else 6
        done = blocks if verdict else 3
        reasons = (
            {
                Verdict.ACCEPT: ("interval clear of 0", "no class slower by more than 10 %"),
                Verdict.REJECT: ("interval reaches above 0",),
            }.get(verdict, ())
            if verdict
            else ()
        )
        keys = list(self.store._classes)
        self.store._trials.append(
            TrialRecord(
                kind=kind,
                state=TrialState.FINISHED if verdict else TrialState.MEASURING,
                proposer="expert rules" if number < 5 else "knob agent",
                created_at=self._at(at),
                before={k: v[0] for k, v in delta.items()},
                after={k: v[1] for k, v in delta.items()},
                id=number,
                finished_at=self._at(at + 0.02) if verdict else None,
                verdict=verdict,
                reasons=reasons,
                effect=effect,
                ci_low=effect - width / 2,
                ci_high=effect + width / 2,
                blocks=done,
                max_blocks=blocks,
                block_log_ratios=tuple(
                    math.log(1 + effect + self.rng.gauss(0, width / 6)) for _ in range(done)
                ),
                coverage=0.94,
                quality=0.86 + self.rng.random() * 0.1,
                class_effects={
                    key: {
                        "effect": effect * f,
                        "ci_low": effect * f - 0.04,
                        "ci_high": effect * f + 0.04,
                        "incumbent_ms": QUERIES[i][2],
                        "candidate_ms": QUERIES[i][2] * (1 + effect * f),
                    }
                    for i, (key, f) in enumerate(
                        zip(keys, (0.1, 0.5, 1.4, 1.6, 1.2, -0.2), strict=False)
                    )
                },
                progress=1.0 if verdict else 0.46,
            )
        )

    def _telemetry(self) -> None:
        rng, store = self.rng, self.store
        keys = list(store._classes)
        for i in range(self.count):
            share = i / self.count
            started = self._at(share)
            ended = started + timedelta(seconds=WINDOW_S)
            phase, level = self._phase(share), self._level(share)
            swing = 1.0 + 0.25 * math.sin(share * 14.0)
            trial = next(
                (
                    t
                    for t in store._trials
                    if t.created_at <= started
                    and started < (t.finished_at or store.now)
                    and t.state is not TrialState.APPLYING
                ),
                None,
            )
            arm = None if trial is None else (Arm.CANDIDATE, Arm.INCUMBENT)[i % 2]
            if arm is Arm.CANDIDATE and trial is not None and trial.effect is not None:
                level *= 1 + trial.effect
            spoilt = rng.random() < 0.05
            noise = rng.gauss(1.0, 0.12 if spoilt else 0.018)
            queries = tuple(
                QueryWindowRecord(
                    key,
                    calls=max(1, int(QUERIES[q][3] * swing * WINDOW_S)),
                    mean_ms=QUERIES[q][2] * level * rng.gauss(1.0, 0.05),
                    rows=100,
                    shared_blocks_hit=9000,
                    shared_blocks_read=int(900 * level),
                    temp_blocks_written=int(400 * max(0.0, level - 0.8)) if q in (2, 3) else 0,
                )
                for q, key in enumerate(keys)
            )
            calls = sum(q.calls for q in queries)
            mean = sum(q.calls * q.mean_ms for q in queries) / calls
            store._windows.append(
                WindowRecord(
                    started_at=started,
                    ended_at=ended,
                    duration_s=WINDOW_S,
                    phase=phase,
                    config={},
                    id=i + 1,
                    arm=arm,
                    trial_id=trial.id if trial else None,
                    index=None if phase is Phase.STARTING else level * noise,
                    coverage=0.95,
                    quality=0.35 if spoilt else min(1.0, 0.9 + rng.random() * 0.1),
                    quality_reasons=("unsteady load",) if spoilt else (),
                    calls_per_s=calls / WINDOW_S,
                    mean_ms=mean,
                    rates={
                        "blocks_hit": 52000.0 * swing,
                        "blocks_read": 2600.0 * level,
                        "host_read_bytes": 21e6 * level * swing,
                        "host_write_bytes": 8e6 * swing,
                        "wal_bytes": 2.1e6 * swing,
                        "temp_bytes": 3.4e6 * max(0.0, level - 0.85) * 8,
                        "xact_commit": calls / WINDOW_S,
                    },
                    gauges={
                        "host_cpu_percent": min(99.0, 58 * level * swing + rng.gauss(0, 3)),
                        "host_memory_percent": 61 + 3 * share,
                        "connections_active": 5 * level * swing,
                        "connections_used_ratio": 0.23,
                        "rollback_ratio": 0.001,
                        "cache_hit_ratio": 52.0 * swing / (52.0 * swing + 2.6 * level),
                    },
                    queries=queries,
                )
            )
            for step in range(2):
                self._intervals(started + timedelta(seconds=step * 6), level, swing)

    def _intervals(self, started: datetime, level: float, swing: float) -> None:
        mean = 17.0 * level * swing * self.rng.gauss(1.0, 0.05)
        names = ["*", *dict.fromkeys(q[1] for q in QUERIES)]
        for name in names:
            factor = 1.0 if name == "*" else 0.05 + 3 * names.index(name) / len(names)
            offered = int(92 * 6 * swing / (1 if name == "*" else len(names) - 1))
            self.store._intervals.append(
                ClientIntervalRecord(
                    started_at=started,
                    ended_at=started + timedelta(seconds=6),
                    class_name=name,
                    offered=offered,
                    completed=offered - (self.rng.random() < 0.1),
                    errors=0,
                    timeouts=0,
                    mean_ms=mean * factor,
                    p50_ms=mean * factor * 0.5,
                    p95_ms=mean * factor * 3.2,
                    p99_ms=mean * factor * 6.1,
                    service_mean_ms=mean * factor * 0.9,
                )
            )

    def _learning(self) -> None:
        rng = self.rng
        for step in range(140):
            share = 0.16 + 0.84 * step / 140
            effect = rng.gauss(0.05 * math.log1p(step) / 3, 0.08)
            self.store._learning.append(
                LearningRecord(
                    at=self._at(share),
                    agent="knob",
                    step=step,
                    reward=effect - 0.03,
                    critic_loss=None
                    if step < 8
                    else 0.9 * math.exp(-step / 45) + rng.random() * 0.06,
                    actor_loss=None if step < 8 else -0.2 - 0.4 * (1 - math.exp(-step / 60)),
                    noise=0.3 * math.exp(-step / 80),
                    replay_size=step + 1,
                    quality=min(1.0, max(0.2, rng.gauss(0.9, 0.12))),
                    reward_terms={"latency": effect, "cpu": -0.02, "errors": -0.01},
                )
            )

    def _steering(self) -> None:
        store = self.store
        texts = [text for text, *_rest in QUERIES]
        store._steered = fake_steering.steered_classes(store.now, list(store._classes), texts)
        store._timings = fake_steering.service_timings(store.now, store._steered, self.rng)
        store._plan_runs = fake_steering.plan_runs(store.now)
        store._learning += fake_steering.plan_learning(store.now)
        store._steering_status = fake_steering.steering_status(store.now)

    def _events(self) -> None:
        add = self.store._events.append
        rows = (
            (0.001, "info", "start", "tuner started, epoch 3"),
            (0.02, "info", "baseline", "reference fixed over 7 query classes"),
            (0.3, "info", "promotion", "version 2 deployed: work_mem 4 MB to 32 MB"),
            (0.41, "warning", "quality", "3 windows left out: the offered load swung by 48 %"),
            (0.62, "warning", "safety", "CPU at 96.1 % passed the limit of 95 %: no new trial"),
            (0.64, "info", "hint_set_served", "no_nestloop is served for 5f1a9c0d7e34b218"),
            (0.66, "warning", "hint_set_withdrawn", f"no_parallel no longer pays: {HOSTILE}"),
            (0.7, "error", "job", f"collector: could not read pg_stat_io: {HOSTILE}"),
            (0.9, "info", "probation", "version 5 passed its probation"),
        )
        for number, (at, level, kind, message) in enumerate(rows, 1):
            add(EventRecord(at=self._at(at), level=level, kind=kind, message=message, id=number))
