"""The lineage of policy versions: what each changed, on which evidence, and the way back to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ALL, Input, Output, ctx, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from backend.domain.modes import CommandKind
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import KnobStatusRecord, TrialRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.decisions_change_list import change_list
from dashboard.decisions_changes import (
    VersionChange,
    change_between,
    earliest_of_each_state,
    state_of,
)
from dashboard.live import Builder, View
from dashboard.trial_table import interval_text

MOST_VERSIONS = 1000
SHOWN_AT_FIRST = "20"
RETURN = "return"


def lineage(view: View) -> object:
    """What was deployed, newest first, each with what it changed, its evidence and a way back."""
    versions = view.reader.policy_versions(limit=MOST_VERSIONS)
    if not versions:
        return ui.empty("No version yet", "The server as found becomes version 1.", "layers")
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    parents = {v.id: v for v in versions}
    trials = {t.id: t for t in view.reader.trials()}
    earliest = earliest_of_each_state(versions)
    shown = list(reversed(versions))[: _wanted(view)]
    left = len(versions) - len(shown)
    more = f"{left} older versions are not shown; choose how many above."
    return html.Div(
        [
            html.Ol(
                [
                    _item(
                        version,
                        parents.get(version.parent_id),
                        earliest.get(state_of(version)),
                        trials.get(version.trial_id),
                        statuses,
                        view,
                    )
                    for version in shown
                ],
                className="lineage",
            ),
            html.P(more, className="quiet") if left else None,
        ]
    )


def _wanted(view: View) -> int:
    chosen = view.choices.get("decisions-versions-shown")
    return int(chosen) if isinstance(chosen, str) and chosen in ("20", "100", "1000") else 20


def _item(
    version: PolicyVersionRecord,
    parent: PolicyVersionRecord | None,
    earliest: int | None,
    trial: TrialRecord | None,
    statuses: Mapping[str, KnobStatusRecord],
    view: View,
) -> Component:
    change = change_between(parent, version) if parent else _whole(version)
    return html.Li(
        [
            html.Div(
                [
                    html.Div(
                        [
                            html.B(f"Version {version.id}"),
                            ui.badge("deployed", "good", "check-lg") if version.active else None,
                            _like(version, change, earliest),
                        ],
                        className="tags",
                    ),
                    _return_button(version),
                ],
                className="lineage-head",
            ),
            html.Div(
                [
                    view.viewer.moment(version.created_at),
                    f", by {version.author}",
                    f", after version {version.parent_id}" if version.parent_id else "",
                ],
                className="small",
            ),
            html.Div(version.note, className="lineage-note") if version.note else None,
            _changes(version, change, parent, statuses),
            _evidence(version, trial),
        ],
        className="lineage-item active" if version.active else "lineage-item",
    )


def _whole(version: PolicyVersionRecord) -> VersionChange:
    nothing = PolicyVersionRecord(created_at=version.created_at, author="", config={})
    return change_between(nothing, version)


def _like(
    version: PolicyVersionRecord, change: VersionChange, earliest: int | None
) -> Component | None:
    """Which earlier version it went back to."""
    if earliest is None or earliest == version.id or not change:
        return None
    return ui.badge(f"as version {earliest}", "neutral", "arrow-counterclockwise")


def _changes(
    version: PolicyVersionRecord,
    change: VersionChange,
    parent: PolicyVersionRecord | None,
    statuses: Mapping[str, KnobStatusRecord],
) -> Component:
    if parent is not None:
        if change:
            return change_list(change, statuses)
        return html.Div("Nothing differs from its parent.", className="small")
    if version.parent_id is not None:
        text = "Its parent is not known any more; all that it holds:"
    else:
        text = "The server as it was found:" if change else "The server's own settings alone."
    return html.Div([html.Div(text, className="small"), change_list(change, statuses)])


def _evidence(version: PolicyVersionRecord, trial: TrialRecord | None) -> Component:
    return html.Div(
        [
            html.Span(_trial_evidence(version, trial)),
            html.Span(
                [
                    f"latency index {version.index:.3f} ",
                    html.Span(f"({fmt.percent(version.index - 1, signed=True)})"),
                ],
                title="chain-linked over the deployments; 1 is the start of its workload",
            ),
        ],
        className="lineage-evidence small",
    )


def _trial_evidence(version: PolicyVersionRecord, trial: TrialRecord | None) -> Any:
    if version.trial_id is None:
        return "no trial"
    link = html.Button(
        f"trial {version.trial_id}",
        id={"type": "trial", "id": version.trial_id, "place": f"version-{version.id}"},
        type="button",
        className="link-button",
        title="Show the evidence",
    )
    if trial is None or trial.effect is None:
        return [link]
    interval = interval_text(trial)
    tail = f" [{interval}] at {fmt.confidence(trial.confidence)}" if interval else ""
    return [link, f": {fmt.percent(trial.effect, signed=True)}{tail}"]


def _return_button(version: PolicyVersionRecord) -> Component | None:
    if version.active:
        return None
    return dbc.Button(
        [ui.icon("arrow-counterclockwise"), "Go back to this version"],
        id={"type": RETURN, "version": version.id or 0},
        color="secondary",
        outline=True,
        size="sm",
        className="action",
    )


def confirmation(view: View) -> object:
    """What will change if the chosen version is gone back to, and the button that does it."""
    versions = view.reader.policy_versions(limit=MOST_VERSIONS)
    chosen = view.choices.get("decisions-return-to")
    wanted = next((v for v in versions if v.id == chosen), None)
    present = next((v for v in reversed(versions) if v.active), None)
    if wanted is None or present is None:
        return ui.empty("No such version", "It is not in the store any more.", "question")
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    change = change_between(present, wanted)
    restarts = [n for n in change.knobs if n in statuses and statuses[n].context == "restart"]
    return html.Div(
        [
            html.P(
                [
                    html.B(f"Version {wanted.id}"),
                    f" of {view.viewer.moment(wanted.created_at)}, by {wanted.author}.",
                ],
                className="lead-text",
            ),
            html.H3(f"What changes against version {present.id}, deployed now"),
            change_list(change, statuses, most=None)
            if change
            else html.P("Nothing: it stands for the same state.", className="quiet"),
            html.P(
                f"{', '.join(restarts)}: takes effect with a restart of the server.",
                className="quiet",
            )
            if restarts
            else None,
            html.P(
                "A hint set whose proof does not count any more is not served again, but to be "
                "proven anew.",
                className="quiet",
            )
            if any(after is not None for _before, after in change.hint_sets.values())
            else None,
            html.P(
                "A running trial is ended first. This works in every mode, frozen too, and becomes "
                "a version of its own: you can come back.",
                className="quiet",
            ),
            html.Div(
                ui.command_button(
                    CommandKind.ROLL_BACK,
                    {"version_id": wanted.id},
                    f"Go back to version {wanted.id}",
                    place=RETURN,
                    icon_name="arrow-counterclockwise",
                    look="primary",
                    small=False,
                ),
                className="page-actions spaced",
            ),
        ]
    )


def section() -> list[Component]:
    """The card and its dialog without their contents."""
    counts = [
        {"label": f"Newest {number}", "value": number} for number in (SHOWN_AT_FIRST, "100", "1000")
    ]
    return [
        ui.card(
            "Deployed versions",
            html.Div(ui.skeleton(), id="decisions-versions"),
            class_name="spaced",
            hint_id="hint-versions",
            hint_text="A version is a whole deployed state: knobs, the hint sets that are served, "
            "and the weights behind both. Each shows what it changed against the one before it.",
            actions=ui.select(
                "decisions-versions-shown", "How many versions", counts, SHOWN_AT_FIRST
            ),
        ),
        dcc.Store(id="decisions-return-to"),
        dbc.Modal(
            [
                dbc.ModalHeader(dbc.ModalTitle("Go back to an earlier version")),
                dbc.ModalBody(html.Div(ui.skeleton(4), id="decisions-return-body")),
            ],
            id="decisions-return",
            is_open=False,
            size="lg",
            scrollable=True,
        ),
    ]


def register(app: dash.Dash) -> None:
    """A version's button opens the confirmation; what it queues closes it."""

    @app.callback(
        Output("decisions-return-to", "data"),
        Output("decisions-return", "is_open"),
        Input({"type": RETURN, "version": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def choose(_clicks: list[int | None]) -> Any:
        if not ctx.triggered_id or not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        return int(ctx.triggered_id["version"]), True

    @app.callback(
        Output("decisions-return", "is_open", allow_duplicate=True),
        Input(
            {"type": "command", "kind": ALL, "place": RETURN, "payload": ALL, "confirm": ALL},
            "n_clicks",
        ),
        prevent_initial_call=True,
    )
    def queued(_clicks: list[int | None]) -> bool:
        if not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        return False


PARTS: Mapping[str, Builder] = {
    "decisions-versions.children": lineage,
    "decisions-return-body.children": confirmation,
}
CHOICES = (("decisions-versions-shown", "value"), ("decisions-return-to", "data"))
