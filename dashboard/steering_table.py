"""The query classes that steering knows, each with its evidence, what it does, and its switch."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from backend.domain.modes import Mode
from backend.domain.records import CommandRecord
from backend.domain.service_latency import ClassService
from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringState
from dashboard import components as ui
from dashboard import format as fmt
from dashboard import steering_words as words
from dashboard.live import View
from dashboard.steering_switch import answer, newest_commands, switch

COLUMNS = ("Statement", "State", "Measured", "In service", "Steering")
MOST_SHOWN = 60
RATIO_HOLDS = "mean times; the interval holds however often it is looked at"


def steered_table(view: View) -> object:
    """Every class that steering knows; those without a finding are folded away."""
    classes = view.reader.steered_classes()
    if not classes:
        return _no_class()
    mode, service = view.mode, view.in_service().classes
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


def _no_class() -> Component:
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


def details_button(key: ClassKey, label: ui.Children, place: str, class_name: str) -> Component:
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
                details_button(
                    record.key,
                    "Plans and evidence" if record.evidence else "Details",
                    "list",
                    "link-button small-link",
                ),
            ]
        ),
        state_cell(record, mode),
        _measured(record, view),
        _served(service, view),
        html.Div([switch(record, command, "list"), answer(command, view)]),
    ]


def state_cell(record: SteeredClassRecord, mode: Mode | None) -> Component:
    """Where a class stands, and why."""
    stands = words.standing(record, mode)
    return html.Div(
        [
            ui.badge(stands.word, stands.tone, stands.icon),
            html.Div(
                words.hint_summary(record.evidence.settings),
                className="hint-words",
                title=words.set_lines(record.evidence.settings),
            )
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


def _served(service: ClassService | None, view: View) -> object:
    """What applications saw of the hint set that stands."""
    if service is None:
        return html.Span(fmt.NONE, className="quiet-inline")
    default, steered = service.default, service.steered
    return html.Div(
        [
            two_bars(default.mean_ms, steered.mean_ms)
            if default.mean_ms is not None and steered.mean_ms is not None
            else None,
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
