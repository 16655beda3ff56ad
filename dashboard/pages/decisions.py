"""Decisions: every trial with its evidence, verdict and reasons; every deployed version."""

from __future__ import annotations

from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ALL, Input, Output, ctx, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from backend.domain.modes import CommandKind, TrialKind
from backend.domain.records import TrialRecord
from dashboard import components as ui
from dashboard import decisions_versions, figures_trials
from dashboard import format as fmt
from dashboard.decisions_waiting import answers, waiting, waiting_promotion
from dashboard.live import Page, View
from dashboard.services import Services
from dashboard.trial_table import interval_text, trial_table


def _selected(view: View) -> TrialRecord | None:
    number = view.choices.get("decisions-selected")
    return view.reader.trial(number) if isinstance(number, int) else None


def detail(view: View) -> object:
    """All that is known about the chosen trial."""
    trial = _selected(view)
    if trial is None:
        return ui.empty("No such trial", "It may have been removed by the retention.", "question")
    waits = waiting_promotion(view)
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    texts = view.reader.query_classes()
    effects = sorted(trial.class_effects.items(), key=lambda item: item[1].get("effect", 0.0))
    rows = [
        [
            html.Div(
                texts[key].text if key in texts else key,
                className="query-text",
                title=texts[key].text if key in texts else key,
            ),
            fmt.ms_text(effect.get("incumbent_ms")),
            fmt.ms_text(effect.get("candidate_ms")),
            html.Span(
                [
                    fmt.percent(effect.get("effect"), signed=True),
                    html.Span(
                        f" [{fmt.percent(effect.get('ci_low'), signed=True)} to "
                        f"{fmt.percent(effect.get('ci_high'), signed=True)}]",
                        className="small",
                    ),
                ]
            ),
        ]
        for key, effect in effects
    ]
    interval = interval_text(trial)
    lasted = (trial.finished_at - trial.created_at).total_seconds() if trial.finished_at else None
    return html.Div(
        [
            html.Div(
                [
                    ui.verdict_badge(trial.verdict, trial.state.value),
                    ui.badge(trial.kind.value, "neutral"),
                    ui.badge("needs a restart", "warn") if trial.needs_restart else None,
                ],
                className="tags",
            ),
            html.P("; ".join(trial.reasons) or "No reason is recorded yet.", className="lead-text"),
            answers(waits, "detail") if waits is not None and waits.trial_id == trial.id else None,
            ui.knob_diff(trial.before, trial.after, statuses),
            ui.facts(
                [
                    (
                        "Effect on the latency index",
                        fmt.percent(trial.effect, signed=True)
                        + (
                            f" [{interval}] at {fmt.confidence(trial.confidence)}"
                            if interval
                            else ""
                        ),
                    ),
                    ("Blocks", f"{trial.blocks} of at most {trial.max_blocks}"),
                    (
                        "Sample quality",
                        fmt.NONE if trial.quality is None else f"{trial.quality:.2f} of 1",
                    ),
                    ("Coverage of the reference", fmt.percent(trial.coverage)),
                    ("Proposed by", trial.proposer),
                    ("Began", view.viewer.time(trial.created_at, now=view.now)),
                    ("Lasted", fmt.duration_text(lasted)),
                ]
            ),
            html.H3("By query class"),
            ui.table(["Statement", "Incumbent", "Candidate", "Effect"], rows, "classes")
            if rows
            else html.P("Single classes appear when blocks are finished.", className="quiet"),
        ]
    )


def _windows_figure(view: View) -> object:
    trial = _selected(view)
    windows = view.reader.windows(trial_id=trial.id, limit=300) if trial and trial.id else []
    return figures_trials.trial_windows_figure(windows, view.floors.trial, view.viewer)


def frame() -> Component:
    """The page without its numbers."""
    kinds = [
        {"label": "All kinds", "value": "all"},
        *({"label": k.value, "value": k.value} for k in TrialKind),
    ]
    verdicts = [
        {"label": "All verdicts", "value": "all"},
        *(
            {"label": v, "value": v}
            for v in ("running", "accept", "reject", "inconclusive", "aborted")
        ),
    ]
    return html.Div(
        [
            ui.page_head("Decisions", "What was tried, what came of it, and why."),
            ui.card(
                "Waiting for you",
                html.Div(ui.skeleton(2), id="decisions-waiting"),
                hint_id="hint-waiting",
                hint_text="Mode approve: an experiment plan says what may be tried without asking "
                "again; what was proven is deployed after you said so. Rollbacks wait for nobody.",
                actions=ui.command_button(
                    CommandKind.DRAFT_PLAN,
                    {},
                    "Draft a plan",
                    place="waiting",
                    icon_name="file-earmark-text",
                ),
            ),
            ui.card(
                "Trials",
                html.Div(ui.skeleton(6), id="decisions-trials"),
                class_name="spaced",
                hint_id="hint-trials",
                hint_text="The bar shows the change of the latency index "
                "with its interval: left of the middle is faster. Choose a number for the "
                "evidence.",
                actions=[
                    ui.select("decisions-kind", "Kind of the trials", kinds, "all"),
                    ui.select("decisions-verdict", "Verdict of the trials", verdicts, "all"),
                ],
            ),
            *decisions_versions.section(),
            dcc.Store(id="decisions-selected"),
            dbc.Modal(
                [
                    dbc.ModalHeader(dbc.ModalTitle(id="decisions-title")),
                    dbc.ModalBody(
                        [
                            html.Div(id="decisions-detail"),
                            html.H3("Blocks"),
                            ui.graph("decisions-blocks", 220, "effect of each block"),
                            html.H3("Windows"),
                            ui.graph("decisions-windows", 220, "windows by arm"),
                            html.P(
                                "Hollow: the sample quality was too low; the window is void.",
                                className="quiet",
                            ),
                        ]
                    ),
                ],
                id="decisions-dialog",
                is_open=False,
                size="lg",
                scrollable=True,
            ),
        ]
    )


def setup(app: dash.Dash, _services: Services) -> None:
    """A trial's number opens its evidence; a version's button the way back to it."""
    decisions_versions.register(app)

    @app.callback(
        Output("decisions-selected", "data"),
        Output("decisions-dialog", "is_open"),
        Output("decisions-title", "children"),
        Input({"type": "trial", "id": ALL, "place": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def choose(_clicks: list[int | None]) -> Any:
        if not ctx.triggered_id or not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        number = int(ctx.triggered_id["id"])
        return number, True, f"Trial {number}"


PAGE = Page(
    path="/decisions",
    title="Decisions",
    icon="clipboard2-check",
    frame=frame,
    follows_commands=True,
    parts={
        "decisions-waiting.children": waiting,
        "decisions-trials.children": trial_table,
        **decisions_versions.PARTS,
        "decisions-detail.children": detail,
        "decisions-blocks.figure": lambda v: figures_trials.blocks_figure(_selected(v), v.viewer),
        "decisions-windows.figure": _windows_figure,
    },
    choices=(
        ("decisions-kind", "value"),
        ("decisions-verdict", "value"),
        ("decisions-selected", "data"),
        *decisions_versions.CHOICES,
    ),
    setup=setup,
)
