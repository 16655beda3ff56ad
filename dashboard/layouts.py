"""The shell around the pages: top bar, navigation, banner, controls, notes on commands."""

from __future__ import annotations

import dash_bootstrap_components as dbc
from dash import dcc, html
from dash.development.base_component import Component

from backend.domain.modes import CommandKind, Phase
from backend.domain.records import CommandRecord, FreezeRecord, StatusRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.auth.identity import logged_in
from dashboard.format import Viewer
from dashboard.layouts_account import account
from dashboard.layouts_controls import is_frozen
from dashboard.operator_commands import MAX_REASON_LENGTH
from dashboard.pages import PAGES
from dashboard.services import SILENT_AFTER_S, Services

COMMAND_NAMES: dict[CommandKind, str] = {
    CommandKind.SET_KNOBS: "Change knobs",
    CommandKind.ROLL_BACK: "Roll back",
    CommandKind.DEPLOY_VERSION: "Deploy the version",
    CommandKind.PAUSE: "Pause",
    CommandKind.RESUME: "Resume",
    CommandKind.FREEZE: "Freeze",
    CommandKind.UNFREEZE: "Unfreeze",
    CommandKind.SET_MODE: "Set the mode",
    CommandKind.APPROVE: "Deploy what was proven",
    CommandKind.DECLINE: "Decline the promotion",
    CommandKind.DRAFT_PLAN: "Draft an experiment plan",
    CommandKind.APPROVE_PLAN: "Approve the experiment plan",
    CommandKind.DECLINE_PLAN: "Decline the experiment plan",
    CommandKind.STEER: "Steer the class",
}


def _navigation(class_name: str) -> Component:
    return html.Nav(
        [
            dbc.NavLink(
                [ui.icon(p.icon), html.Span(p.title)],
                href=p.path,
                active="exact",
                className="nav-item-link",
            )
            for p in PAGES
        ],
        className=class_name,
        **{"aria-label": "Pages"},
    )


def shell(services: Services) -> Component:
    """The whole page before a page is chosen."""
    return html.Div(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Store(id="viewer"),
            dcc.Store(id="alive"),
            dcc.Store(id="shell-held", data={}),
            dcc.Store(id="tracked", data=[]),
            dcc.Store(id="to-confirm"),
            dcc.Interval(id="shell-tick", interval=services.tick_ms),
            dcc.Interval(id="watch-tick", interval=1000),
            dcc.Interval(id="command-tick", interval=400, disabled=True),
            html.A("Skip to the content", href="#content", className="skip-link"),
            html.Header(
                [
                    dcc.Link(
                        [
                            html.Span(className="brand-mark"),
                            html.Span("PostgreSQL Autopilot", className="brand-name"),
                        ],
                        href="/",
                        className="brand",
                    ),
                    html.Div(ui.skeleton(1), id="shell-chips", className="chips"),
                    html.Div(
                        [
                            account(),
                            html.Button(
                                ui.icon("sliders2"),
                                id="controls-open",
                                type="button",
                                className="icon-button",
                                title="Mode, pause, freeze",
                                **{"aria-label": "Mode, pause, freeze"},
                            ),
                            html.Button(
                                ui.icon("circle-half"),
                                id="theme-toggle",
                                type="button",
                                className="icon-button",
                                title="Light or dark",
                                **{"aria-label": "Switch between light and dark"},
                            ),
                        ],
                        className="top-actions",
                    ),
                ],
                className="topbar",
            ),
            _navigation("sidenav"),
            html.Main(
                [
                    html.Div(id="shell-banner", **{"aria-live": "polite"}),
                    html.Div(
                        "The dashboard does not answer. Numbers below are old; this page "
                        "goes on by itself when it is back.",
                        id="offline",
                        className="banner banner-bad",
                        hidden=True,
                        role="alert",
                    ),
                    html.Div(ui.skeleton(6), id="content"),
                    html.Footer(id="shell-footer", className="page-foot"),
                ],
                className="main",
            ),
            _navigation("bottomnav"),
            html.Div(id="command-notes", className="notes", **{"aria-live": "polite"}),
            dbc.Modal(
                [
                    dbc.ModalHeader(dbc.ModalTitle("Mode, pause, freeze")),
                    dbc.ModalBody(html.Div(ui.skeleton(), id="shell-controls")),
                ],
                id="controls",
                is_open=False,
                centered=True,
                scrollable=True,
            ),
            dbc.Modal(
                [
                    dbc.ModalHeader(dbc.ModalTitle("Please confirm")),
                    dbc.ModalBody([html.Div(id="confirm-text"), _reason_field()]),
                    dbc.ModalFooter(
                        [
                            dbc.Button("Cancel", id="confirm-no", color="secondary", outline=True),
                            dbc.Button("Confirm", id="confirm-yes", color="primary"),
                        ]
                    ),
                ],
                id="confirm",
                is_open=False,
                centered=True,
            ),
        ],
        className="shell",
    )


def _reason_field() -> Component:
    """Where an operator says why; shown for commands that take a reason."""
    return html.Div(
        [
            dbc.Label("Why, for the others", html_for="confirm-reason", className="field-label"),
            dbc.Input(
                id="confirm-reason",
                type="text",
                maxlength=MAX_REASON_LENGTH,
                autocomplete="off",
                placeholder="May stay empty",
            ),
            html.Div("Shown on every page, with your name and the time.", className="quiet small"),
        ],
        id="confirm-why",
        hidden=True,
    )


