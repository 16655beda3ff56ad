"""Query steering at a glance: what it does now, and every class with evidence and switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from dash import html
from dash.development.base_component import Component

from backend.domain.modes import CommandKind, CommandState, Mode
from backend.domain.records import CommandRecord
from backend.domain.service_latency import ClassService
from backend.domain.steering import (
    ClassKey,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
    SteeringStatusRecord,
)
from dashboard import components as ui
from dashboard import format as fmt
from dashboard import steering_words as words
from dashboard.live import View
from dashboard.steering_service import InService, SavedTime, ServiceMemory

COLUMNS = ("Statement", "State", "Measured", "In service", "Steering")
MOST_SHOWN = 60
ANSWER_STAYS = timedelta(minutes=5)
EXPLORED = (SteeringState.VERIFIED, SteeringState.WITHDRAWN, SteeringState.DEFAULT_BEST)
RATIO_HOLDS = "mean times; the interval holds however often it is looked at"
NO_EVIDENCE = "needs a hint set that was proven faster"
MEANINGS: Mapping[SteeringMode, str] = {
    SteeringMode.AUTO: "steered while its evidence stands and the autopilot is in mode auto",
    SteeringMode.PIN: "always steered, in every mode of the autopilot, until you change it",
    SteeringMode.OFF: "never steered",
}


def tuner_mode(view: View) -> Mode | None:
    """The autopilot's mode; None before its first status."""
    status = view.reader.status()
    return status.mode if status else None


def in_service(view: View) -> InService:
    """What applications saw of each class."""
    return (view.service or ServiceMemory(view.reader)).recall()


# -- what steering does now -------------------------------------------------------------------


def head(view: View) -> object:
    """Whether exploration goes on, what it does and costs, and what came of it."""
    classes, mode = view.reader.steered_classes(), tuner_mode(view)
    status = view.reader.steering_status()
    if status is None and not classes:
        return ui.empty(
            "Nothing is known of query steering yet",
            "What it does appears here as soon as the tuner runs.",
            "signpost-split",
        )
    steered = sum(mode is not None and r.is_served(mode) for r in classes)
    explored = sum(r.state in EXPLORED for r in classes)
    withdrawn = sum(r.state is SteeringState.WITHDRAWN for r in classes)
    return html.Div(
        [
            _activity(status, mode),
            html.Div(
                [
                    _number("Known", len(classes), "classes"),
                    _number("Explored", explored, "plans compared"),
                    _number("Steered", steered, "now"),
                    _number("Withdrawn", withdrawn, "no longer paid"),
                    *_saved(in_service(view).saved),
                ],
                className="steering-numbers",
            ),
        ],
        className="steering-head",
    )


def _saved(saved: SavedTime | None) -> list[Component]:
    if saved is None:
        return []
    return [
        _number(
            "Saved an hour",
            fmt.duration_text(saved.estimate_s),
            f"at least {fmt.duration_text(saved.at_least_s)}",
            "Time that clients waited less, by the executions that still ran the default plan",
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
    else:
        tone, icon_name, word = "good", "compass", "Exploring"
        text = status.activity or "waiting for the next piece of work"
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
            html.P(_how_to_turn_on(), className="quiet")
            if status is not None and not status.enabled
            else None,
            html.P(f"In mode {mode.value} nothing is steered but what you pin.", className="quiet")
            if mode not in (None, Mode.AUTO)
            else None,
        ]
    )


def _cost(status: SteeringStatusRecord) -> Component:
    spent = status.spent_s / status.elapsed_s if status.elapsed_s else 0.0
    place = "on the stand-by" if status.where == "stand-by" else "on the primary"
    return html.Div(
        [
            ui.progress_bar(
                spent / status.share if status.share else 0.0, "share of the time used", "slim"
            ),
            html.Div(
                [
                    f"{fmt.duration_text(status.spent_s)} of {fmt.duration_text(status.elapsed_s)} "
                    f"spent, {fmt.percent(spent)} of at most {fmt.percent(status.share, digits=0)} "
                    f"{place}",
                    ", as " if status.role else "",
                    html.Code(status.role),
                ],
                className="small",
            ),
        ],
        className="steering-cost",
    )


def _how_to_turn_on() -> list[object]:
    return [
        "Turn it on with ",
        html.Code("steering.explore: true"),
        " in config.yaml. On a server of your own, give it a role that may only read, best on a "
        "stand-by: ",
        html.Code("steering.dsn"),
        ". What was proven before is steered all the same.",
    ]


