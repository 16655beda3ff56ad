"""The in-memory reader and command queue, and what a tuner makes of the commands."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from backend.domain.experiment_plans import ExperimentPlanRecord, PromotionRecord
from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState, CommandKind, CommandState, Mode
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
    KnobStatusRecord,
    LearningRecord,
    QueryClassRecord,
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
from tests.dashboard.fake_store.run import write_run


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
        self._updates: list[PolicyUpdateRecord] = []
        self._genomes: list[GenomeRecord] = []
        self._evolution: EvolutionRecord | None = None
        self._steered: list[SteeredClassRecord] = []
        self._timings: list[ServiceTimingRecord] = []
        self._plan_runs: list[PlanRunRecord] = []
        self._steering_status: SteeringStatusRecord | None = None
        self._plans: list[ExperimentPlanRecord] = []
        self._promotions: list[PromotionRecord] = []
        self._freeze: FreezeRecord | None = None
        if not empty:
            write_run(self, random.Random(seed))

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

    def policy_updates(self, *, limit: int = 200) -> Sequence[PolicyUpdateRecord]:
        self._read()
        return self._updates[-limit:]

    def genomes(
        self, *, study: str | None = None, deployed: bool = False, limit: int = 1000
    ) -> Sequence[GenomeRecord]:
        self._read()
        found = [g for g in self._genomes if study in (None, g.study) and g.deployed >= deployed]
        return found[-limit:]

    def evolution(self) -> EvolutionRecord | None:
        self._read()
        return self._evolution

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

    def experiment_plans(self, *, limit: int = 50) -> Sequence[ExperimentPlanRecord]:
        self._read()
        return self._plans[-limit:]

    def promotions(self, *, limit: int = 50) -> Sequence[PromotionRecord]:
        self._read()
        return self._promotions[-limit:]

    def freeze(self) -> FreezeRecord | None:
        self._read()
        return self._freeze

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
        if command.kind is CommandKind.ROLL_BACK and "version_id" in payload:
            return self._return_to(payload["version_id"], command.actor)
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
        if command.kind in (CommandKind.FREEZE, CommandKind.UNFREEZE):
            frozen, now = command.kind is CommandKind.FREEZE, datetime.now(timezone.utc)
            self._freeze = FreezeRecord(frozen, command.actor, now, payload.get("reason", ""))
        if command.kind is CommandKind.SET_MODE:
            fields[command.kind] = {"mode": Mode(payload["mode"])}
        self.beat(**fields.get(command.kind, {}))
        return CommandState.DONE, "done"

    def _return_to(self, version_id: int, actor: str) -> tuple[CommandState, str]:
        wanted = next((v for v in self._versions if v.id == version_id), None)
        if wanted is None:
            return CommandState.REFUSED, f"there is no policy version {version_id}"
        present = self._versions[-1]
        assert present.id is not None
        version = replace(
            wanted,
            id=present.id + 1,
            parent_id=present.id,
            trial_id=None,
            created_at=datetime.now(timezone.utc),
            author=actor,
            note=f"rolled back by {actor}",
            active=True,
        )
        self._versions = [*(replace(v, active=False) for v in self._versions), version]
        return CommandState.DONE, f"rolled back; now policy version {version.id}"

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
