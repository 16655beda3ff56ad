"""The switch of a query class (auto, pin, off) and what became of pressing it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from dash import html
from dash.development.base_component import Component

from backend.domain.modes import CommandKind, CommandState
from backend.domain.records import CommandRecord
from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringMode, SteeringState
from dashboard import components as ui
from dashboard.live import View

ANSWER_STAYS = timedelta(minutes=5)
NO_EVIDENCE = "needs a hint set that was proven faster"
MEANINGS: Mapping[SteeringMode, str] = {
    SteeringMode.AUTO: "steered while its evidence stands and the autopilot is in mode auto",
    SteeringMode.PIN: "always steered, in every mode of the autopilot, until you change it",
    SteeringMode.OFF: "never steered",
}


def newest_commands(view: View) -> dict[ClassKey, CommandRecord]:
    """The newest command of each class that was given one."""
    return {
        ClassKey(c.payload["fingerprint"], c.payload["search_path"]): c
        for c in view.reader.commands()
        if c.kind is CommandKind.STEER
    }


def switch(record: SteeredClassRecord, command: CommandRecord | None, place: str) -> Component:
    """Auto, pin or off; pressing one queues a command, for pin after a confirmation."""
    waits = command is not None and command.state in (CommandState.QUEUED, CommandState.RUNNING)

    def button(wanted: SteeringMode) -> Component:
        proven = wanted is not SteeringMode.PIN or record.evidence is not None
        return ui.choice_button(
            CommandKind.STEER,
            {
                "fingerprint": record.key.fingerprint,
                "search_path": record.key.search_path,
                "mode": wanted.value,
            },
            wanted.value,
            place=place,
            chosen=wanted is record.mode,
            disabled=waits or not proven,
            why=MEANINGS[wanted] if proven else NO_EVIDENCE,
            confirm=_confirmation(record) if wanted is SteeringMode.PIN else "",
        )

    return html.Div(
        [button(mode) for mode in SteeringMode],
        className="switch",
        role="group",
        **{"aria-label": "Steering of this class"},
    )


def _confirmation(record: SteeredClassRecord) -> str:
    why = f" It was withdrawn: {record.reason}."
    return (
        "Pin this class? All of its executions are then steered, even when the autopilot is not in "
        "mode auto, and its hint set is not withdrawn when it stops paying. This stays until you "
        "choose auto or off." + (why if record.state is SteeringState.WITHDRAWN else "")
    )


def answer(command: CommandRecord | None, view: View) -> Component | None:
    """What became of the newest command for a class, while it is new."""
    if command is None or command.state is CommandState.DONE:
        return None
    since = command.finished_at or command.created_at
    if command.state is CommandState.REFUSED and view.now - since > ANSWER_STAYS:
        return None
    tone, icon_name = ui.COMMAND_TONES[command.state]
    return html.Div(
        [
            ui.badge(f"{command.payload['mode']}: {command.state.value}", tone, icon_name),
            html.Div(command.result, className="small"),
        ],
        className="switch-answer",
    )
