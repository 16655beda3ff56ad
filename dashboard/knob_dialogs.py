"""What is seen where a knob is changed by hand: the editor, the check, the review, the bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_bootstrap_components as dbc
from dash import html
from dash.development.base_component import Component

from backend.domain.knobs import KnobValue
from backend.domain.records import KnobStatusRecord
from backend.errors import AutopilotError
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.auth.identity import looks_only
from dashboard.operator_commands import check_knobs

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
