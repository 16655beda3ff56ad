"""Knobs: every setting that may be written, as it stands; change one by hand, undo it, history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import dash_ag_grid as dag
import dash_bootstrap_components as dbc
from dash import dcc, html
from dash.development.base_component import Component

from backend.domain.modes import ChangeState, CommandKind, CommandState
from backend.domain.records import ChangeRecord, CommandRecord, KnobStatusRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard import knob_dialogs, knob_editing
from dashboard.live import Page, View

MOST_BATCHES = 40
UNDOABLE = (ChangeState.APPLIED, ChangeState.KEPT)


def is_changed(knob: KnobStatusRecord) -> bool:
    """Whether somebody set the knob to something else than its default.

    What the server worked out by itself (``wal_buffers`` from ``shared_buffers``) was not set.
    """
    return knob.value != knob.default and knob.source not in ("default", "override")


def grid_row(knob: KnobStatusRecord) -> dict[str, Any]:
    """One row of the grid: plain text and numbers only."""
    return {
        "name": knob.name,
        "value": fmt.knob_value(knob.value, knob.unit) + (" *" if knob.pending_restart else ""),
        "default": fmt.knob_value(knob.default, knob.unit),
        "unit": knob.unit or fmt.NONE,
        "bounds": knob_dialogs.bounds_text(knob),
        "context": knob.context,
        "risk": knob.risk,
        "group": knob.group,
        "description": knob.description,
        "changed": is_changed(knob),
        "writable": knob.writable,
    }


def rows(view: View) -> list[dict[str, Any]]:
    """The rows that the search and the switch let through."""
    search = str(view.choices.get("knobs-search") or "").lower().split()
    only_changed = bool(view.choices.get("knobs-changed"))
    built = [grid_row(k) for k in view.reader.knob_statuses()]
    return [
        row
        for row in built
        if (row["changed"] or not only_changed)
        and all(
            word in f"{row['name']} {row['group']} {row['description']}".lower() for word in search
        )
    ]


def columns(view: View) -> list[dict[str, Any]]:
    """The grid's columns; a phone gets the two that matter, the rest is in the panel."""
    name = {"field": "name", "headerName": "Knob", "cellClass": "cell-name"}
    # Text with units: "4 MB" would be sorted after "128 MB".
    value = {
        "field": "value", "headerName": "Value", "cellClass": "cell-value", "sortable": False,
    }  # fmt: skip
    if view.viewer.narrow:
        return [{**name, "flex": 1, "minWidth": 150}, {**value, "width": 96}]
    return [
        {**name, "width": 216, "pinned": "left", "tooltipField": "name"},
        {**value, "width": 94},
        {"field": "default", "headerName": "Default", "width": 92, "sortable": False},
        {"field": "unit", "headerName": "Unit", "width": 62},
        {
            "field": "bounds",
            "headerName": "Bounds",
            "width": 158,
            "tooltipField": "bounds",
            "sortable": False,
        },
        {
            "field": "context",
            "headerName": "Takes",
            "width": 82,
            "headerTooltip": "session and reload: at once; restart: after a restart of the server",
        },
        {"field": "risk", "headerName": "Risk", "width": 80},
        {
            "field": "description",
            "headerName": "Meaning",
            "flex": 1,
            "minWidth": 210,
            "tooltipField": "description",
        },
    ]


def summary(view: View) -> object:
    """How many knobs there are and how many differ."""
    knobs = view.reader.knob_statuses()
    if not knobs:
        return "The knobs appear when the tuner has read them from the server."
    changed = sum(map(is_changed, knobs))
    pending = sum(k.pending_restart for k in knobs)
    tail = f"; * {pending} wait for a restart" if pending else ""
    return f"{len(knobs)} knobs, {changed} not at the default{tail}. Choose one to change it."


def batches(changes: Sequence[ChangeRecord]) -> list[list[ChangeRecord]]:
    """Changes that were made together, newest first."""
    grouped: dict[str, list[ChangeRecord]] = {}
    for change in changes:
        grouped.setdefault(change.batch_id, []).append(change)
    return list(reversed(grouped.values()))


