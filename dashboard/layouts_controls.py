"""The operator's controls: mode, pause, freeze."""

from __future__ import annotations

from collections.abc import Mapping

from dash import html
from dash.development.base_component import Component

from backend.domain.modes import CommandKind, Mode
from backend.domain.records import FreezeRecord, StatusRecord
from dashboard import components as ui

MODES: Mapping[Mode, str] = {
    Mode.OBSERVE: "Only watches; proposes and changes nothing.",
    Mode.ADVISE: "Proposes changes; tries and changes nothing.",
    Mode.APPROVE: "Tries what is inside an experiment plan that you approved; keeps a change only "
    "after you approved it.",
    Mode.AUTO: "Tries, proves and keeps changes by itself; undoes what does not help.",
}


def is_frozen(status: StatusRecord | None, freeze: FreezeRecord | None) -> bool:
    """Whether the freeze switch is on, which may be thrown while no tuner tells of it."""
    return freeze.frozen if freeze is not None else status is not None and status.frozen


def controls(status: StatusRecord | None, place: str, frozen: bool) -> Component:
    """Buttons for mode, pause and freeze; ``place`` keeps the ids of two copies apart."""
    if status is None:
        return ui.empty("Not yet", "The tuner has to be running first.")
    modes = [
        html.Div(
            [
                html.Div([html.B(mode.value), html.Div(meaning, className="quiet")]),
                ui.badge("now", "accent", "check-lg")
                if mode is status.mode
                else ui.command_button(
                    CommandKind.SET_MODE,
                    {"mode": mode.value},
                    "Switch",
                    place=place,
                    confirm=f"Switch the tuner from {status.mode.value} to {mode.value}? {meaning}",
                ),
            ],
            className="choice",
        )
        for mode, meaning in MODES.items()
    ]
    pause = (
        ui.command_button(
            CommandKind.RESUME, {}, "Resume", place=place, look="primary", icon_name="play-fill"
        )
        if status.paused
        else ui.command_button(CommandKind.PAUSE, {}, "Pause", place=place, icon_name="pause-fill")
    )
    freeze = (
        ui.command_button(
            CommandKind.UNFREEZE,
            {},
            "Unfreeze",
            place=place,
            look="primary",
            icon_name="sun",
            confirm="Let the tuner change the server again?",
        )
        if frozen
        else ui.command_button(
            CommandKind.FREEZE,
            {},
            "Freeze",
            place=place,
            look="outline-danger",
            icon_name="snow",
            confirm="Freeze the server's configuration? A running trial is rolled "
            "back, and nothing is changed until you unfreeze.",
        )
    )
    return html.Div(
        [
            html.H3("Mode"),
            *modes,
            html.H3("Pause"),
            html.Div(
                [html.Div("Starts no new trial; measuring goes on.", className="quiet"), pause],
                className="choice",
            ),
            html.H3("Freeze"),
            html.Div(
                [html.Div("Stops every change except rollback.", className="quiet"), freeze],
                className="choice",
            ),
        ]
    )
