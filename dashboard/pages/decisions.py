"""Decisions: every trial with its evidence, verdict and reasons; every deployed version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash
import dash_bootstrap_components as dbc
from dash import ALL, Input, Output, ctx, dcc, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from backend.domain.modes import CommandKind, TrialKind, TrialState
from backend.domain.records import KnobStatusRecord, TrialRecord
from dashboard import components as ui
from dashboard import figures_trials
from dashboard import format as fmt
from dashboard.live import Page, View
from dashboard.services import Services

TRIALS = 200
MOST_SHOWN = 60
WAITING = "waiting for approval"
KIND_MEANINGS = {
    TrialKind.PROBE: "one quick look; cheap and noisy",
    TrialKind.PROMOTION: "randomised blocks; only this can change what is deployed",
    TrialKind.PROBATION: "a deployed change has to prove itself again",
    TrialKind.FINAL: "the final against the initial configuration",
}


def is_waiting(trial: TrialRecord) -> bool:
    """Whether a human has to approve the trial before anything is applied."""
    return (
        trial.verdict is None
        and trial.state is TrialState.APPLYING
        and any(WAITING in reason for reason in trial.reasons)
    )


def interval_bar(trial: TrialRecord, scale: float) -> object:
    """The effect with its interval as a bar around 0; left of the middle is faster."""
    if trial.effect is None:
        return html.Span(fmt.NONE, className="quiet-inline")
    text = fmt.percent(trial.effect, signed=True)
    if trial.ci_low is None or trial.ci_high is None:
        return html.Span(text, className="strong")

    def place(value: float) -> float:
        return 50 + 50 * min(max(value / scale, -1), 1)

    low, high = place(trial.ci_low), place(trial.ci_high)
    tone = "good" if trial.ci_high < 0 else "bad" if trial.ci_low > 0 else ""
    interval = (
        f"{fmt.percent(trial.ci_low, signed=True)} to {fmt.percent(trial.ci_high, signed=True)}"
    )
    return html.Div(
        [
            html.Div(
                [
                    html.Span(text, className=f"strong {tone}"),
                    html.Span(f" [{interval}]", className="small"),
                ]
            ),
            html.Div(
                [
                    html.Div(className="ci-zero"),
                    html.Div(
                        className=f"ci-span {tone}",
                        style={"left": f"{low:.1f}%", "width": f"{max(high - low, 1):.1f}%"},
                    ),
                    html.Div(className="ci-dot", style={"left": f"{place(trial.effect):.1f}%"}),
                ],
                className="ci",
                title=f"{100 * trial.confidence:.0f} % interval: {interval}",
            ),
        ]
    )


def _verdict_cell(trial: TrialRecord) -> Component:
    waiting = is_waiting(trial)
    tag = (
        ui.badge(WAITING, "warn", "hand-index")
        if waiting
        else ui.verdict_badge(trial.verdict, trial.state.value)
    )
    reasons = [r for r in trial.reasons if not (waiting and WAITING in r)]
    progress = (
        html.Div(
            html.Div(
                className="bar-fill",
                style={"width": f"{100 * min(max(trial.progress, 0), 1):.0f}%"},
            ),
            className="bar slim",
        )
        if trial.verdict is None and not waiting
        else None
    )
    buttons = html.Div(_approval(trial, "list"), className="page-actions") if waiting else None
    return html.Div([tag, progress, html.Div("; ".join(reasons), className="small"), buttons])


def _approval(trial: TrialRecord, place: str) -> list[Component]:
    return [
        ui.command_button(
            CommandKind.APPROVE,
            {"trial_id": trial.id},
            "Approve",
            place=place,
            icon_name="check-lg",
            look="primary",
        ),
        ui.command_button(
            CommandKind.DECLINE, {"trial_id": trial.id}, "Decline", place=place, icon_name="x-lg"
        ),
    ]


def _row(
    trial: TrialRecord, statuses: dict[str, KnobStatusRecord], scale: float, view: View
) -> list[Any]:
    blocks = f"{trial.blocks} of {trial.max_blocks}" if trial.max_blocks else str(trial.blocks)
    plural = "block" if trial.max_blocks == 1 else "blocks"
    restart = ui.badge("restart", "warn") if trial.needs_restart else None
    return [
        html.Button(
            f"#{trial.id}",
            id={"type": "trial", "id": trial.id or 0},
            type="button",
            className="link-button",
            title="Show the evidence",
        ),
        html.Div(
            [
                html.Div(
                    trial.kind.value, className="strong", title=KIND_MEANINGS.get(trial.kind, "")
                ),
                html.Div(
                    [view.viewer.time(trial.created_at, now=view.now), ", ", trial.proposer],
                    className="small",
                ),
                restart,
            ]
        ),
        ui.knob_diff(trial.before, trial.after, statuses, most=3),
        interval_bar(trial, scale),
        html.Div(
            [
                html.Div(f"{blocks} {plural}"),
                html.Div(
                    "" if trial.quality is None else f"quality {trial.quality:.2f}",
                    className="small",
                ),
                html.Div(
                    ""
                    if trial.coverage is None
                    else f"covers {fmt.percent(trial.coverage, digits=0)}",
                    className="small",
                ),
            ]
        ),
        _verdict_cell(trial),
    ]


def _scale(trials: Sequence[TrialRecord]) -> float:
    ends = sorted(abs(v) for t in trials for v in (t.ci_low, t.ci_high) if v is not None)
    return max(0.05, ends[int(0.9 * (len(ends) - 1))]) if ends else 0.05


def trial_table(view: View) -> object:
    """The newest trials, those that wait for a human first."""
    trials = view.reader.trials(limit=TRIALS)
    if not trials:
        return ui.empty(
            "No trial yet",
            "Trials begin when the baseline is measured; each appears here with its evidence.",
            "clipboard-data",
        )
    wanted = view.choices.get("decisions-kind") or "all"
    verdict = view.choices.get("decisions-verdict") or "all"
    shown = [
        t
        for t in reversed(trials)
        if wanted in ("all", t.kind.value)
        and verdict in ("all", t.verdict.value if t.verdict else "running")
    ]
    shown.sort(key=lambda t: not is_waiting(t))
    if not shown:
        return ui.empty("No such trial", "Choose another kind or verdict.", "funnel")
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    scale = _scale(shown)
    return ui.table(
        ["Trial", "Kind", "Knobs", "Effect on the latency index", "Evidence", "Verdict and why"],
        [_row(t, statuses, scale, view) for t in shown[:MOST_SHOWN]],
        "trials",
    )


def versions(view: View) -> object:
    """What was deployed, newest first, each with its evidence and a way back."""
    rows = list(reversed(view.reader.policy_versions()))
    if not rows:
        return ui.empty("No version yet", "The server as found becomes version 1.", "layers")
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    body = []
    for version in rows[:30]:
        values = ", ".join(
            f"{name} = {fmt.knob_value(v, statuses[name].unit if name in statuses else None)}"
            for name, v in version.config.items()
        )
        body.append(
            [
                html.Div(
                    [
                        html.B(str(version.id)),
                        " ",
                        ui.badge("deployed", "good") if version.active else None,
                    ]
                ),
                view.viewer.time(version.created_at, now=view.now),
                html.Div([html.Div(version.author), html.Div(version.note, className="small")]),
                html.Div(
                    [
                        html.B(f"{version.index:.3f}"),
                        " ",
                        html.Span(fmt.percent(version.index - 1, signed=True), className="small"),
                    ]
                ),
                html.Div(values or "the server as found", className="small"),
                ""
                if version.active
                else ui.command_button(
                    CommandKind.ROLL_BACK,
                    {"version_id": version.id},
                    "Return to it",
                    place="versions",
                    icon_name="arrow-counterclockwise",
                    confirm=f"Put the server back to version {version.id}? "
                    "This works in every mode.",
                ),
            ]
        )
    return ui.table(["Version", "When", "By", "Index", "Knobs", ""], body)


def _selected(view: View) -> TrialRecord | None:
    number = view.choices.get("decisions-selected")
    return view.reader.trial(number) if isinstance(number, int) else None


def detail(view: View) -> object:
    """All that is known about the chosen trial."""
    trial = _selected(view)
    if trial is None:
        return ui.empty("No such trial", "It may have been removed by the retention.", "question")
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
            html.Div(_approval(trial, "detail"), className="page-actions")
            if is_waiting(trial)
            else None,
            ui.knob_diff(trial.before, trial.after, statuses),
            ui.facts(
                [
                    (
                        "Effect on the latency index",
                        f"{fmt.percent(trial.effect, signed=True)} "
                        f"[{fmt.percent(trial.ci_low, signed=True)} to "
                        f"{fmt.percent(trial.ci_high, signed=True)}] at "
                        f"{fmt.percent(trial.confidence, digits=0)}",
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
    return figures_trials.trial_windows_figure(windows, view.viewer)


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
                "Trials",
                html.Div(ui.skeleton(6), id="decisions-trials"),
                hint_id="hint-trials",
                hint_text="The bar shows the change of the latency index "
                "with its interval: left of the middle is faster. Choose a number for the "
                "evidence.",
                actions=[
                    html.Div(
                        dbc.Select(id="decisions-kind", options=kinds, value="all", size="sm")
                    ),
                    html.Div(
                        dbc.Select(id="decisions-verdict", options=verdicts, value="all", size="sm")
                    ),
                ],
            ),
            ui.card(
                "Deployed versions",
                html.Div(ui.skeleton(), id="decisions-versions"),
                class_name="spaced",
            ),
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
                                "Hollow: the sample quality was low, so it weighs little.",
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
    """A trial's number opens its evidence."""

    @app.callback(
        Output("decisions-selected", "data"),
        Output("decisions-dialog", "is_open"),
        Output("decisions-title", "children"),
        Input({"type": "trial", "id": ALL}, "n_clicks"),
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
        "decisions-trials.children": trial_table,
        "decisions-versions.children": versions,
        "decisions-detail.children": detail,
        "decisions-blocks.figure": lambda v: figures_trials.blocks_figure(_selected(v), v.viewer),
        "decisions-windows.figure": _windows_figure,
    },
    choices=(
        ("decisions-kind", "value"),
        ("decisions-verdict", "value"),
        ("decisions-selected", "data"),
    ),
    setup=setup,
)
