"""Safety: what is watched, with which limits, and what happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dash import html
from dash.development.base_component import Component

from backend.domain.modes import Mode, Verdict
from backend.domain.records import HoursRecord, StatusRecord, WindowRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard import metric_names as names
from dashboard.decisions_undone import undone_table
from dashboard.layouts_controls import controls, is_frozen
from dashboard.live import Page, View

EVENTS = 200
MOST_SHOWN = 80
LEVEL_TONES = {
    "info": ("info", "info-circle"),
    "warning": ("warn", "exclamation-triangle"),
    "error": ("bad", "exclamation-octagon"),
}


@dataclass(frozen=True)
class Limit:
    """How a limit of the settings' section ``safety`` is shown.

    Args:
        label: its name on the page.
        write: its value for people.
        meaning: what happens when it is passed.
        present: the newest reading in the limit's unit, where windows have one.
        absolute: whether the reading itself is held against the limit.
    """

    label: str
    write: Callable[[Any], str]
    meaning: str
    present: Callable[[WindowRecord], float | None] | None = None
    absolute: bool = True


def _percent_value(value: Any) -> str:
    return fmt.quantity(float(value), "%")


LIMITS: Mapping[str, Limit] = {
    "cpu_limit_percent": Limit("CPU", _percent_value, "Above it nothing is tried.", names.CPU.read),
    "memory_limit_percent": Limit(
        "Memory of the host",
        _percent_value,
        "Above it nothing is tried and a candidate is undone.",
        names.MEMORY.read,
    ),
    "connections_limit_percent": Limit(
        "Connections",
        _percent_value,
        "Share of max_connections above which nothing is tried.",
        lambda w: (
            100 * w.gauges["connections_used_ratio"]
            if "connections_used_ratio" in w.gauges
            else None
        ),
    ),
    "max_error_rate": Limit(
        "Errors",
        lambda v: fmt.percent(float(v)),
        "So many more rolled back transactions than under the incumbent undo a candidate.",
        lambda w: w.gauges.get("rollback_ratio"),
        absolute=False,
    ),
    "rollback_threshold": Limit(
        "Regression",
        lambda v: fmt.percent(float(v), signed=True),
        "A candidate that is worse than the incumbent by more is undone at once.",
    ),
    "query_timeout": Limit(
        "Longest statement",
        lambda v: fmt.duration_text(float(v)),
        "A statement that runs longer under a candidate undoes it.",
    ),
    "memory_limit_gb": Limit(
        "Memory budget",
        lambda v: fmt.quantity(float(v), "GB"),
        "What the memory knobs together may add up to.",
    ),
    "max_consecutive_failures": Limit(
        "Failures in a row", str, "After so many failed trials or collections tuning rests."
    ),
    "max_changes_per_day": Limit(
        "Promotions a day", str, "The autopilot promotes no more; changes by hand do not count."
    ),
    "max_trials_per_day": Limit("Trials a day", str, "No more probes and promotions are begun."),
}
HIDDEN = frozenset({"enabled", "sandbox_enabled"})


def state(view: View) -> object:
    """The safety monitor's present verdict."""
    status = view.reader.status()
    if status is None:
        return ui.empty(
            "Not yet watched", "The safety monitor begins with the first window.", "shield"
        )
    tone, icon_name, word = ui.SAFETY_TONES[status.safety]
    texts = {
        "safe": "Every limit is kept."
        + (" In this mode nothing is tried." if status.mode in (Mode.OBSERVE, Mode.ADVISE) else ""),
        "blocked": "Nothing new is tried until this is over.",
        "rolling back": "A candidate is being undone.",
    }
    return html.Div(
        [
            html.Div(
                [
                    ui.icon(icon_name),
                    html.Div(
                        [
                            html.Div(word, className="state-word"),
                            html.Div(texts[word], className="small"),
                        ]
                    ),
                ],
                className=f"state state-{tone}",
            ),
            html.Ul([html.Li(reason) for reason in status.safety_reasons], className="reasons")
            if status.safety_reasons
            else None,
            ui.facts(
                [
                    ("Mode", status.mode.value),
                    ("Paused", "yes" if status.paused else "no"),
                    ("Frozen", _frozen_text(view)),
                    ("Trials", hours_text(status.trial_hours, view)),
                    ("Restarts", hours_text(status.restart_hours, view)),
                    ("Held up by", _held_up_by(status, view)),
                    (
                        "Trials undone or aborted",
                        str(status.trials_by_verdict.get(Verdict.ABORTED.value, 0)),
                    ),
                    ("Heartbeat", view.viewer.time(status.at, now=view.now)),
                    ("Epoch of the lease", str(status.epoch)),
                    ("Fault", status.fault or "none"),
                ]
            ),
        ]
    )


def _held_up_by(status: StatusRecord, view: View) -> str:
    """Why nothing new is tried, for people."""
    if _is_frozen(view):
        return "the freeze"
    if status.paused:
        return "the pause"
    return status.hindrance or "nothing"


def hours_text(record: HoursRecord | None, view: View) -> str:
    """Hours of the week, and when they next begin or are over; in the viewer's time."""
    if record is None or not record.hours:
        return "at any hour"
    texts = "; ".join(record.hours)
    if record.changes_at is None:
        return f"{texts}; {'now' if record.are_open else 'not soon'}"
    when = view.viewer.time(record.changes_at, now=view.now)
    return f"{texts}; {'now, until' if record.are_open else 'next from'} {when}"


