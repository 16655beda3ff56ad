"""The plans that were tried on a query class: the fastest and the slowest of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dash import html
from dash.development.base_component import Component

from backend.domain.plans import DEFAULT_HINT_SET, RunOutcome
from backend.domain.steering import ClassKey, PlanRunRecord, RunPurpose
from dashboard import components as ui
from dashboard import format as fmt
from dashboard import steering_words as words

MOST_RUNS = 1000
EACH_END = 4
TELLING = (RunOutcome.FINISHED, RunOutcome.TIMED_OUT)


@dataclass(frozen=True)
class TriedPlan:
    """A plan that was run on trial.

    Args:
        settings: the hint set that led to it.
        ratio: latency ÷ the default plan's for the same statement, the median of its runs.
        latency_s: the median latency.
        stopped: no run ended; both numbers are lower bounds.
    """

    settings: dict[str, str]
    ratio: float
    latency_s: float
    stopped: bool


def tried_plans(runs: Sequence[PlanRunRecord], key: ClassKey) -> list[TriedPlan]:
    """The plans of a class, the fastest first, those that never ended last."""
    by_plan: dict[str, list[PlanRunRecord]] = {}
    for run in runs:
        if (
            run.key == key
            and run.purpose is RunPurpose.PROBE
            and run.hint_set != DEFAULT_HINT_SET.name
            and run.outcome in TELLING
            and run.default_latency_s
        ):
            by_plan.setdefault(run.plan_hash, []).append(run)
    return sorted(map(_tried, by_plan.values()), key=lambda plan: (plan.stopped, plan.ratio))


def _tried(runs: Sequence[PlanRunRecord]) -> TriedPlan:
    ended = [run for run in runs if run.outcome is RunOutcome.FINISHED]
    middle = median if ended else max
    counted = ended or runs
    return TriedPlan(
        dict(runs[-1].settings),
        middle([r.latency_s / r.default_latency_s for r in counted if r.default_latency_s]),
        middle([r.latency_s for r in counted]),
        stopped=not ended,
    )


def tried_table(runs: Sequence[PlanRunRecord], key: ClassKey) -> Component | None:
    """The fastest and the slowest few, and how many there were; None where none was tried."""
    plans = tried_plans(runs, key)
    if not plans:
        return None
    shown = plans if len(plans) <= 2 * EACH_END else [*plans[:EACH_END], *plans[-EACH_END:]]
    total = f"{len(plans)} other plan{'' if len(plans) == 1 else 's'} tried"
    which = f", the {EACH_END} fastest and the {EACH_END} slowest of them" * (shown is not plans)
    return html.Div(
        [
            html.H3("Plans tried"),
            ui.table(["Settings", "Latency", "Against the default plan"], list(map(_row, shown))),
            html.P(
                f"{total}{which}. Single runs on trial: only paired runs prove a gain.",
                className="quiet",
            ),
        ]
    )


def _row(plan: TriedPlan) -> list[object]:
    latency = fmt.ms_text(1000 * plan.latency_s)
    times = f"{fmt.number(plan.ratio)} times"
    change = times if plan.ratio >= 2 else fmt.percent(plan.ratio - 1, signed=True, digits=0)
    tone = "good" if plan.ratio < 1 and not plan.stopped else ""
    return [
        html.Span(words.hint_words(plan.settings), title=words.set_lines(plan.settings)),
        f"over {latency}, stopped" if plan.stopped else latency,
        html.Span(f"over {change}" if plan.stopped else change, className=f"strong {tone}".strip()),
    ]
