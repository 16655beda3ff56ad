"""The table of trials: each with its knobs, effect, evidence, verdict and reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html
from dash.development.base_component import Component

from backend.domain.modes import Mode, TrialKind
from backend.domain.records import KnobStatusRecord, TrialRecord
from dashboard import components as ui
from dashboard import format as fmt
from dashboard.live import View

MOST_SHOWN = 60
KIND_MEANINGS: Mapping[TrialKind, str] = {
    TrialKind.PROBE: "one quick look; cheap and noisy",
    TrialKind.PROMOTION: "randomised blocks; only this can change what is deployed",
    TrialKind.PROBATION: "a deployed change has to prove itself again",
    TrialKind.RECHECK: "a deployed change is looked at again, long after",
    TrialKind.FINAL: "the final against the initial configuration",
}


def interval_text(trial: TrialRecord) -> str | None:
    """The effect's interval for people; None where there is none, as after a probe's one block."""
    low, high = trial.ci_low, trial.ci_high
    if low is None or high is None or not low < high:
        return None
    return f"{fmt.percent(low, signed=True)} to {fmt.percent(high, signed=True)}"


def interval_bar(trial: TrialRecord, scale: float) -> object:
    """The effect with its interval as a bar around 0; left of the middle is faster."""
    if trial.effect is None:
        return html.Span(fmt.NONE, className="quiet-inline")
    text = fmt.percent(trial.effect, signed=True)
    interval = interval_text(trial)
    if interval is None or trial.ci_low is None or trial.ci_high is None:
        return html.Div(
            [
                html.Span(text, className="strong"),
                html.Div("one block, no interval", className="small") if trial.blocks else None,
            ]
        )

    def place(value: float) -> float:
        return 50 + 50 * min(max(value / scale, -1), 1)

    low, high = place(trial.ci_low), place(trial.ci_high)
    tone = "good" if trial.ci_high < 0 else "bad" if trial.ci_low > 0 else ""
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
                title=f"{fmt.confidence(trial.confidence)} interval: {interval}",
            ),
        ]
    )


def _verdict_cell(trial: TrialRecord) -> Component:
    progress = (
        ui.progress_bar(trial.progress, f"progress of trial {trial.id}", "slim")
        if trial.verdict is None
        else None
    )
    return html.Div(
        [
            ui.verdict_badge(trial.verdict, trial.state.value),
            progress,
            html.Div("; ".join(trial.reasons), className="small"),
        ]
    )


def _row(
    trial: TrialRecord, statuses: Mapping[str, KnobStatusRecord], scale: float, view: View
) -> list[Any]:
    blocks = f"{trial.blocks} of {trial.max_blocks}" if trial.max_blocks else str(trial.blocks)
    plural = "block" if trial.max_blocks == 1 else "blocks"
    restart = ui.badge("restart", "warn") if trial.needs_restart else None
    return [
        html.Button(
            f"#{trial.id}",
            id={"type": "trial", "id": trial.id or 0, "place": "list"},
            type="button",
            className="link-button",
            title="Show the evidence",
        ),
        html.Div(
            [
                html.Div(trial.kind.value, className="strong", title=KIND_MEANINGS[trial.kind]),
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
    ends = sorted(
        abs(v) for t in trials if interval_text(t) for v in (t.ci_low, t.ci_high) if v is not None
    )
    return max(0.05, ends[int(0.9 * (len(ends) - 1))]) if ends else 0.05


def _beginning(mode: Mode | None) -> str:
    """When trials begin in this mode."""
    if mode in (Mode.OBSERVE, Mode.ADVISE):
        return f"In mode {mode.value} nothing is tried; approve and auto try."
    if mode is Mode.APPROVE:
        return "Trials begin once you have approved an experiment plan, which waits above."
    return "Trials begin when the baseline is measured; each appears here with its evidence."


def trial_table(view: View) -> object:
    """The newest trials."""
    trials = view.reader.trials()
    if not trials:
        return ui.empty("No trial yet", _beginning(view.mode), "clipboard-data")
    wanted = view.choices.get("decisions-kind") or "all"
    verdict = view.choices.get("decisions-verdict") or "all"
    shown = [
        t
        for t in reversed(trials)
        if wanted in ("all", t.kind.value)
        and verdict in ("all", t.verdict.value if t.verdict else "running")
    ]
    if not shown:
        return ui.empty("No such trial", "Choose another kind or verdict.", "funnel")
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    scale = _scale(shown)
    return ui.table(
        ["Trial", "Kind", "Knobs", "Effect on the latency index", "Evidence", "Verdict and why"],
        [_row(t, statuses, scale, view) for t in shown[:MOST_SHOWN]],
        "trials",
    )
