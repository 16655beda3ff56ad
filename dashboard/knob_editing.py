"""Changing knobs by hand: choose → type → check → review the diff → confirm → see it happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash
from dash import ALL, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate

from backend.domain.modes import CommandKind
from backend.domain.records import KnobStatusRecord
from backend.errors import AutopilotError
from dashboard.auth.identity import LOOKS_ONLY, looks_only
from dashboard.knob_dialogs import check_text, editor_body, review_body, staged_bar
from dashboard.operator_commands import track
from dashboard.services import Services


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
