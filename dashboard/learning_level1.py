"""Level 1 for people: the updates of the policies, what they promised and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from dash import html
from dash.development.base_component import Component

from backend.domain.policies import PolicyUpdateRecord
from dashboard import components as ui
from dashboard import figures_policies as figs
from dashboard import format as fmt
from dashboard.learning_levels import level_head, plain_tile
from dashboard.learning_outcomes import Outcome, outcomes
from dashboard.live import Builder, View

MOST_READ = 500
MOST_SHOWN = 40
LEARNT_FROM: Mapping[str, str] = {"knob": "transitions", "plan": "plan runs"}
TONES: Mapping[Outcome, tuple[str, str]] = {
    Outcome.IN_FORCE: ("good", "check-lg"),
    Outcome.REPLACED: ("info", "check-lg"),
    Outcome.UNDONE: ("bad", "arrow-counterclockwise"),
    Outcome.REFUSED: ("neutral", "slash-circle"),
}


def judged(view: View) -> Sequence[tuple[PolicyUpdateRecord, Outcome]]:
    """The updates with their outcomes, oldest first."""
    versions = view.reader.policy_versions(limit=1)
    return outcomes(view.reader.policy_updates(limit=MOST_READ), versions)


def summary(view: View) -> object:
    """How many updates were tried, deployed and kept, and when the next one is due."""
    found = judged(view)
    if not found:
        return html.Div(
            ui.empty("No policy update yet", _when_first(view), "mortarboard"),
            className="panel below",
        )
    deployed = [u for u, outcome in found if outcome is not Outcome.REFUSED]
    kept = sum(outcome.kept for _u, outcome in found)
    last = deployed[-1] if deployed else None
    return html.Div(
        [
            plain_tile("Tried", str(len(found)), _by_policy([u for u, _ in found])),
            plain_tile("Deployed", str(len(deployed)), _by_policy(deployed)),
            plain_tile("Kept", str(kept), "in force, or until a better one came"),
            plain_tile(
                "Undone",
                str(sum(outcome is Outcome.UNDONE for _u, outcome in found)),
                "went back to the one before",
            ),
            plain_tile(
                "Newest promise",
                fmt.percent(last.gain, signed=True) if last else fmt.NONE,
                "less latency, of the last one deployed",
            ),
            plain_tile("Next", *_when_next(found[-1][0], view)),
        ],
        className="tiles tiles-6",
    )


def _by_policy(updates: Sequence[PolicyUpdateRecord]) -> str:
    counts = {p: sum(u.policy == p for u in updates) for p in LEARNT_FROM}
    return ", ".join(f"{count} {policy}" for policy, count in counts.items())


def _when_first(view: View) -> str:
    rest = "It needs some trials to learn from; until then nothing is tried."
    if view.update_interval_s is None:
        return "Level 1 is off (level1.enabled): no policy is learnt."
    status = view.reader.status()
    every = fmt.duration_text(view.update_interval_s)
    if status is None or status.started_at is None:
        return f"The first is due {every} after the tuner's start. {rest}"
    due = status.started_at + timedelta(seconds=view.update_interval_s)
    if due <= view.now:
        return f"It is due every {every}, since {view.viewer.moment(due)}. {rest}"
    return f"The first is due at {view.viewer.moment(due)}, {every} after the start. {rest}"


def _when_next(last: PolicyUpdateRecord, view: View) -> tuple[str, str]:
    if view.update_interval_s is None:
        return fmt.NONE, "Level 1 is off"
    due = last.at + timedelta(seconds=view.update_interval_s)
    if due <= view.now:
        return "due", "waits for something new to learn from"
    return view.viewer.time(due, now=view.now), (
        f"every {fmt.duration_text(view.update_interval_s)}"
    )


def table(view: View) -> object:
    """Each update with its reason and evidence, newest first."""
    found = judged(view)
    if not found:
        return ui.empty(
            "No policy update yet",
            "Each attempt appears here with the reason why its policy was deployed, or not.",
            "card-list",
        )
    rows = [_row(update, outcome, view) for update, outcome in reversed(found[-MOST_SHOWN:])]
    head = ["When", "Policy", "Outcome and why", "Promised gain", "Learnt from", "Coverage", "Took"]
    return ui.table(head, rows, "updates")


def _row(update: PolicyUpdateRecord, outcome: Outcome, view: View) -> list[Any]:
    tone, icon_name = TONES[outcome]
    of = LEARNT_FROM.get(update.policy, "records")
    return [
        html.Span(view.viewer.time(update.at, now=view.now), title=view.viewer.moment(update.at)),
        html.Span(update.policy, className="strong"),
        html.Div(
            [
                ui.badge(outcome.value, tone, icon_name),
                html.Div(update.reason, className="small"),
            ]
        ),
        _gain(update),
        html.Div(
            [
                html.Div(f"{fmt.number(update.learnt_from)} {of}"),
                html.Div(f"judged on {fmt.number(update.judged_on)} held out", className="small"),
            ]
        ),
        fmt.percent(update.coverage, digits=0),
        fmt.duration_text(update.duration_s),
    ]


def _gain(update: PolicyUpdateRecord) -> Component:
    if update.gain is None:
        return html.Span("could not be judged", className="small")
    low, high = (fmt.percent(v, signed=True) for v in (update.gain_low, update.gain_high))
    tone = "good" if (update.gain_low or 0) > 0 else "bad" if (update.gain_high or 0) < 0 else ""
    return html.Div(
        [
            html.Div(fmt.percent(update.gain, signed=True), className=f"strong {tone}".strip()),
            html.Div(f"{low} to {high}", className="small"),
        ]
    )


def section() -> list[Component]:
    """Level 1's part of the page without its numbers."""
    return [
        level_head(1),
        html.Div(ui.skeleton(3), id="learning-level1"),
        ui.card(
            "Promised gain",
            ui.graph("learning-updates", 260, "promised gain of each policy update"),
            hint_id="hint-updates",
            hint_text="Higher is better: how much less latency the new policy would have meant on "
            "records that it never saw, against the policy it would replace, with its interval. "
            "Circles are knob policies, diamonds plan policies. Only what is clear of 0 is "
            "deployed.",
            subtitle="on held-out records",
        ),
        ui.card(
            "Policy updates",
            html.Div(ui.skeleton(4), id="learning-updates-table"),
            class_name="spaced",
            hint_id="hint-coverage",
            hint_text="Coverage: how much of what it was judged on resembles what it would do "
            "itself; with little of it nothing can be said.",
        ),
    ]


def _figure(view: View) -> object:
    return figs.updates_figure(judged(view), view.viewer, "Appears with the first judged update")


PARTS: Mapping[str, Builder] = {
    "learning-level1.children": summary,
    "learning-updates.figure": _figure,
    "learning-updates-table.children": table,
}
