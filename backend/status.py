"""The tuner's present state and the knobs' present values, as the store holds them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from backend.domain.knobs import Knob
from backend.domain.modes import Phase, SafetyAction
from backend.domain.records import KnobStatusRecord, StatusRecord
from backend.domain.safety import SafetyVerdict
from backend.domain.server import KnobReading

if TYPE_CHECKING:
    from backend.components import Components
    from backend.tuning_loop import TuningLoop


def status_record(
    now: datetime,
    parts: Components,
    loop: TuningLoop,
    safety: SafetyVerdict,
    *,
    workload: str,
    fast_mode: bool,
    started_at: datetime,
    ends_at: datetime | None,
    fault: str,
) -> StatusRecord:
    """What the page's head shows."""
    index = parts.recorder.present_index
    if index is None and loop.chain is not None:
        index = loop.chain.factor
    version = parts.deployment.version
    return StatusRecord(
        at=now,
        mode=parts.deployment.mode,
        phase=loop.phase,
        server=parts.info.address,
        server_version=parts.info.version_text,
        paused=loop.paused,
        frozen=parts.deployment.frozen,
        safety=safety.action if parts.safety_enabled else SafetyAction.ALLOW,
        safety_reasons=safety.reasons,
        index=index,
        trials=sum(loop.verdicts.values()),
        trials_by_verdict=dict(Counter(loop.verdicts)),
        activity=activity(loop),
        progress=progress(loop),
        policy_version=version.id if version else None,
        epoch=parts.lease.epoch,
        workload=workload,
        fast_mode=fast_mode,
        started_at=started_at,
        ends_at=ends_at,
        fault=fault,
        limits=parts.limits,
        left_today=loop.permission.limits.left,
        hindrance=loop.hindrance,
        trial_hours=loop.permission.trial_hours,
        restart_hours=loop.permission.restart_hours,
        genome=parts.genome.record_id,
        measures_alone=measures_alone(loop),
    )


def measures_alone(loop: TuningLoop) -> bool:
    """Whether a baseline or the final comparison is measured."""
    return loop.phase in (Phase.BASELINE, Phase.FINAL_COMPARISON) or loop.workloads.away


def activity(loop: TuningLoop) -> str:
    """What is going on, for people."""
    if loop.trial is not None:
        return f"{loop.trial.plan.kind.value} trial {loop.trial.record_id}"
    if loop.phase is Phase.BASELINE:
        return "measuring the baseline"
    if loop.workloads.away:
        return "measuring the baseline of another workload"
    return f"observing: {loop.hindrance}" if loop.hindrance else "observing"


def progress(loop: TuningLoop) -> float | None:
    """Progress of the activity in [0, 1], None where there is no end to it."""
    if loop.trial is not None:
        return loop.trial.progress
    if loop.phase is Phase.STARTING:
        return None
    return loop.workloads.progress


def knob_statuses(parts: Components) -> list[KnobStatusRecord]:
    """Every catalogued knob that this server has, as it stands now."""
    deployment, statuses = parts.deployment, []
    for entry in parts.catalog:
        reading = deployment.readings.get(entry.name)
        if reading is None:
            continue
        knob = entry.knob
        hindrance = why_not_writable(parts, knob, reading)
        statuses.append(
            KnobStatusRecord(
                name=knob.name,
                value=reading.value,
                default=knob.default,
                kind=knob.kind,
                unit=knob.unit,
                low=knob.low,
                high=knob.high,
                choices=tuple(knob.choices),
                special=tuple(knob.special),
                context=knob.context,
                risk=knob.risk,
                group=entry.group,
                description=knob.description,
                doc_url=knob.doc_url,
                source=reading.source,
                pending_restart=reading.pending_restart,
                tunable=knob.name in parts.space,
                writable=not hindrance,
                note=hindrance,
            )
        )
    return statuses


def why_not_writable(parts: Components, knob: Knob, reading: KnobReading) -> str:
    """Why a knob cannot be changed from here, for people; "" where it can."""
    if not parts.info.can("alter_system"):
        return parts.info.missing.get("alter_system", "") or "ALTER SYSTEM is not possible here"
    if not reading.may_alter:
        return "our role may not set it; run.py grants prints the SQL"
    if reading.override:
        return f"set by {reading.override}, which wins"
    if knob.context == "restart" and not parts.deployment.allow_restart:
        return "needs a restart, which is not allowed here"
    return ""
