"""One query class that steering knows: its evidence, plans, settings, and what telemetry saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_bootstrap_components as dbc
from dash import dcc, html
from dash.development.base_component import Component

from backend.domain.service_latency import ArmService, ClassService, Ratio
from backend.domain.steering import HintEvidence, SteeredClassRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard import steering_words as words
from dashboard.live import View
from dashboard.query_stats import QueryStats
from dashboard.steering_switch import MEANINGS, NO_EVIDENCE, answer, newest_commands, switch
from dashboard.steering_tried import MOST_RUNS, tried_table


def dialog() -> list[Component]:
    """The dialog, empty until a class is chosen."""
    return [
        dcc.Store(id="queries-selected"),
        dbc.Modal(
            [
                dbc.ModalHeader(dbc.ModalTitle("Query class")),
                dbc.ModalBody(html.Div(ui.skeleton(6), id="queries-detail")),
            ],
            id="queries-dialog",
            is_open=False,
            size="xl",
            scrollable=True,
        ),
    ]


def detail(view: View, stats: Mapping[str, QueryStats]) -> object:
    """The chosen class; ``stats`` are those of telemetry, by key."""
    chosen = view.choices.get("queries-selected")
    classes = view.reader.steered_classes()
    record = next((r for r in classes if words.class_id(r.key) == chosen), None)
    if record is None:
        return ui.empty("No such class", "Steering does not know it any more.", "question")
    stands = words.standing(record, view.mode)
    command = newest_commands(view).get(record.key)
    evidence = record.evidence
    return html.Div(
        [
            html.Pre(record.text, className="sql", tabIndex="0", **{"aria-label": "Statement"}),
            html.Div(
                [
                    html.Div(
                        [
                            ui.badge(stands.word, stands.tone, stands.icon),
                            html.Div(stands.reason, className="small"),
                        ]
                    ),
                    html.Div(
                        [
                            switch(record, command, "detail"),
                            answer(command, view),
                            html.Div(
                                MEANINGS[record.mode]
                                if evidence
                                else f"{MEANINGS[record.mode]}; pin {NO_EVIDENCE}",
                                className="small",
                            ),
                        ],
                        className="detail-switch",
                    ),
                ],
                className="detail-state",
            ),
            html.Div(
                [
                    html.Div([html.H3("Measured"), _measured(record, view)]),
                    html.Div([html.H3("Explored"), _explored(record, view)]),
                ],
                className="grid-2 detail-facts",
            ),
            _served(view.in_service().classes.get(record.key), view),
            _settings(evidence) if evidence else None,
            _plans(evidence) if evidence else None,
            tried_table(
                view.reader.plan_runs(fingerprint=record.key.fingerprint, limit=MOST_RUNS),
                record.key,
            ),
            html.H3("In telemetry"),
            _telemetry(record, stats),
        ]
    )


def _measured(record: SteeredClassRecord, view: View) -> Component:
    evidence = record.evidence
    if evidence is None:
        return html.P("Nothing was proven faster than the default plan yet.", className="quiet")
    return ui.facts(
        [
            ("Default plan", fmt.ms_text(evidence.default_ms)),
            ("Steered plan", fmt.ms_text(evidence.steered_ms)),
            ("Effect", html.B(fmt.percent(evidence.effect, signed=True))),
            (
                f"Bounds, each at {fmt.percent(evidence.confidence)}",
                f"{fmt.percent(evidence.ci_low, signed=True)} to "
                f"{fmt.percent(evidence.ci_high, signed=True)}",
            ),
            ("Pairs of runs", str(evidence.pairs)),
            ("Different statements", str(evidence.statements)),
            ("Verified", view.viewer.moment(evidence.verified_at)),
        ]
    )


def _explored(record: SteeredClassRecord, view: View) -> Component:
    return ui.facts(
        [
            (
                "Default plan, measured last",
                fmt.ms_text(record.default_ms),
            ),
            ("Different plans", fmt.NONE if record.plans is None else str(record.plans)),
            ("Runs on trial", str(record.probes)),
            ("Server's time spent", fmt.duration_text(record.explored_s)),
            ("Search path", html.Code(record.key.search_path)),
            ("Fingerprint", html.Code(record.key.fingerprint)),
            ("Changed", view.viewer.moment(record.updated_at)),
        ]
    )


def _served(service: ClassService | None, view: View) -> Component | None:
    if service is None:
        return None

    def row(name: str, arm: ArmService) -> list[Any]:
        times = (arm.mean_ms, arm.p50_ms, arm.p95_ms, arm.p99_ms)
        ends = (arm.executions, arm.cancelled, arm.failed)
        return [
            html.Span(name, className="strong"),
            *(fmt.ms_text(value) for value in times),
            *(fmt.number(value) for value in ends),
        ]

    return html.Div(
        [
            html.H3("In service"),
            ui.table(
                ["Plan", "Mean", "p50", "p95", "p99", "Executions", "Cancelled", "Failed"],
                [row("default", service.default), row("steered", service.steered)],
                "numbers",
            ),
            html.P(
                [
                    f"Timed at the clients since {view.viewer.moment(service.began_at)}. ",
                    _ratio_text("Mean", service.ratio),
                    _ratio_text("Typical execution", service.typical),
                    f"Not compared: {service.hindrance}." if service.hindrance else "",
                ],
                className="quiet",
            ),
        ]
    )


def _ratio_text(name: str, ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    low, high = fmt.percent(ratio.low, signed=True), fmt.percent(ratio.high, signed=True)
    return f"{name}: {fmt.percent(ratio.effect, signed=True)} ({low} to {high}). "


def _settings(evidence: HintEvidence) -> Component:
    under = ", ".join(f"{name} = {value}" for name, value in evidence.under.items())
    return html.Div(
        [
            html.H3("Hint set"),
            html.Pre(
                words.set_lines(evidence.settings),
                className="sql",
                tabIndex="0",
                **{"aria-label": "Settings of the hint set"},
            ),
            html.P(
                [
                    f"{words.hint_words(evidence.settings)} (",
                    html.Code(evidence.hint_set),
                    f"). Sent with each statement alone, while the session has {under}.",
                ],
                className="quiet",
            ),
        ]
    )


def _plans(evidence: HintEvidence) -> Component:
    def plan(title: str, latency_ms: float, text: str) -> Component:
        return html.Div(
            [
                html.H3([title, html.Span(fmt.ms_text(latency_ms), className="plan-latency")]),
                html.Pre(text, className="plan", tabIndex="0", **{"aria-label": title}),
            ]
        )

    return html.Div(
        [
            plan("Default plan", evidence.default_ms, evidence.default_plan),
            plan("Steered plan", evidence.steered_ms, evidence.steered_plan),
        ],
        className="grid-2",
    )


def _telemetry(record: SteeredClassRecord, stats: Mapping[str, QueryStats]) -> Component:
    if not record.query_keys:
        return html.P("Not yet seen in pg_stat_statements.", className="quiet")
    return ui.table(
        ["Class in pg_stat_statements", "Share of time", "Calls", "Mean"],
        [
            [
                html.Code(key),
                fmt.percent(stats[key].share) if key in stats else fmt.NONE,
                fmt.quantity(stats[key].calls_per_s, "/ s") if key in stats else fmt.NONE,
                fmt.ms_text(stats[key].mean_ms) if key in stats else fmt.NONE,
            ]
            for key in record.query_keys
        ],
    )