# -- the classes ------------------------------------------------------------------------------


def steered_table(view: View) -> object:
    """Every class that steering knows; those without a finding are folded away."""
    classes = view.reader.steered_classes()
    if not classes:
        return _no_class(view.reader.steering_status())
    mode, service = tuner_mode(view), in_service(view).classes
    commands = newest_commands(view)
    telling = sorted(
        (r for r in classes if r.evidence is not None or r.state is SteeringState.EXPLORING),
        key=lambda r: (r.evidence is None, -_gain_ms(r), r.key),
    )
    rest = sorted(
        (r for r in classes if r.evidence is None and r.state is not SteeringState.EXPLORING),
        key=lambda r: (list(SteeringState).index(r.state), r.key),
    )

    def table(records: Sequence[SteeredClassRecord]) -> Component:
        rows = [
            _row(r, view, mode, service.get(r.key), commands.get(r.key))
            for r in records[:MOST_SHOWN]
        ]
        return ui.table(
            ["Statement", "State", "Measured", "In service", "Steering"], rows, "steered"
        )

    left_out = max(0, len(telling) - MOST_SHOWN) + max(0, len(rest) - MOST_SHOWN)
    return html.Div(
        [
            table(telling) if telling else None,
            html.Details(
                [html.Summary(_rest_text(rest, bool(telling))), table(rest)],
                className="more",
                open=not telling,
            )
            if rest
            else None,
            html.P(f"{left_out} more are not listed.", className="quiet") if left_out else None,
        ]
    )


def _no_class(status: SteeringStatusRecord | None) -> Component:
    off = status is not None and not status.enabled
    return html.Div(
        [
            ui.empty(
                "No statement is known to steering yet",
                "Plans are tried on statements as they are executed, with their values. "
                "Give some in any of these ways:",
                "signpost-split",
            ),
            html.Ul(
                [
                    html.Li(
                        [
                            "the plug-in in your application: ",
                            html.Code('create_engine(url, plugins=["query_steering"], …)'),
                            " with ",
                            html.Code("query_steering_samples"),
                        ]
                    ),
                    html.Li(["files of SQL: ", html.Code("steering.statements")]),
                    html.Li(["the server's logs: ", html.Code("steering.logs")]),
                ],
                className="ways",
            ),
            html.P(_how_to_turn_on(), className="quiet ways") if off else None,
        ]
    )


def _rest_text(rest: Sequence[SteeredClassRecord], others: bool) -> str:
    counts = {
        state.value: sum(r.state is state for r in rest)
        for state in SteeringState
        if any(r.state is state for r in rest)
    }
    more = " more" if others else ""
    plural = "class" if len(rest) == 1 else "classes"
    return f"{len(rest)}{more} {plural}: " + ", ".join(f"{n} {s}" for s, n in counts.items())


def _gain_ms(record: SteeredClassRecord) -> float:
    return record.evidence.default_ms - record.evidence.steered_ms if record.evidence else 0.0


def newest_commands(view: View) -> dict[ClassKey, CommandRecord]:
    """The newest command of each class that was given one."""
    return {
        ClassKey(c.payload["fingerprint"], c.payload["search_path"]): c
        for c in view.reader.commands()
        if c.kind is CommandKind.STEER
    }


def details_button(key: ClassKey, label: object, place: str, class_name: str) -> Component:
    """A button that opens what is known of a class."""
    return html.Button(
        label,
        id={"type": "steered", "class": words.class_id(key), "place": place},
        type="button",
        className=class_name,
        title="Show plans and evidence",
    )


def _row(
    record: SteeredClassRecord,
    view: View,
    mode: Mode | None,
    service: ClassService | None,
    command: CommandRecord | None,
) -> list[object]:
    return [
        html.Div(
            [
                html.Div(record.text, className="query-text", title=record.text, tabIndex="0"),
                details_button(record.key, "Plans and evidence", "list", "link-button small-link"),
            ]
        ),
        state_cell(record, mode),
        _measured(record, view),
        _served(record, service, view),
        html.Div([switch(record, command, "list"), answer(command, view)]),
    ]


