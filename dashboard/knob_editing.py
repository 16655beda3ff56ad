"""Changing knobs by hand: choose → type → check → review the diff → confirm → see it happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ALL, Input, Output, State, ctx, html, no_update
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from backend.domain.knobs import KnobValue
from backend.domain.modes import CommandKind
from backend.domain.records import KnobStatusRecord
from backend.errors import AutopilotError
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.auth.identity import LOOKS_ONLY, looks_only
from dashboard.operator_commands import check_knobs, track
from dashboard.services import Services

NEEDS: Mapping[str, tuple[str, str]] = {
    "session": ("at once, by a reload", "good"),
    "reload": ("at once, by a reload", "good"),
    "restart": ("needs a restart of the server", "warn"),
}
RISKS: Mapping[str, str] = {"low": "neutral", "medium": "warn", "high": "bad"}


def dialogs() -> list[Component]:
    """The editor and the review; both empty until needed."""
    return [
        dbc.Modal(
            [
                dbc.ModalHeader(dbc.ModalTitle(id="knob-title")),
                dbc.ModalBody(
                    [
                        html.Div(id="knob-body"),
                        html.Div(id="knob-check", className="check", **{"aria-live": "polite"}),
                    ]
                ),
                dbc.ModalFooter(
                    [
                        dbc.Button("Cancel", id="knob-cancel", color="secondary", outline=True),
                        dbc.Button(
                            "Review the change", id="knob-review", color="primary", disabled=True
                        ),
                    ]
                ),
            ],
            id="knob-editor",
            is_open=False,
            centered=True,
            scrollable=True,
        ),
        dbc.Modal(
            [
                dbc.ModalHeader(dbc.ModalTitle("Review before it is applied")),
                dbc.ModalBody(id="review-body"),
                dbc.ModalFooter(
                    [
                        dbc.Button(
                            "Change another knob too",
                            id="review-more",
                            color="secondary",
                            outline=True,
                        ),
                        dbc.Button(
                            [ui.icon("check-lg"), "Apply to the server"],
                            id="review-apply",
                            color="primary",
                        ),
                    ]
                ),
            ],
            id="knob-review-dialog",
            is_open=False,
            centered=True,
            scrollable=True,
            size="lg",
        ),
    ]


def editor_body(knob: KnobStatusRecord, staged: object) -> Component:
    """What a knob is, and the field to change it."""
    present = staged if staged is not None else knob.value
    locked = not knob.writable or looks_only()
    if knob.kind in ("boolean", "categorical"):
        options = ["on", "off"] if knob.kind == "boolean" else list(knob.choices)
        field: Component = dbc.Select(
            id="knob-input",
            options=[{"label": o, "value": o} for o in options],
            value=fmt.knob_value(present, None),
            disabled=locked,  # type: ignore[arg-type]
        )
        help_text = ""
    else:
        field = dbc.Input(
            id="knob-input",
            type="text",
            value=fmt.knob_value(present, None),  # type: ignore[arg-type]
            autofocus=True,
            disabled=locked,
            maxlength=40,
            autocomplete="off",
        )
        help_text = (
            f"A number in {knob.unit}, or with a unit of its own, such as "
            f"{fmt.knob_value(knob.default, knob.unit)}."
            if knob.unit
            else "A plain number."
        )
    needs, tone = NEEDS.get(knob.context, (knob.context, "neutral"))
    return html.Div(
        [
            html.P(knob.description, className="lead-text"),
            html.Div(
                [
                    ui.badge(needs, tone),
                    ui.badge(f"risk: {knob.risk}", RISKS.get(knob.risk, "neutral")),
                    ui.badge(knob.group, "neutral"),
                ],
                className="tags",
            ),
            ui.facts(
                [
                    ("Now", fmt.knob_value(knob.value, knob.unit, native=True)),
                    ("Server's default", fmt.knob_value(knob.default, knob.unit, native=True)),
                    ("Bounds", bounds_text(knob)),
                    ("Comes from", knob.source or fmt.NONE),
                    (
                        "Manual",
                        html.A(
                            "the server's page on it",
                            href=knob.doc_url,
                            target="_blank",
                            rel="noreferrer",
                        )
                        if knob.doc_url.startswith("https://")
                        else fmt.NONE,
                    ),
                ]
            ),
            html.Div(knob.note, className="banner banner-warn spaced") if knob.note else None,
            html.Label("New value", htmlFor="knob-input", className="field-label"),
            html.Div(
                [field, html.Span(knob.unit, className="unit") if knob.unit else None],
                className="field",
            ),
            html.Div(help_text, className="quiet") if help_text else None,
        ]
    )


def bounds_text(knob: KnobStatusRecord) -> str:
    """What a value may be, for people."""
    if knob.kind == "boolean":
        return "on, off"
    if knob.kind == "categorical":
        return ", ".join(knob.choices)
    if knob.low is None or knob.high is None:
        return fmt.NONE
    low, high = (
        fmt.knob_value(int(v) if knob.kind == "integer" else v, knob.unit)
        for v in (knob.low, knob.high)
    )
    also = f" or {', '.join(str(s) for s in knob.special)}" if knob.special else ""
    return f"{low} to {high}{also}"


def check_text(knob: KnobStatusRecord, text: object) -> tuple[KnobValue | None, str, bool]:
    """Check what was typed: the value (None where refused), what to say, whether it may go on."""
    if text is None or text == "":
        return None, "Type a value.", False
    try:
        value = check_knobs({knob.name: fmt.parse_knob_text(text, knob.unit)}, [knob])[knob.name]
    except AutopilotError as error:
        return None, f"{error.message}. Allowed: {bounds_text(knob)}.", False
    if value == knob.value:
        return value, f"{fmt.knob_value(value, knob.unit)} is the present value.", False
    return value, f"Will be {fmt.knob_value(value, knob.unit, native=True)}.", True


def review_body(staged: Mapping[str, Any], knobs: Mapping[str, KnobStatusRecord]) -> Component:
    """The diff of all staged changes and what they need."""
    if not staged:
        return ui.empty("Nothing to apply", "Choose a knob in the grid.", "sliders")
    table_rows = []
    for name, value in staged.items():
        knob = knobs.get(name)
        unit, context = (knob.unit, knob.context) if knob else (None, "reload")
        needs, tone = NEEDS.get(context, (context, "neutral"))
        risk = knob.risk if knob else "low"
        before, after = fmt.knob_change(knob.value if knob else None, value, unit)
        table_rows.append(
            [
                html.Code(name, className="knob-name"),
                html.Span(
                    [
                        html.Span(before, className="value-old"),
                        ui.icon("arrow-right", "arrow"),
                        html.Span(after, className="value-new"),
                    ],
                    className="values",
                ),
                unit or fmt.NONE,
                ui.badge(needs, tone),
                ui.badge(risk, RISKS.get(risk, "neutral")),
                html.Button(
                    ui.icon("x-lg"),
                    id={"type": "unstage", "knob": name},
                    className="icon-button",
                    type="button",
                    **{"aria-label": f"Leave {name} as it is"},
                ),
            ]
        )
    restart = any(knobs[n].context == "restart" for n in staged if n in knobs)
    return html.Div(
        [
            ui.table(["Knob", "Change", "Unit", "Takes effect", "Risk", ""], table_rows),
            html.Div(
                [
                    ui.icon("exclamation-triangle"),
                    html.Div("A restart ends every session of the server for a moment."),
                ],
                className="banner banner-warn spaced",
            )
            if restart
            else None,
            html.P(
                "The tuner checks the never-list and the joint memory budget, writes the journal, "
                "applies, and reads every value back. A running trial is ended first. One click "
                "undoes the change.",
                className="quiet",
            ),
        ]
    )


def staged_bar(staged: Mapping[str, Any]) -> object:
    """Changes that were prepared and not applied."""
    if not staged:
        return None
    count = len(staged)
    return html.Div(
        [
            ui.icon("pencil-square"),
            html.Div(
                [
                    html.B(f"{count} change{'s' if count > 1 else ''} not applied yet: "),
                    ", ".join(staged),
                ]
            ),
            html.Div(
                [
                    dbc.Button(
                        "Discard",
                        id={"type": "staged", "do": "discard"},
                        size="sm",
                        color="secondary",
                        outline=True,
                    ),
                    dbc.Button(
                        "Review", id={"type": "staged", "do": "review"}, size="sm", color="primary"
                    ),
                ],
                className="page-actions",
            ),
        ],
        className="banner banner-info staged",
    )


def register(app: dash.Dash, services: Services) -> None:
    """Register the callbacks of the dialogs."""

    def statuses() -> dict[str, KnobStatusRecord]:
        try:
            return {k.name: k for k in services.reader.knob_statuses()}
        except AutopilotError:
            return {}

    @app.callback(
        Output("knob-editor", "is_open", allow_duplicate=True),
        Output("knob-title", "children"),
        Output("knob-body", "children"),
        Output("knobs-edited", "data"),
        Output("knobs-grid", "selectedRows"),
        Input("knobs-grid", "selectedRows"),
        State("knobs-staged", "data"),
        prevent_initial_call=True,
    )
    def choose(selected: Sequence[Mapping[str, Any]] | None, staged: Mapping[str, Any]) -> Any:
        if not selected:
            raise PreventUpdate
        knob = statuses().get(str(selected[0].get("name")))
        if knob is None:
            raise PreventUpdate
        return True, knob.name, editor_body(knob, staged.get(knob.name)), knob.name, []

    @app.callback(
        Output("knob-check", "children"),
        Output("knob-check", "className"),
        Output("knob-review", "disabled"),
        Input("knob-input", "value"),
        State("knobs-edited", "data"),
    )
    def check(text: object, name: str | None) -> Any:
        knob = statuses().get(name or "")
        if knob is None:
            return "", "check", True
        if not knob.writable:
            return "", "check", True
        if looks_only():
            return LOOKS_ONLY, "check", True
        value, message, ready = check_text(knob, text)
        tone = "good" if ready else "" if value is not None else "bad"
        return message, f"check {tone}", not ready

    @app.callback(
        Output("knobs-staged", "data", allow_duplicate=True),
        Output("knob-editor", "is_open", allow_duplicate=True),
        Output("knob-review-dialog", "is_open", allow_duplicate=True),
        Input("knob-review", "n_clicks"),
        Input("knob-cancel", "n_clicks"),
        Input("knob-input", "n_submit"),
        State("knob-input", "value"),
        State("knobs-edited", "data"),
        State("knobs-staged", "data"),
        prevent_initial_call=True,
    )
    def stage(
        _review: int,
        _cancel: int,
        _enter: int,
        text: object,
        name: str | None,
        staged: Mapping[str, Any],
    ) -> Any:
        if not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        if ctx.triggered_id == "knob-cancel":
            return no_update, False, no_update
        knob = statuses().get(name or "")
        if knob is None:
            raise PreventUpdate
        value, _message, ready = check_text(knob, text)
        if not ready or looks_only():
            raise PreventUpdate
        return {**staged, knob.name: value}, False, True

    @app.callback(
        Output("review-body", "children"),
        Output("knobs-staged-bar", "children"),
        Output("review-apply", "disabled"),
        Input("knobs-staged", "data"),
    )
    def show_staged(staged: Mapping[str, Any] | None) -> Any:
        staged = staged or {}
        return review_body(staged, statuses()), staged_bar(staged), not staged

    @app.callback(
        Output("knobs-staged", "data", allow_duplicate=True),
        Output("knob-review-dialog", "is_open", allow_duplicate=True),
        Input({"type": "unstage", "knob": ALL}, "n_clicks"),
        Input({"type": "staged", "do": ALL}, "n_clicks"),
        Input("review-more", "n_clicks"),
        State("knobs-staged", "data"),
        prevent_initial_call=True,
    )
    def rearrange(_remove: Any, _bar: Any, _more: Any, staged: Mapping[str, Any]) -> Any:
        pressed = ctx.triggered_id
        if not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        if pressed == "review-more":
            return no_update, False
        if pressed.get("do") == "discard":
            return {}, no_update
        if pressed.get("do") == "review":
            return no_update, True
        left = {k: v for k, v in staged.items() if k != pressed.get("knob")}
        return left, no_update if left else False

    @app.callback(
        Output("tracked", "data", allow_duplicate=True),
        Output("knobs-staged", "data", allow_duplicate=True),
        Output("knob-review-dialog", "is_open", allow_duplicate=True),
        Input("review-apply", "n_clicks"),
        State("knobs-staged", "data"),
        State("tracked", "data"),
        prevent_initial_call=True,
    )
    def apply(clicks: int | None, staged: Mapping[str, Any], tracked: list[Any]) -> Any:
        if not clicks or not staged:
            raise PreventUpdate
        command_id, reason = services.request(CommandKind.SET_KNOBS.value, {"knobs": staged})
        kept = staged if command_id is None else {}
        return track(tracked, command_id, reason), kept, False
