"""What the plan agent learnt from statements that were tried under other plans, for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from dash import html
from dash.development.base_component import Component

from backend.domain.records import LearningRecord
from dashboard import components as ui
from dashboard import figures_learning as figs
from dashboard import format as fmt
from dashboard.learning_levels import plain_tile
from dashboard.live import Builder, View
from dashboard.steering_head import how_to_turn_on
from dashboard.theme import palette

AGENT = "plan"
WAITING = "Appears when other plans were tried"


def records(view: View) -> Sequence[LearningRecord]:
    """The plan agent's records; updates are counted on where it was started anew."""
    before, last, counted = 0, 0, []
    for record in view.reader.learning(agent=AGENT, limit=1000):
        if record.step < last:
            before += last
        last = record.step
        counted.append(replace(record, step=before + last))
    return counted


def expected_change(record: LearningRecord) -> float | None:
    """The relative change of latency that a search is expected to end with, in percent."""
    return None if record.reward is None else 100 * math.expm1(-record.reward)


def miss_factor(record: LearningRecord) -> float | None:
    """How many times its promises may be passed; 1 is never."""
    shortfall = record.reward_terms.get("shortfall")
    return None if shortfall is None else math.exp(shortfall)


def summary(view: View) -> object:
    """The agent's present numbers, or why there are none."""
    known = records(view)
    if not known:
        return _nothing(view)
    last = known[-1]
    change, miss = expected_change(last), miss_factor(last)
    trust = last.reward_terms.get("trust")

    return html.Div(
        [
            plain_tile("Plans learnt from", fmt.quantity(last.replay_size, ""), "run on trial"),
            plain_tile("Updates", fmt.number(last.step), "of its networks"),
            plain_tile(
                "Expected change",
                fmt.NONE if change is None else fmt.percent(change / 100, signed=True),
                "of latency, mean of statements",
            ),
            plain_tile(
                "Trust",
                fmt.percent(trust) if trust is not None else fmt.NONE,
                "of the promised gain came true",
            ),
            plain_tile(
                "Typical miss",
                fmt.NONE if miss is None else f"{fmt.number(miss)} times",
                "slower than promised",
            ),
            plain_tile("Loss", fmt.quantity(last.critic_loss, ""), "how wrong its forecasts are"),
        ],
        className="tiles tiles-6",
    )


def _nothing(view: View) -> Component:
    status = view.reader.steering_status()
    off = status is not None and not status.enabled
    return html.Div(
        [
            ui.empty(
                "The plan agent has not learnt yet",
                "It learns from statements that were tried under other plans; none yet.",
                "signpost-split",
            ),
            html.P(["Exploration is off. ", *how_to_turn_on()], className="quiet") if off else None,
        ],
        className="panel below",
    )


def section() -> list[Component]:
    """The agent's part of the page without its numbers."""
    return [
        html.H3("Plan agent", className="agent-head"),
        html.P(
            "It guesses better plans for statements that were never tried under them; only what "
            "measurements prove is steered.",
            className="quiet",
        ),
        html.Div(ui.skeleton(3), id="learning-plan"),
        html.Div(
            [
                ui.card(
                    "Expected change of latency",
                    ui.graph("learning-plan-value", 200, "expected change of latency"),
                    hint_id="hint-plan-value",
                    hint_text="Lower is better: the latency that it expects a search for a better "
                    "plan to end with, against the default plan's, mean over the statements it "
                    "learnt from. A forecast, not a measurement.",
                ),
                ui.card(
                    "Trust",
                    ui.graph("learning-plan-trust", 200, "trust"),
                    hint_id="hint-plan-trust",
                    hint_text="How much of the gain it promised came true, for query classes that "
                    "were kept from it: 0 is nothing, 1 all. With little trust it stays with the "
                    "default plan.",
                ),
                ui.card(
                    "Typical miss",
                    ui.graph("learning-plan-miss", 200, "typical miss"),
                    hint_id="hint-plan-miss",
                    hint_text="How many times slower than promised its choices for query classes "
                    "kept from it typically were; 1 is as promised. It is held against every "
                    "guess.",
                ),
                ui.card(
                    "Loss",
                    ui.graph("learning-plan-loss", 200, "loss of the plan agent"),
                    hint_id="hint-plan-loss",
                    hint_text="How far its forecasts are from the plans that were measured; it "
                    "should fall, and rise a little when new statements come.",
                    subtitle="logarithmic",
                ),
            ],
            className="grid-2",
        ),
    ]


def _figure(
    name: str,
    title: str,
    read: Callable[[LearningRecord], float | None],
    colour: str,
    *,
    log: bool = False,
) -> Builder:
    return lambda v: figs.step_figure(
        records(v),
        read,
        v.viewer,
        name=title,
        y_title=title,
        x_title="updates",
        revision=f"plan-{name}",
        waiting=WAITING,
        log=log,
        colour=getattr(palette(v.viewer.dark), colour),
    )


PARTS: dict[str, Builder] = {
    "learning-plan.children": summary,
    "learning-plan-value.figure": _figure("value", "change, %", expected_change, "accent"),
    "learning-plan-trust.figure": _figure(
        "trust", "trust", lambda r: r.reward_terms.get("trust"), "blue"
    ),
    "learning-plan-miss.figure": _figure("miss", "times", miss_factor, "violet"),
    "learning-plan-loss.figure": _figure(
        "loss", "loss", lambda r: r.critic_loss, "amber", log=True
    ),
}