def _states(batch: Iterable[ChangeRecord]) -> Component:
    states = dict.fromkeys(c.state for c in batch)
    return html.Div([ui.badge(s.value, ui.CHANGE_TONES[s]) for s in states], className="tags")


def history(view: View) -> object:
    """Each batch of changes with who, what, state, and a button that undoes it."""
    changes = view.reader.changes()
    if not changes:
        return ui.empty(
            "Nothing was changed yet",
            "Every change by the tuner or by hand is listed here before it is made.",
            "clock-history",
        )
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    body = []
    for batch in batches(changes)[:MOST_BATCHES]:
        first = batch[0]
        undo = any(c.state in UNDOABLE for c in batch)
        details = "; ".join(dict.fromkeys(c.detail for c in batch if c.detail))
        body.append(
            [
                html.Span(
                    view.viewer.time(first.created_at, now=view.now),
                    title=first.created_at.isoformat(),
                ),
                html.Div(
                    [
                        html.Div(first.actor, className="strong"),
                        html.Div(
                            f"trial {first.trial_id}" if first.trial_id else "", className="small"
                        ),
                    ]
                ),
                ui.knob_diff(
                    {c.knob: c.before_value for c in batch},
                    {c.knob: c.after_value for c in batch},
                    statuses,
                    most=4,
                ),
                html.Div([_states(batch), html.Div(details, className="small")]),
                ui.command_button(
                    CommandKind.ROLL_BACK,
                    {"batch_id": first.batch_id},
                    "Undo",
                    place="history",
                    icon_name="arrow-counterclockwise",
                    title="Put back what stood before this change",
                )
                if undo
                else "",
            ]
        )
    return ui.table(["When", "Who", "Change", "State", ""], body, "history")


def _effect_rows(
    command: CommandRecord, knobs: dict[str, KnobStatusRecord], undone: bool
) -> list[Component]:
    lines = []
    for name, wanted in command.payload["knobs"].items():
        knob = knobs.get(name)
        unit = knob.unit if knob else None
        now = fmt.knob_value(knob.value if knob else None, unit)
        if undone:
            mark = ui.badge(f"undone, now {now}", "neutral", "arrow-counterclockwise")
        elif command.state is CommandState.REFUSED:
            mark = ui.badge(f"not changed, still {now}", "neutral")
        elif knob is not None and knob.value == wanted:
            mark = ui.badge("on the server", "good", "check-lg")
        elif knob is not None and knob.pending_restart:
            mark = ui.badge("waits for a restart", "warn", "hourglass-split")
        else:
            mark = ui.badge(f"now {now}", "info", "arrow-repeat")
        lines.append(
            html.Div(
                [
                    html.Code(name, className="knob-name"),
                    html.Span([html.B(fmt.knob_value(wanted, unit)), mark], className="values"),
                ],
                className="diff-row",
            )
        )
    return lines


def batch_of(command: CommandRecord, changes: Sequence[ChangeRecord]) -> list[ChangeRecord]:
    """The journalled changes that a command to set knobs made (an undo is a batch of its own)."""
    wanted = command.payload["knobs"]
    first = next(
        (
            c
            for c in changes
            if c.created_at >= command.created_at
            and c.actor == command.actor
            and c.knob in wanted
            and c.after_value == wanted[c.knob]
        ),
        None,
    )
    return [c for c in changes if first is not None and c.batch_id == first.batch_id]