def _is_frozen(view: View) -> bool:
    return is_frozen(view.reader.status(), view.reader.freeze())


def _frozen_text(view: View) -> str:
    freeze = view.reader.freeze()
    if not _is_frozen(view):
        return "no"
    if freeze is None:
        return "yes"
    why = f": {freeze.reason}" if freeze.reason else ""
    return f"by {freeze.actor}, {view.viewer.time(freeze.at, now=view.now)}{why}"


def limit_table(view: View) -> object:
    """Each limit with the newest reading."""
    status = view.reader.status()
    if status is None or not status.limits:
        return ui.empty(
            "No limits yet", "The limits in force appear when the tuner runs.", "speedometer"
        )
    windows = view.reader.windows(limit=1)
    rows = [
        row
        for name, value in status.limits.items()
        if (
            row := _limit_row(
                name, value, windows[-1] if windows else None, status.left_today.get(name)
            )
        )
        is not None
    ]
    return ui.table(["Limit", "Value", "Now", "What it does"], rows, "limits")


def _limit_row(
    name: str, value: Any, window: WindowRecord | None, left: int | None
) -> list[Any] | None:
    if name in HIDDEN:
        return None
    limit = LIMITS.get(name)
    if limit is None:
        return [name.replace("_", " "), str(value), fmt.NONE, ""]
    now = limit.present(window) if limit.present and window else None
    cell: object = fmt.NONE
    if now is not None and limit.absolute:
        passed = now > float(value)
        cell = html.Div(
            [
                html.Span(limit.write(now), className="strong bad" if passed else "strong"),
                html.Div(
                    html.Div(
                        className="bar-fill bar-bad" if passed else "bar-fill",
                        style={
                            "width": f"{100 * min(1.0, now / (float(value) or now or 1.0)):.0f}%"
                        },
                    ),
                    className="bar slim",
                ),
            ]
        )
    elif now is not None:
        cell = limit.write(now)
    elif left is not None:
        cell = html.Span(f"{left} left today", className="strong" if left else "strong bad")
    return [
        html.Span(limit.label, className="strong"),
        limit.write(value),
        cell,
        html.Span(limit.meaning, className="small"),
    ]


def events(view: View) -> object:
    """What happened, newest first."""
    wanted = view.choices.get("safety-level")
    level = str(wanted) if wanted in LEVEL_TONES else None
    rows = list(reversed(view.reader.events(level=level, limit=EVENTS)))
    if not rows:
        return ui.empty(
            "No events",
            "Starts, promotions, limits that were passed and failed jobs are told here.",
            "journal-text",
        )
    return html.Ol(
        [_event(view, e.at, e.level, e.kind, e.message) for e in rows[:MOST_SHOWN]],
        className="events",
    )


def _event(view: View, at: Any, level: str, kind: str, message: str) -> Component:
    tone, icon_name = LEVEL_TONES.get(level, LEVEL_TONES["info"])
    return html.Li(
        [
            ui.icon(icon_name, f"tone-{tone}"),
            html.Div(
                [
                    html.Div(message, className="event-text"),
                    html.Div(
                        f"{view.viewer.time(at, now=view.now)}, {kind}",
                        className="small",
                        title=at.isoformat(),
                    ),
                ]
            ),
        ]
    )


def _controls(view: View) -> object:
    status: StatusRecord | None = view.reader.status()
    return controls(status, "safety", _is_frozen(view))


def frame() -> Component:
    """The page without its numbers."""
    levels = [
        {"label": "All levels", "value": "all"},
        *({"label": level, "value": level} for level in LEVEL_TONES),
    ]
    return html.Div(
        [
            ui.page_head("Safety", "What is watched, with which limits, and what happened."),
            html.Div(
                [
                    ui.card("State", html.Div(ui.skeleton(), id="safety-state")),
                    ui.card(
                        "Limits",
                        html.Div(ui.skeleton(), id="safety-limits"),
                        class_name="span-2",
                        hint_id="hint-limits",
                        hint_text="From the section "
                        "safety of config.yaml. Now: the newest window's reading.",
                    ),
                    ui.card(
                        "Undone deployments",
                        html.Div(ui.skeleton(), id="safety-undone"),
                        class_name="span-3",
                        hint_id="hint-undone",
                        hint_text="Versions whose knobs, hint sets or weights were taken back: "
                        "each part has the value again that stood before.",
                    ),
                    ui.card("Controls", html.Div(ui.skeleton(), id="safety-controls")),
                    ui.card(
                        "Events",
                        html.Div(ui.skeleton(6), id="safety-events"),
                        class_name="span-2",
                        actions=ui.select("safety-level", "Level of the events", levels, "all"),
                    ),
                ],
                className="grid-3",
            ),
        ]
    )


PAGE = Page(
    path="/safety",
    title="Safety",
    icon="shield-check",
    frame=frame,
    follows_commands=True,
    parts={
        "safety-state.children": state,
        "safety-limits.children": limit_table,
        "safety-undone.children": undone_table,
        "safety-controls.children": _controls,
        "safety-events.children": events,
    },
    choices=(("safety-level", "value"),),
)
