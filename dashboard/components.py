"""The pieces that all pages are built of. Text from the store is only ever a text child."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dash_bootstrap_components as dbc
from dash import dcc, html
from dash.development.base_component import Component

from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState, CommandKind, CommandState, SafetyAction, Verdict
from backend.domain.records import KnobStatusRecord
from dashboard import format as fmt
from dashboard.auth.identity import LOOKS_ONLY, looks_only
from dashboard.figures import Figure

Children = Any
GRAPH_CONFIG: Mapping[str, Any] = {
    "displaylogo": False,
    "displayModeBar": False,
    "responsive": True,
    "scrollZoom": False,
    "doubleClick": "reset",
    "showTips": False,
    "plotlyServerURL": "",
}


def icon(name: str, class_name: str = "") -> Component:
    """A Bootstrap icon, drawn in the text's colour."""
    return html.I(
        className=f"icon {class_name}".strip(),
        **{"aria-hidden": "true"},
        style={"--icon": f"url(/vendor/icons/{name}.svg)"},
    )


def graph(component_id: str, height: int, label: str) -> Component:
    """An empty graph of fixed height; the page's tick fills it."""
    return html.Div(
        dcc.Graph(
            id=component_id,
            config=dict(GRAPH_CONFIG),
            style={"height": f"{height}px"},
            figure=blank_figure(),
            responsive=True,
        ),
        className="graph",
        role="img",
        **{"aria-label": label},
    )


def blank_figure() -> Figure:
    """A figure with nothing in it, transparent, for the first moment."""
    return {
        "data": [],
        "layout": {
            "xaxis": {"visible": False},
            "yaxis": {"visible": False},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
        },
    }


def hint(component_id: str, text: str) -> Component:
    """A small question mark that explains a number on hover, focus or tap."""
    return html.Span(
        [
            html.Button(
                icon("question-circle"),
                id=component_id,
                className="hint",
                type="button",
                **{"aria-label": f"What this means: {text}"},
            ),
            dbc.Tooltip(
                text,
                target=component_id,
                trigger="hover focus",
                placement="auto",
                delay={"show": 80, "hide": 0},
                fade=False,
            ),
        ]
    )


def card(
    title: str,
    body: Children,
    *,
    hint_id: str | None = None,
    hint_text: str = "",
    actions: Children = None,
    class_name: str = "",
    subtitle: Children = None,
) -> Component:
    """A titled card."""
    heading = [html.H2(title), hint(hint_id, hint_text) if hint_id else None]
    return html.Section(
        [
            html.Header(
                [
                    html.Div(heading, className="card-heading"),
                    html.Div(subtitle, className="card-subtitle") if subtitle is not None else None,
                    html.Div(actions, className="card-actions") if actions is not None else None,
                ],
                className="card-head",
            ),
            html.Div(body, className="card-content"),
        ],
        className=f"panel {class_name}".strip(),
        **{"aria-label": title},
    )


def page_head(title: str, lead: str, actions: Children = None) -> Component:
    """A page's title, one line of what it is for, and its buttons."""
    return html.Div(
        [
            html.Div([html.H1(title), html.P(lead)]),
            html.Div(actions, className="page-actions") if actions is not None else None,
        ],
        className="page-head",
    )


def empty(title: str, text: str, icon_name: str = "hourglass-split") -> Component:
    """What will appear here, and when."""
    return html.Div(
        [
            icon(icon_name, "empty-icon"),
            html.Div(title, className="empty-title"),
            html.Div(text, className="empty-text"),
        ],
        className="empty",
    )


def skeleton(lines: int = 3) -> Component:
    """Grey bars while the first answer is on its way."""
    return html.Div(
        [html.Div(className=f"skeleton w{i % 3}") for i in range(lines)],
        **{"aria-label": "loading", "role": "status"},
    )


def select(
    component_id: str, label: str, options: Sequence[Mapping[str, str]], value: str
) -> Component:
    """A small list to choose from; its label is for screen readers alone."""
    return html.Div(
        [
            html.Label(label, htmlFor=component_id, className="visually-hidden"),
            dbc.Select(id=component_id, options=[dict(o) for o in options], value=value, size="sm"),
        ]
    )


def progress_bar(share: float, label: str, class_name: str = "") -> Component:
    """A bar that fills up as ``share`` goes from 0 to 1."""
    percent = 100 * min(max(share, 0.0), 1.0)
    return html.Div(
        html.Div(className="bar-fill", style={"width": f"{percent:.0f}%"}),
        className=f"bar {class_name}".strip(),
        role="progressbar",
        **{
            "aria-label": label,
            "aria-valuenow": f"{percent:.0f}",
            "aria-valuemin": "0",
            "aria-valuemax": "100",
        },
    )


def badge(
    text: str, tone: str = "neutral", icon_name: str | None = None, title: str = ""
) -> Component:
    """A small word in a tinted box; tones: neutral, good, bad, warn, info, accent."""
    return html.Span(
        [icon(icon_name) if icon_name else None, text], className=f"tag tag-{tone}", title=title
    )