def last_change(view: View) -> object:
    """What became of the newest change that was made by hand."""
    command = next(
        (c for c in reversed(view.reader.commands()) if c.kind is CommandKind.SET_KNOBS), None
    )
    if command is None:
        return None
    knobs = {k.name: k for k in view.reader.knob_statuses()}
    batch = batch_of(command, view.reader.changes())
    undone = any(c.state is ChangeState.ROLLED_BACK for c in batch)
    tone, icon_name = ui.COMMAND_TONES[command.state]
    undo = (
        ui.command_button(
            CommandKind.ROLL_BACK,
            {"batch_id": batch[0].batch_id},
            "Undo",
            place="last",
            icon_name="arrow-counterclockwise",
        )
        if any(c.state in UNDOABLE for c in batch) and not undone
        else None
    )
    return ui.card(
        "Last change by hand",
        [
            html.Div(_effect_rows(command, knobs, undone), className="diff"),
            html.P(command.result, className="quiet") if command.result else None,
        ],
        subtitle=html.Span(
            [
                ui.badge(command.state.value, tone, icon_name),
                " ",
                view.viewer.time(command.created_at, now=view.now),
                " by ",
                command.actor,
            ]
        ),
        actions=undo,
        class_name="last-change",
    )


def frame() -> Component:
    """The page without its numbers."""
    return html.Div(
        [
            ui.page_head(
                "Knobs",
                "Every setting that may be written, as it stands on the server now.",
                ui.command_button(
                    CommandKind.ROLL_BACK,
                    {},
                    "Roll back to the last good version",
                    place="knobs",
                    icon_name="arrow-counterclockwise",
                    confirm="Put the server's configuration back "
                    "to the last good version before the present one? This works in every mode.",
                ),
            ),
            html.Div(id="knobs-staged-bar"),
            html.Div(id="knobs-last"),
            ui.card(
                "Settings",
                [
                    html.Div(
                        [
                            html.Label(
                                "Search knobs", htmlFor="knobs-search", className="visually-hidden"
                            ),
                            dbc.Input(
                                id="knobs-search",
                                type="search",
                                debounce=False,
                                placeholder="Search by name, group or meaning",
                                maxlength=60,
                            ),
                            dbc.Switch(id="knobs-changed", label="Only changed", value=False),
                        ],
                        className="filters",
                    ),
                    dag.AgGrid(
                        id="knobs-grid",
                        rowData=[],
                        columnDefs=[],
                        getRowId="params.data.name",
                        defaultColDef={
                            "sortable": True,
                            "resizable": True,
                            "filter": False,
                            "suppressMovable": True,
                        },
                        dashGridOptions={
                            "rowSelection": {
                                "mode": "singleRow",
                                "checkboxes": False,
                                "enableClickSelection": True,
                            },
                            "rowHeight": 38,
                            "headerHeight": 36,
                            "tooltipShowDelay": 300,
                            "suppressCellFocus": False,
                            "animateRows": False,
                            "rowClassRules": {
                                "row-changed": "params.data.changed",
                                "row-locked": "!params.data.writable",
                            },
                        },
                        style={"height": "min(64vh, 700px)", "width": "100%"},
                        className="knob-grid",
                    ),
                ],
                hint_id="hint-grid",
                hint_text="Values are shown in the unit that reads best; the "
                "server's own unit is in the column Unit. Bold: not at the server's default. Only "
                "catalogued knobs can be written; durability, authentication and time-outs never.",
                subtitle=html.Span(id="knobs-summary"),
            ),
            ui.card(
                "History",
                html.Div(ui.skeleton(), id="knobs-history"),
                class_name="spaced",
                hint_id="hint-history",
                hint_text="The journal: every change is written here "
                "before it is made. Undo puts back what stood before, the absence of an entry "
                "included.",
            ),
            *knob_dialogs.dialogs(),
            dcc.Store(id="knobs-staged", data={}),
            dcc.Store(id="knobs-edited"),
        ]
    )


PAGE = Page(
    path="/knobs",
    title="Knobs",
    icon="sliders",
    frame=frame,
    follows_commands=True,
    parts={
        "knobs-summary.children": summary,
        "knobs-grid.columnDefs": columns,
        "knobs-grid.rowData": rows,
        "knobs-last.children": last_change,
        "knobs-history.children": history,
    },
    choices=(("knobs-search", "value"), ("knobs-changed", "value")),
    setup=knob_editing.register,
)
