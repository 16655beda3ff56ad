"""What waits for an operator in mode ``approve``, and the experiment plan that is in force."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import html
from dash.development.base_component import Component

from backend.domain.experiment_plans import (
    ExperimentPlanRecord,
    KnobRange,
    PlanState,
    PromotionRecord,
    PromotionState,
)
from backend.domain.modes import Arm, CommandKind, Mode
from backend.domain.records import KnobStatusRecord, TrialRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.live import View
from dashboard.trial_table import interval_bar

SCALE = 0.5
"""Relative effect at the ends of the bar."""


def waiting_promotion(view: View) -> PromotionRecord | None:
    """The promotion that an operator may still decide on; None where there is none."""
    newest = view.reader.promotions()
    open_states = (PromotionState.WAITING, PromotionState.APPROVED)
    return newest[-1] if newest and newest[-1].state in open_states else None


def waiting(view: View) -> object:
    """Promotions and plans that wait, the plan in force; one line where mode is another one."""
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    plans = list(reversed(view.reader.experiment_plans()))
    parts: list[Component] = []
    promotion = waiting_promotion(view)
    if promotion is not None:
        parts.append(_promotion(promotion, view.reader.trial(promotion.trial_id), statuses, view))
    parts += [_plan(plan, statuses, view) for plan in plans if plan.state is PlanState.DRAFT][:1]
    in_force = [_plan(p, statuses, view) for p in plans if p.state is PlanState.APPROVED]
    parts += in_force[:1]
    status = view.reader.status()
    if view.mode is Mode.APPROVE and status is not None and status.hindrance:
        parts.append(
            html.P(["Nothing new is tried now: ", status.hindrance, "."], className="quiet")
        )
    if parts:
        return html.Div([*parts, _over(plans, view)], className="waiting")
    if view.mode is Mode.APPROVE:
        return html.P("Nothing waits for you.", className="quiet")
    return html.P(
        "Nothing waits. In mode approve trials run inside an experiment plan that you approve, and "
        "each promotion waits here with its evidence.",
        className="quiet",
    )


def answers(promotion: PromotionRecord, place: str) -> Component:
    """The buttons that answer a promotion; ``place`` keeps the ids of copies apart."""
    payload = {"trial_id": promotion.trial_id}
    if promotion.state is PromotionState.APPROVED:
        return html.Div(
            [
                ui.badge("approved", "good", "check-lg"),
                html.Span(
                    f"by {promotion.decided_by}: deployed as soon as the load is that of "
                    f"workload {promotion.workload} and nothing else stands against it. ",
                    className="small",
                ),
                ui.command_button(CommandKind.DECLINE, payload, "Decline after all", place=place),
            ],
            className="page-actions",
        )
    return html.Div(
        [
            ui.command_button(
                CommandKind.APPROVE,
                payload,
                "Deploy it",
                place=place,
                icon_name="check-lg",
                look="primary",
                confirm=f"Deploy what trial {promotion.trial_id} has proven?",
            ),
            ui.command_button(
                CommandKind.DECLINE, payload, "Decline", place=place, icon_name="x-lg"
            ),
        ],
        className="page-actions",
    )


def _promotion(
    promotion: PromotionRecord,
    trial: TrialRecord | None,
    statuses: Mapping[str, KnobStatusRecord],
    view: View,
) -> Component:
    if trial is None:
        return html.P(f"The evidence of trial {promotion.trial_id} is gone.", className="quiet")
    windows = view.reader.windows(trial_id=promotion.trial_id)
    arms = [sum(w.arm is arm for w in windows) for arm in (Arm.INCUMBENT, Arm.CANDIDATE)]
    slower = sum(e.get("effect", 0.0) > 0 for e in trial.class_effects.values())
    return html.Section(
        [
            html.Div(
                [
                    ui.badge("waits for you", "warn", "hand-index")
                    if promotion.state is PromotionState.WAITING
                    else None,
                    html.H3(f"Promotion of trial {promotion.trial_id}"),
                ],
                className="tags",
            ),
            interval_bar(trial, SCALE),
            ui.knob_diff(trial.before, trial.after, statuses),
            ui.facts(
                [
                    ("Confidence", fmt.confidence(trial.confidence)),
                    ("Windows", f"{arms[0]} of what stands, {arms[1]} of the candidate"),
                    ("Blocks", f"{trial.blocks} of at most {trial.max_blocks}"),
                    (
                        "By query class",
                        f"{len(trial.class_effects) - slower} not slower, {slower} slower",
                    ),
                    ("Why", "; ".join(trial.reasons)),
                    ("Proven", view.viewer.time(promotion.created_at, now=view.now)),
                    ("Workload", str(promotion.workload)),
                ]
            ),
            html.Button(
                "All of the evidence, class by class",
                id={"type": "trial", "id": promotion.trial_id, "place": "waiting"},
                type="button",
                className="link-button",
            ),
            answers(promotion, "waiting"),
        ],
        className="waiting-item",
        **{"aria-label": f"Promotion of trial {promotion.trial_id}"},
    )


def _plan(
    plan: ExperimentPlanRecord, statuses: Mapping[str, KnobStatusRecord], view: View
) -> Component:
    draft = plan.state is PlanState.DRAFT
    rows: list[list[Any]] = [
        [html.Code(knob.name, className="knob-name"), *_range(knob, statuses.get(knob.name))]
        for knob in plan.knobs
    ]
    return html.Section(
        [
            html.Div(
                [
                    ui.badge("waits for you", "warn", "hand-index")
                    if draft
                    else ui.badge("in force", "good", "check-lg"),
                    html.H3(f"Experiment plan {plan.id}"),
                ],
                className="tags",
            ),
            html.P(plan.note) if plan.note else None,
            ui.facts(
                [
                    ("Trials", f"{plan.begun} of {plan.trials} begun"),
                    ("Hours", "; ".join(plan.hours) or "whenever trials may run"),
                    ("Expires", view.viewer.time(plan.expires_at, now=view.now)),
                    ("By", plan.author),
                    *([] if draft else [("Approved by", plan.decided_by)]),
                ]
            ),
            html.Details(
                [
                    html.Summary(f"{len(rows)} knobs and their ranges"),
                    ui.table(["Knob", "From", "To", "Now"], rows, "ranges"),
                ],
                open=draft,
            ),
            _decide(plan, draft),
        ],
        className="waiting-item",
        **{"aria-label": f"Experiment plan {plan.id}"},
    )


def _decide(plan: ExperimentPlanRecord, draft: bool) -> Component:
    payload = {"plan_id": plan.id}
    approve = ui.command_button(
        CommandKind.APPROVE_PLAN,
        payload,
        "Approve the plan",
        place="waiting",
        icon_name="check-lg",
        look="primary",
        confirm=f"Let up to {plan.trials} trials of these {len(plan.knobs)} knobs run without "
        "asking again? What they prove still waits for you.",
    )
    decline = ui.command_button(
        CommandKind.DECLINE_PLAN,
        payload,
        "Decline" if draft else "Withdraw the approval",
        place="waiting",
        icon_name="x-lg",
    )
    return html.Div([approve if draft else None, decline], className="page-actions")


def _range(knob: KnobRange, status: KnobStatusRecord | None) -> list[Any]:
    now = fmt.knob_value(status.value, status.unit) if status is not None else fmt.NONE
    if knob.low is None or knob.high is None:
        choices = ", ".join(fmt.knob_value(choice, None) for choice in knob.choices)
        return [choices, fmt.NONE, now]
    return [fmt.knob_value(knob.low, knob.unit), fmt.knob_value(knob.high, knob.unit), now]


def _over(plans: list[ExperimentPlanRecord], view: View) -> Component | None:
    """The last plan that is over, with the reason."""
    over = next((p for p in plans if p.state in (PlanState.OVER, PlanState.DECLINED)), None)
    if over is None:
        return None
    why = over.reason or f"declined by {over.decided_by}"
    return html.P(f"Experiment plan {over.id} is over: {why}.", className="quiet small")
