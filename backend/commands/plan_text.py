"""Experiment plans and promotions as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from backend.domain.experiment_plans import ExperimentPlanRecord, KnobRange, PromotionRecord
from backend.domain.knobs import KnobValue
from backend.domain.modes import Arm
from backend.domain.quantities import format_quantity
from backend.domain.records import TrialRecord, WindowRecord

MOST_CLASSES = 12
_TIME = "%Y-%m-%d %H:%M UTC"


def plan_row(plan: ExperimentPlanRecord) -> str:
    """A plan in one line."""
    why = f": {plan.reason}" if plan.reason else ""
    return (
        f"{plan.id}  {plan.state.value}  {plan.begun} of {plan.trials} trials, "
        f"{len(plan.knobs)} knobs, until {plan.expires_at.strftime(_TIME)}, by {plan.author}{why}"
    )


def plan_lines(plan: ExperimentPlanRecord) -> Iterator[str]:
    """All of a plan."""
    yield plan_row(plan)
    if plan.decided_at is not None:
        yield f"decided by {plan.decided_by} at {plan.decided_at.strftime(_TIME)}"
    if plan.note:
        yield f"note: {plan.note}"
    yield f"hours: {'; '.join(plan.hours) or 'whenever trials may run'}"
    for knob in plan.knobs:
        yield f"  {knob.name}: {_range(knob)}"


def _range(knob: KnobRange) -> str:
    if knob.low is None or knob.high is None:
        return ", ".join(_value(choice, None) for choice in knob.choices)
    return f"{_value(knob.low, knob.unit)} to {_value(knob.high, knob.unit)}"


def promotion_lines(
    promotion: PromotionRecord,
    trial: TrialRecord | None,
    windows: Sequence[WindowRecord],
    units: Mapping[str, str | None],
    texts: Mapping[str, str],
) -> Iterator[str]:
    """A promotion with its evidence.

    Args:
        promotion: that waits, or waited.
        trial: the evidence; None where the retention has removed it.
        windows: of the trial.
        units: of the knobs.
        texts: of the query classes.
    """
    yield f"Promotion of trial {promotion.trial_id}: {promotion.state.value}"
    if promotion.decided_at is not None:
        yield f"decided by {promotion.decided_by} at {promotion.decided_at.strftime(_TIME)}"
    if promotion.reason:
        yield promotion.reason
    if trial is None:
        yield "its evidence is gone: it is older than what is kept"
        return
    interval = ""
    if trial.ci_low is not None and trial.ci_high is not None:
        interval = f", {trial.ci_low:+.1%} to {trial.ci_high:+.1%} at {trial.confidence:.2%}"
    effect = "unknown" if trial.effect is None else f"{trial.effect:+.1%}"
    yield f"effect on the latency index: {effect}{interval}"
    arms = [sum(w.arm is arm for w in windows) for arm in (Arm.INCUMBENT, Arm.CANDIDATE)]
    yield (
        f"windows: {arms[0]} of what stands, {arms[1]} of the candidate, in {trial.blocks} blocks"
    )
    yield f"why: {'; '.join(trial.reasons)}"
    yield "knobs:"
    for name, after in trial.after.items():
        before, unit = trial.before.get(name), units.get(name)
        yield f"  {name}: {_value(before, unit)} -> {_value(after, unit)}"
    yield "by query class:"
    effects = sorted(trial.class_effects.items(), key=lambda item: item[1].get("effect", 0.0))
    for key, found in effects[:MOST_CLASSES]:
        text = " ".join(texts.get(key, key).split())
        yield (
            f"  {found.get('effect', 0.0):+.1%}  {found.get('incumbent_ms', 0.0):.3g} ms -> "
            f"{found.get('candidate_ms', 0.0):.3g} ms  {text[:90]}"
        )
    if len(effects) > MOST_CLASSES:
        yield f"  and {len(effects) - MOST_CLASSES} more; the page Decisions shows them all"


def _value(value: KnobValue | None, unit: str | None) -> str:
    if value is None:
        return "the server's own"
    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else format_quantity(value, unit)
