"""The shell's callbacks: thin, they ask the services and hand records to the layouts."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import dash
from dash import ALL, ClientsideFunction, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate

from backend.domain.modes import CommandState
from backend.domain.records import CommandRecord
from backend.errors import AutopilotError
from dashboard import components as ui
from dashboard import layouts
from dashboard.format import Viewer
from dashboard.layouts_controls import controls, is_frozen
from dashboard.live import digest, live_frame
from dashboard.operator_commands import takes_reason, track
from dashboard.pages import PAGES
from dashboard.services import Services

NOTE_STAYS_S = 8.0


def register(app: dash.Dash, services: Services) -> None:
    """Register everything that belongs to no page."""
    _clientside(app)
    _routing(app, services)
    _status(app, services)
    _commands(app, services)


def _clientside(app: dash.Dash) -> None:
    def client(name: str, *arguments: Any, **options: Any) -> None:
        app.clientside_callback(ClientsideFunction("autopilot", name), *arguments, **options)

    client(
        "viewer",
        Output("viewer", "data"),
        Input("url", "pathname"),
        Input("theme-toggle", "n_clicks"),
        Input("watch-tick", "n_intervals"),
        State("viewer", "data"),
    )
    client(
        "offline",
        Output("offline", "hidden"),
        Input("watch-tick", "n_intervals"),
        Input("alive", "data"),
        State("shell-tick", "interval"),
    )
    client(
        "toggle",
        Output("controls", "is_open"),
        Input("controls-open", "n_clicks"),
        State("controls", "is_open"),
        prevent_initial_call=True,
    )


def _routing(app: dash.Dash, services: Services) -> None:
    frames = {page.path: page for page in PAGES}

    @app.callback(Output("content", "children"), Input("url", "pathname"))
    def show(path: str | None) -> Any:
        page = frames.get((path or "/").rstrip("/") or "/")
        if page is None:
            return ui.empty("No such page", "Choose a page in the navigation.", "signpost")
        return live_frame(page, services)


def _status(app: dash.Dash, services: Services) -> None:
    parts = ("shell-chips", "shell-banner", "shell-controls", "shell-footer")

    @app.callback(
        *(Output(part, "children") for part in parts),
        Output("shell-held", "data"),
        Output("alive", "data"),
        Input("shell-tick", "n_intervals"),
        Input("viewer", "data"),
        Input("command-tick", "n_intervals"),
        State("shell-held", "data"),
    )
    def refresh(
        ticks: int, browser: object, _commands: int, held: dict[str, str] | None
    ) -> list[Any]:
        viewer = Viewer.from_browser(browser)
        held = held or {}
        values: dict[str, Any] = {}
        try:
            status, freeze = services.reader.status(), services.reader.freeze()
        except AutopilotError as error:
            values["shell-banner"] = layouts.store_banner(str(error))
        else:
            silent = status is not None and services.tuner_is_silent(status)
            values = {
                "shell-chips": layouts.chips(status, silent, freeze),
                "shell-banner": layouts.banners(status, silent, viewer, freeze),
                "shell-controls": controls(status, "dialog", is_frozen(status, freeze)),
                "shell-footer": layouts.footer(status, viewer),
            }
        marks = {**held, **{part: digest(value) for part, value in values.items()}}
        return [
            *(
                no_update if part not in values or held.get(part) == marks[part] else values[part]
                for part in parts
            ),
            no_update if marks == held else marks,
            ticks,
        ]


def _commands(app: dash.Dash, services: Services) -> None:
    @app.callback(
        Output("tracked", "data", allow_duplicate=True),
        Output("to-confirm", "data"),
        Output("confirm-text", "children"),
        Output("confirm", "is_open", allow_duplicate=True),
        Output("confirm-why", "hidden"),
        Output("confirm-reason", "value"),
        Input(
            {"type": "command", "kind": ALL, "place": ALL, "payload": ALL, "confirm": ALL},
            "n_clicks",
        ),
        State("tracked", "data"),
        prevent_initial_call=True,
    )
    def pressed(_clicks: list[int | None], tracked: list[Any]) -> Any:
        button = ctx.triggered_id
        if not button or not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        request = {"kind": button["kind"], "payload": json.loads(button["payload"])}
        if button["confirm"]:
            return no_update, request, button["confirm"], True, not takes_reason(button["kind"]), ""
        queued = track(tracked, *services.request(**request))
        return queued, *[no_update] * 5

    @app.callback(
        Output("tracked", "data", allow_duplicate=True),
        Output("confirm", "is_open", allow_duplicate=True),
        Output("controls", "is_open", allow_duplicate=True),
        Input("confirm-yes", "n_clicks"),
        Input("confirm-no", "n_clicks"),
        State("to-confirm", "data"),
        State("confirm-reason", "value"),
        State("tracked", "data"),
        prevent_initial_call=True,
    )
    def confirmed(
        _yes: int, _no: int, request: dict[str, Any] | None, reason: object, tracked: list[Any]
    ) -> Any:
        if ctx.triggered_id != "confirm-yes" or not request:
            return no_update, False, no_update
        if reason and takes_reason(request["kind"]):
            request = {**request, "payload": {"reason": reason}}
        return track(tracked, *services.request(**request)), False, False

    @app.callback(
        Output("tracked", "data", allow_duplicate=True),
        Input({"type": "dismiss", "command": ALL}, "n_clicks"),
        State("tracked", "data"),
        prevent_initial_call=True,
    )
    def dismissed(_clicks: list[int | None], tracked: list[Any]) -> Any:
        if not ctx.triggered_id or not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        gone = ctx.triggered_id["command"]
        return [t for t in tracked if t["id"] != gone]

    @app.callback(
        Output("command-notes", "children"),
        Output("command-tick", "disabled"),
        Input("tracked", "data"),
        Input("command-tick", "n_intervals"),
    )
    def notes(tracked: list[dict[str, Any]] | None, _tick: int) -> Any:
        shown, waiting = [], False
        for item in tracked or []:
            if "error" in item:
                shown.append(layouts.refusal_note(item["id"], item["error"]))
                continue
            try:
                command = services.command(item["id"])
            except AutopilotError as error:
                shown.append(layouts.refusal_note(item["id"], str(error)))
                waiting = True
                continue
            if command is None or _is_over(command):
                continue
            # Goes on until the last note of success has left by itself; refusals stay.
            waiting = waiting or command.state is not CommandState.REFUSED
            shown.append(layouts.command_note(command))
        return shown, not waiting


def _is_over(command: CommandRecord) -> bool:
    if command.state is not CommandState.DONE or command.finished_at is None:
        return False
    return (datetime.now(timezone.utc) - command.finished_at).total_seconds() > NOTE_STAYS_S
