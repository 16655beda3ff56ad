"""What changes between two policy versions, for people: knobs, hint sets, weights."""

from __future__ import annotations

from collections.abc import Mapping

from dash import html
from dash.development.base_component import Component

from backend.domain.records import KnobStatusRecord
from backend.domain.steering import ServedHint
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.decisions_changes import VersionChange
from dashboard.steering_words import hint_words

MOST_ROWS = 4
LONGEST_FILE = 28


def change_list(
    change: VersionChange, statuses: Mapping[str, KnobStatusRecord], *, most: int | None = MOST_ROWS
) -> Component:
    """One line a knob, hint set or file of weights; of each kind ``most``, the rest folded."""
    hints = [_hint_row(before, after) for before, after in change.hint_sets.values()]
    weights = [_weights_row(name, *files) for name, files in change.weights.items()]
    return html.Div(
        [
            ui.knob_diff(
                {name: before for name, (before, _after) in change.knobs.items()},
                {name: after for name, (_before, after) in change.knobs.items()},
                statuses,
                most=most,
            ),
            html.Div(_folded(hints, most), className="diff"),
            html.Div(_folded(weights, most), className="diff"),
        ],
        className="version-change",
    )


def _folded(rows: list[Component], most: int | None) -> list[Component]:
    if most is None or len(rows) <= most + 1:
        return rows
    more = html.Summary(f"and {len(rows) - most} more")
    return [*rows[:most], html.Details([more, *rows[most:]], className="more")]


def _hint_row(before: ServedHint | None, after: ServedHint | None) -> Component:
    shown = after or before
    assert shown is not None
    tone, word = _hint_change(before, after)
    return html.Div(
        [
            html.Div(
                [
                    ui.badge(word, tone, "signpost-split"),
                    html.Span(hint_words(shown.evidence.settings), className="strong"),
                    html.Span(_evidence(shown), className="small"),
                ],
                className="hint-change",
            ),
            html.Div(shown.text, className="query-text", title=shown.text),
        ],
        className="diff-row stacked",
    )


def _hint_change(before: ServedHint | None, after: ServedHint | None) -> tuple[str, str]:
    if after is None:
        return "warn", "withdrawn"
    if before is None:
        return "good", "served, pinned" if after.pinned else "served"
    if before.evidence.hint_set != after.evidence.hint_set:
        return "good", f"served instead of {hint_words(before.evidence.settings)}"
    if before.pinned != after.pinned:
        return "accent", "pinned" if after.pinned else "no longer pinned"
    return "info", "verified anew"


def _evidence(hint: ServedHint) -> str:
    evidence = hint.evidence
    low, high = (fmt.percent(v, signed=True) for v in (evidence.ci_low, evidence.ci_high))
    return f"latency {fmt.percent(evidence.effect, signed=True)} [{low} to {high}]"


def _weights_row(name: str, before: str | None, after: str | None) -> Component:
    return html.Div(
        [
            html.Span(name, className="knob-name"),
            html.Span(
                [
                    html.Code(_file(before), className="value-old", title=before or ""),
                    ui.icon("arrow-right", "arrow"),
                    html.Code(_file(after), className="value-new", title=after or ""),
                ],
                className="values",
            ),
        ],
        className="diff-row",
    )


def _file(name: str | None) -> str:
    if not name:
        return "none"
    return name if len(name) <= LONGEST_FILE else f"…{name[-LONGEST_FILE:]}"
