"""An experiment plan of the tuner's own: what it would try, as ranges of knobs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from backend.domain.experiment_plans import ExperimentPlanRecord, KnobRange
from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.domain.server import HostFacts
from backend.expert_rules import expert_proposals
from backend.policy_versions import AUTOPILOT

TRIALS = 60
LASTS = timedelta(days=7)
REACH = 4.0
"""A knob on a logarithmic scale may go so many times below and above what stands or is advised."""


def draft(
    space: KnobSpace,
    host: HostFacts,
    present: Mapping[str, KnobValue],
    *,
    server_id: str,
    now: datetime,
    hours: Sequence[str],
) -> ExperimentPlanRecord:
    """A plan for what the expert rules advise and the agent may turn.

    The memory budget holds within its ranges as everywhere else.

    Args:
        space: the knobs that may be tried at all.
        host: the server's machine, for the rules.
        present: the values that stand.
        server_id: of the server.
        now: the plan lasts a week from then.
        hours: of trials, as the settings have them.
    """
    proposals = expert_proposals(space, host, present)
    knobs = []
    for knob in space:
        if knob.name in present:
            advised = [proposal.config[knob.name] for proposal in proposals]
            knobs.append(_range(knob, [present[knob.name], *advised]))
    return ExperimentPlanRecord(
        created_at=now,
        author=AUTOPILOT,
        server_id=server_id,
        knobs=tuple(knobs),
        trials=TRIALS,
        expires_at=now + LASTS,
        hours=tuple(hours),
        note="what the expert rules advise and what the knob agent may turn",
    )


def _range(knob: Knob, values: Iterable[KnobValue]) -> KnobRange:
    if knob.kind == "boolean":
        return KnobRange(knob.name, choices=(False, True))
    if knob.kind == "categorical":
        return KnobRange(knob.name, choices=tuple(knob.choices))
    low, high = knob.bounds
    numbers = [float(v) for v in values if not isinstance(v, (bool, str)) and low <= v <= high]
    if knob.scale == "log" and numbers and min(numbers) > 0:
        low = max(low, min(numbers) / REACH)
        high = min(high, max(numbers) * REACH)
    if knob.kind == "integer":
        low, high = float(math.floor(low)), float(math.ceil(high))
        low, high = max(low, math.ceil(knob.bounds[0])), min(high, math.floor(knob.bounds[1]))
    return KnobRange(knob.name, float(low), float(high), unit=knob.unit)
