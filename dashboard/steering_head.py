"""What query steering does now, what it may cost, and what came of it, in one strip."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from backend.domain.modes import Mode
from backend.domain.steering import SteeredClassRecord, SteeringStatusRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.live import View
from dashboard.steering_numbers import SavedTime, class_counts


def head(view: View) -> object:
    """Whether exploration goes on, what it does and costs, and what came of it."""
    classes, mode = view.reader.steered_classes(), view.mode
    status = view.reader.steering_status()
    if status is None and not classes:
        return ui.empty(
            "Nothing is known of query steering yet",
            "What it does appears here as soon as the tuner runs.",
            "signpost-split",
        )
    counts = class_counts(classes, status)
    numbers = [
        _number("Known", counts.known, "classes"),
        _number("Explored", counts.explored, "plans compared"),
        _number("Steered", counts.steered, _steered_note(classes, counts.steered, mode)),
        _number("Withdrawn", counts.withdrawn, "no longer paid"),
        *_saved(view.in_service().saved),
    ]
    return html.Div(
        [
            _activity(status, mode),
            html.Div(numbers, className="steering-numbers") if classes else None,
        ],
        className="steering-head" if classes else None,
    )


def _steered_note(classes: Sequence[SteeredClassRecord], steered: int, mode: Mode | None) -> str:
    """Fewer than may be steered are, for instance, while the server is frozen."""
    may_be = sum(mode is not None and r.is_served(mode) for r in classes)
    return f"now, of {may_be}" if may_be > steered else "now"


def _saved(saved: SavedTime | None) -> list[Component]:
    if saved is None:
        return []
    return [
        _number(
            "Saved an hour",
            fmt.duration_text(saved.estimate_s),
            f"at least {fmt.duration_text(saved.at_least_s)}",
            "Time that clients waited less, by the executions that still ran the default plan; "
            f"mean over the last {fmt.duration_text(saved.lasted_s)}",
        )
    ]


def _number(label: str, value: int | str, note: str, title: str = "") -> Component:
    return html.Div(
        [
            html.Div(label, className="tile-label"),
            html.Div(str(value), className="tile-value"),
            html.Div(note, className="tile-note"),
        ],
        title=title,
    )


def _activity(status: SteeringStatusRecord | None, mode: Mode | None) -> Component:
    if status is None:
        tone, icon_name, word, text = "neutral", "hourglass-split", "Starting", ""
    elif not status.enabled:
        tone, icon_name, word, text = "neutral", "power", "Exploration is off", status.hindrance
    elif status.hindrance:
        tone, icon_name, word, text = "neutral", "pause-circle", "Resting", status.hindrance
    elif not status.activity:
        tone, icon_name, word = "neutral", "hourglass-split", "Waiting for its turn"
        text = "meanwhile the tuner tries knobs"
    else:
        tone, icon_name, word, text = "good", "compass", "Exploring", status.activity
    return html.Div(
        [
            html.Div(
                [
                    ui.icon(icon_name),
                    html.Div([html.Div(word, className="state-word"), html.Div(text)]),
                ],
                className=f"state state-{tone}",
            ),
            _cost(status) if status is not None and status.enabled else None,
            html.P(how_to_turn_on(), className="quiet")
            if status is not None and not status.enabled
            else None,
            html.P(f"In mode {mode.value} nothing is steered but what you pin.", className="quiet")
            if mode not in (None, Mode.AUTO)
            else None,
        ]
    )


def _cost(status: SteeringStatusRecord) -> Component:
    spent = status.spent_s / status.elapsed_s if status.elapsed_s else 0.0
    place = f"the {status.where}" if status.where in ("primary", "stand-by") else status.where
    return html.Div(
        [
            ui.progress_bar(
                spent / status.share if status.share else 0.0, "share of the time used", "slim"
            ),
            html.Div(
                [
                    f"{fmt.duration_text(status.spent_s)} of {fmt.duration_text(status.elapsed_s)} "
                    f"spent, {fmt.percent(spent)} of at most {fmt.percent(status.share, digits=0)} "
                    f"on {place}",
                    ", as " if status.role else "",
                    html.Code(status.role),
                ],
                className="small",
            ),
        ],
        className="steering-cost",
    )


def how_to_turn_on() -> list[ui.Children]:
    """How exploration is turned on."""
    return [
        "Turn it on with ",
        html.Code("steering.explore: true"),
        " in config.yaml. On a server of your own, give it a role that may only read, best on a "
        "stand-by: ",
        html.Code("steering.dsn"),
        ". What was proven before is steered all the same.",
    ]