def state_cell(record: SteeredClassRecord, mode: Mode | None) -> Component:
    """Where a class stands, and why."""
    stands = words.standing(record, mode)
    hints = words.hint_words(record.evidence.settings) if record.evidence else ""
    return html.Div(
        [
            ui.badge(stands.word, stands.tone, stands.icon),
            html.Div(hints, className="hint-words", title=words.set_lines(record.evidence.settings))
            if record.evidence
            else None,
            html.Div(stands.reason, className="small"),
        ]
    )


def two_bars(default_ms: float, steered_ms: float) -> Component:
    """Both latencies, each with a bar as long as it takes."""
    longest = max(default_ms, steered_ms) or 1.0
    return html.Div(
        [
            html.Div(
                [
                    html.Span(fmt.ms_text(value), className="arm-value"),
                    html.Span(
                        html.Span(
                            className=f"arm-fill {arm}",
                            style={"width": f"{100 * value / longest:.0f}%"},
                        ),
                        className="arm-bar",
                    ),
                ],
                className="arm",
                title=f"{arm} plan: {fmt.ms_text(value)}",
            )
            for arm, value in (("default", default_ms), ("steered", steered_ms))
        ],
        className="arms",
    )


def effect(change: float, low: float, high: float, title: str) -> Component:
    """A relative change of the latency with its interval; less is better."""
    tone = "good" if high < 0 else "bad" if low > 0 else ""
    interval = f"{fmt.percent(low, signed=True, digits=0)} to {_capped(high)}"
    return html.Div(
        [
            html.Span(
                fmt.percent(change, signed=True, digits=0), className=f"strong {tone}".strip()
            ),
            html.Span(f" {interval}", className="small"),
        ],
        className="effect",
        title=title,
    )


def _capped(change: float) -> str:
    return "many times" if change > 10 else fmt.percent(change, signed=True, digits=0)


def _served(record: SteeredClassRecord, service: ClassService | None, view: View) -> object:
    """What applications saw of the hint set that stands."""
    evidence = record.evidence
    if service is None or evidence is None or service.hint_set != evidence.hint_set:
        return html.Span(fmt.NONE, className="quiet-inline")
    default, steered = service.default, service.steered
    both = default.mean_ms is not None and steered.mean_ms is not None
    return html.Div(
        [
            two_bars(default.mean_ms, steered.mean_ms) if both else None,
            effect(service.ratio.effect, service.ratio.low, service.ratio.high, RATIO_HOLDS)
            if service.ratio
            else html.Div(service.hindrance, className="small"),
            html.Div(
                f"p95 {fmt.ms_text(default.p95_ms)} → {fmt.ms_text(steered.p95_ms)}",
                className="small",
            ),
            html.Div(
                f"{fmt.number(default.executions)} + {fmt.number(steered.executions)} runs since "
                f"{view.viewer.time(service.began_at, now=view.now)}",
                className="small",
                title="default + steered executions",
            ),
        ]
    )


def _measured(record: SteeredClassRecord, view: View) -> object:
    evidence = record.evidence
    if evidence is None:
        if record.default_ms is None:
            return html.Span(fmt.NONE, className="quiet-inline")
        tried = f"{record.plans} plans, {record.probes} runs" if record.plans else ""
        return html.Div(
            [
                html.Span(fmt.ms_text(record.default_ms)),
                html.Div(tried, className="small"),
            ]
        )
    return html.Div(
        [
            two_bars(evidence.default_ms, evidence.steered_ms),
            effect(
                evidence.effect,
                evidence.ci_low,
                evidence.ci_high,
                f"each bound holds with {fmt.percent(evidence.confidence)}",
            ),
            html.Div(
                [
                    f"{evidence.pairs} pairs of {evidence.statements} statements, verified ",
                    html.Span(
                        view.viewer.time(evidence.verified_at, now=view.now),
                        title=f"{view.viewer.local(evidence.verified_at):%d %b %Y %H:%M:%S}, "
                        + view.viewer.zone_label(evidence.verified_at),
                    ),
                ],
                className="small",
            ),
        ]
    )


# -- the switch -------------------------------------------------------------------------------


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
    withdrawn = record.state is SteeringState.WITHDRAWN
    return (
        "Pin this class? It then steers even when the autopilot is not in mode auto, all of its "
        "executions, and is not withdrawn when its hint set stops paying. It stays until you "
        "choose auto or off here." + (f" It was withdrawn: {record.reason}." if withdrawn else "")
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