VERDICT_TONES: Mapping[Verdict, tuple[str, str]] = {
    Verdict.ACCEPT: ("good", "check-lg"),
    Verdict.REJECT: ("bad", "x-lg"),
    Verdict.INCONCLUSIVE: ("neutral", "question-lg"),
    Verdict.ABORTED: ("warn", "slash-circle"),
}
SAFETY_TONES: Mapping[SafetyAction, tuple[str, str, str]] = {
    SafetyAction.ALLOW: ("good", "shield-check", "safe"),
    SafetyAction.BLOCK: ("warn", "shield-exclamation", "blocked"),
    SafetyAction.ROLLBACK: ("bad", "shield-x", "rolling back"),
}
CHANGE_TONES: Mapping[ChangeState, str] = {
    ChangeState.PENDING: "info",
    ChangeState.APPLIED: "accent",
    ChangeState.KEPT: "good",
    ChangeState.ROLLED_BACK: "neutral",
    ChangeState.CONFLICT: "warn",
    ChangeState.FAILED: "bad",
    ChangeState.LEFT_BEHIND: "bad",
}
COMMAND_TONES: Mapping[CommandState, tuple[str, str]] = {
    CommandState.QUEUED: ("info", "hourglass-split"),
    CommandState.RUNNING: ("info", "arrow-repeat"),
    CommandState.DONE: ("good", "check-circle"),
    CommandState.REFUSED: ("bad", "x-octagon"),
}


def verdict_badge(verdict: Verdict | None, running: str = "running") -> Component:
    """A trial's verdict."""
    if verdict is None:
        return badge(running, "info", "arrow-repeat")
    tone, icon_name = VERDICT_TONES[verdict]
    return badge(verdict.value, tone, icon_name)


def _diff_row(
    name: str, old: KnobValue | None, new: KnobValue | None, unit: str | None
) -> Component:
    before, after = fmt.knob_change(old, new, unit, none="server's own")
    return html.Div(
        [
            html.Code(name, className="knob-name"),
            html.Span(
                [
                    html.Span(before, className="value-old"),
                    icon("arrow-right", "arrow"),
                    html.Span(after, className="value-new"),
                ],
                className="values",
            ),
        ],
        className="diff-row",
    )


def knob_diff(
    before: Mapping[str, KnobValue | None],
    after: Mapping[str, KnobValue | None],
    statuses: Mapping[str, KnobStatusRecord],
    *,
    most: int | None = None,
) -> Component:
    """One line a knob: name, before → after, in units for people; ``most``, the rest folded."""
    rows = [
        _diff_row(
            name, before.get(name), after[name], statuses[name].unit if name in statuses else None
        )
        for name in after
    ]
    if most is not None and len(rows) > most + 1:
        rest = html.Details(
            [html.Summary(f"and {len(rows) - most} more"), *rows[most:]], className="more"
        )
        rows = [*rows[:most], rest]
    return html.Div(rows, className="diff")


def command_id(
    kind: CommandKind, payload: Mapping[str, Any], place: str, confirm: str = ""
) -> dict[str, str]:
    """The id of a button that queues a command."""
    return {
        "type": "command",
        "kind": kind.value,
        "place": place,
        "payload": json.dumps(dict(payload), sort_keys=True),
        "confirm": confirm,
    }


def command_button(
    kind: CommandKind,
    payload: Mapping[str, Any],
    label: str,
    *,
    place: str,
    icon_name: str | None = None,
    confirm: str = "",
    look: str = "outline-secondary",
    disabled: bool = False,
    title: str = "",
    small: bool = True,
) -> Component:
    """A button that queues a command at once, or after ``confirm`` was agreed to.

    ``place`` keeps ids apart where one command has several buttons. What the browser sends back
    is checked like any other request. To a viewer it is shown disabled.
    """
    locked = looks_only()
    return dbc.Button(
        [icon(icon_name) if icon_name else None, label],
        id=command_id(kind, payload, place, confirm),
        color=look.removeprefix("outline-"),
        outline=look.startswith("outline-"),
        size="sm" if small else None,
        disabled=disabled or locked,
        title=LOOKS_ONLY if locked else title,
        className="action",
    )


def choice_button(
    kind: CommandKind,
    payload: Mapping[str, Any],
    label: str,
    *,
    place: str,
    chosen: bool,
    disabled: bool = False,
    why: str = "",
    confirm: str = "",
) -> Component:
    """One button of a switch; like a command button, and tells whether it is what is chosen.

    ``why`` says what it does, or why it cannot be pressed. To a viewer it is shown disabled.
    """
    if looks_only():
        disabled, why = True, LOOKS_ONLY
    button = html.Button(
        label,
        id=command_id(kind, payload, place, confirm),
        type="button",
        className="switch-button",
        disabled=disabled or chosen,
        **{
            "aria-pressed": "true" if chosen else "false",
            "aria-label": f"{label}: {why}" if why else label,
        },
    )
    return html.Span(button, title=why)


def facts(rows: Sequence[tuple[str, Children]]) -> Component:
    """Terms and their values."""
    return html.Dl(
        [x for term, value in rows for x in (html.Dt(term), html.Dd(value))], className="facts"
    )


def table(
    head: Sequence[Children],
    rows: Sequence[Sequence[Children]],
    class_name: str = "",
    labels: bool = True,
) -> Component:
    """A table that becomes a list of cards on a phone (each cell knows its column's name)."""
    names = [h if isinstance(h, str) else "" for h in head]
    return html.Div(
        html.Table(
            [
                html.Thead(html.Tr([html.Th(h, scope="col") for h in head])),
                html.Tbody(
                    [
                        html.Tr(
                            [
                                html.Td(cell, **({"data-label": names[i]} if labels else {}))
                                for i, cell in enumerate(row)
                            ]
                        )
                        for row in rows
                    ]
                ),
            ],
            className=f"data {class_name}".strip(),
        ),
        className="table-box",
    )
