"""Deployments that were undone: what went, how long it had stood, by whom and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import html

from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import KnobStatusRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.decisions_change_list import change_list
from dashboard.decisions_changes import Undoing, change_between, undoings
from dashboard.live import View

MOST_LOOKED_THROUGH = 1000
MOST_SHOWN = 30


def undone_table(view: View) -> object:
    """What was undone, newest first."""
    versions = view.reader.policy_versions(limit=MOST_LOOKED_THROUGH)
    found = list(reversed(undoings(versions)))
    if not found:
        return ui.empty(
            "Nothing was undone",
            "Deployments that did not stand their probation, that drift has overtaken, or that "
            "somebody took back are told here.",
            "shield-check",
        )
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    parents = {v.id: v for v in versions}
    return ui.table(
        ["When", "What was undone", "It had stood for", "By whom and why"],
        [_row(u, parents[u.by.parent_id], statuses, view) for u in found[:MOST_SHOWN]],
        "undone",
    )


def _row(
    undoing: Undoing,
    parent: PolicyVersionRecord,
    statuses: Mapping[str, KnobStatusRecord],
    view: View,
) -> list[Any]:
    by, first = undoing.by, undoing.undone[0]
    numbers = ", ".join(str(v.id) for v in undoing.undone)
    plural = "Versions" if len(undoing.undone) > 1 else "Version"
    return [
        html.Span(
            view.viewer.time(by.created_at, now=view.now), title=view.viewer.moment(by.created_at)
        ),
        html.Div(
            [
                html.Div(f"{plural} {numbers}, of {first.author}", className="strong"),
                change_list(change_between(parent, by), statuses),
            ]
        ),
        fmt.duration_text((by.created_at - first.created_at).total_seconds()),
        html.Div(
            [
                html.Div(by.author, className="strong"),
                html.Div(by.note, className="small"),
                html.Div(f"since then version {by.id}", className="small"),
            ]
        ),
    ]