def chips(
    status: StatusRecord | None, silent: bool, freeze: FreezeRecord | None = None
) -> list[Component]:
    """Mode, what holds it up, phase, safety and index for the top bar."""
    if status is None:
        return [ui.badge("starting", "info", "hourglass-split")]
    tone, icon_name, word = ui.SAFETY_TONES[status.safety]
    held = []
    if is_frozen(status, freeze):
        held.append(ui.badge("frozen", "bad", "snow"))
    if status.paused:
        held.append(ui.badge("paused", "warn", "pause-fill"))
    if status.trial_hours is not None and not status.trial_hours.are_open:
        held.append(ui.badge("outside hours", "info", "clock", title=status.hindrance))
    phase_tone = "good" if status.phase in (Phase.OPTIMISED, Phase.FINISHED) else "info"
    index = fmt.NONE if status.index is None else f"{status.index:.3f}"
    change = "" if status.index is None else fmt.percent(status.index - 1, signed=True)
    return [
        ui.badge("silent" if silent else "live", "bad" if silent else "good", "broadcast"),
        ui.badge(status.mode.value, "accent", "compass", title="Mode"),
        *held,
        ui.badge(status.phase.value, phase_tone, "flag"),
        ui.badge(word, tone, icon_name, title="; ".join(status.safety_reasons)),
        html.Span(
            ["index ", html.B(index), f" {change}".rstrip()],
            className="tag tag-index",
            title="Latency index against the start; lower is better",
        ),
    ]


def banners(
    status: StatusRecord | None, silent: bool, viewer: Viewer, freeze: FreezeRecord | None = None
) -> list[Component]:
    """What is wrong, if anything, and whether the switch is on; each in one line."""
    found = [banner(status, silent, viewer)]
    if is_frozen(status, freeze):
        found.append(freeze_banner(freeze, viewer))
    return [shown for shown in found if shown is not None]


def freeze_banner(freeze: FreezeRecord | None, viewer: Viewer) -> Component:
    """Who has frozen what, and why."""
    who = f" by {freeze.actor}, {viewer.time(freeze.at)}" if freeze is not None else ""
    why = f" ({freeze.reason})" if freeze is not None and freeze.reason else ""
    return html.Div(
        [
            ui.icon("snow"),
            html.Div(
                [
                    html.B(f"Frozen{who}{why}. "),
                    "Nothing is changed except by a rollback, until you unfreeze.",
                ]
            ),
        ],
        className="banner banner-warn",
        role="status",
    )


def banner(status: StatusRecord | None, silent: bool, viewer: Viewer) -> Component | None:
    """What is wrong, if anything, in one line with what to do."""
    if status is None:
        return html.Div(
            [
                ui.icon("hourglass-split"),
                html.Div(
                    [
                        html.B("The tuner is starting. "),
                        "Until it has written its first status, pages stay empty "
                        "and commands wait.",
                    ]
                ),
            ],
            className="banner banner-info",
            role="status",
        )
    if silent and status.phase is not Phase.FINISHED:
        return html.Div(
            [
                ui.icon("exclamation-triangle"),
                html.Div(
                    [
                        html.B(f"The tuner does not answer since {viewer.time(status.at)}. "),
                        f"Its heartbeat is older than {SILENT_AFTER_S:.0f} s. The watchdog undoes "
                        "an unproven change by itself; commands wait until the tuner is back.",
                    ]
                ),
            ],
            className="banner banner-bad",
            role="alert",
        )
    if status.fault:
        return html.Div(
            [ui.icon("exclamation-octagon"), html.Div([html.B("Fault: "), status.fault])],
            className="banner banner-bad",
            role="alert",
        )
    return None


def store_banner(reason: str) -> Component:
    """The store cannot be read."""
    return html.Div(
        [
            ui.icon("database-exclamation"),
            html.Div(
                [
                    html.B("The store cannot be read. "),
                    reason,
                    " What you see may be old; the page tries again by itself.",
                ]
            ),
        ],
        className="banner banner-bad",
        role="alert",
    )


def footer(status: StatusRecord | None, viewer: Viewer) -> list[object]:
    """The time zone, where this is, and who is logged in."""
    user = logged_in()
    return [
        html.Span(f"Times are in {viewer.zone_label()}"),
        html.Span(f"Server {status.server}" if status and status.server else ""),
        html.Span(f"Logged in as {user.name}, {user.role.value}" if user else ""),
    ]


def _note(key: object, tone: str, icon_name: str, title: str, text: str) -> Component:
    return html.Div(
        [
            ui.icon(icon_name),
            html.Div([html.B(title), html.Div(text, className="note-text")]),
            html.Button(
                ui.icon("x-lg"),
                id={"type": "dismiss", "command": key},
                className="icon-button",
                type="button",
                **{"aria-label": "Dismiss this note"},
            ),
        ],
        className=f"note note-{tone}",
        role="status",
    )


def command_note(command: CommandRecord) -> Component:
    """What became of a command, while it runs and after."""
    tone, icon_name = ui.COMMAND_TONES[command.state]
    return _note(
        command.id,
        tone,
        icon_name,
        f"{COMMAND_NAMES[command.kind]}: {command.state.value}",
        command.result or "waiting for the tuner",
    )


def refusal_note(key: object, reason: str) -> Component:
    """A command that was not even queued."""
    return _note(key, "bad", "x-octagon", "Refused", reason)
