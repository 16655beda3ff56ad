"""Learning: three levels, and how good the measurements are that they learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from backend.domain.records import LearningRecord, WindowRecord
from dashboard import components as ui
from dashboard import figures_learning as figs
from dashboard import format as fmt
from dashboard import learning_level1, learning_level2, plan_learning
from dashboard.learning_levels import level_head, overview, plain_tile
from dashboard.live import Page, View
from dashboard.theme import palette

WAITING = "Appears when the agent has learned from its first trials"


def _records(view: View) -> Sequence[LearningRecord]:
    return view.reader.learning(limit=1000)


def _windows(view: View) -> Sequence[WindowRecord]:
    return view.reader.windows(limit=1000)


def tiles(view: View) -> object:
    """The agent's present numbers."""
    records = _records(view)
    windows = _windows(view)
    last = records[-1] if records else None
    low = sum(w.quality < view.floors.training for w in windows)
    reward = figs.rolling_mean([r.reward for r in records if r.reward is not None][-10:])

    def newest(name: str) -> float | None:
        return next(
            (getattr(r, name) for r in reversed(records) if getattr(r, name) is not None), None
        )

    return [
        plain_tile("Learning steps", str(last.step) if last else "0", "measurements told to it"),
        plain_tile(
            "Reward", fmt.quantity(reward[-1] if reward else None, ""), "mean of the newest 10"
        ),
        plain_tile(
            "Replay",
            fmt.quantity(last.replay_size if last else None, ""),
            "transitions it can learn from",
        ),
        plain_tile(
            "Exploration noise", fmt.quantity(newest("noise"), ""), "of a range of \u22121 to 1"
        ),
        plain_tile(
            "Critic loss", fmt.quantity(newest("critic_loss"), ""), "how wrong its forecasts are"
        ),
        plain_tile(
            "Low quality",
            fmt.percent(low / len(windows)) if windows else fmt.NONE,
            f"{low} of {len(windows)} windows are below {view.floors.training:g}",
        ),
    ]


def reasons(view: View) -> object:
    """Why windows were given less than full quality."""
    windows = _windows(view)
    counts = Counter(reason for w in windows for reason in w.quality_reasons)
    if not counts:
        return ui.empty(
            "Nothing was held against a window",
            "Reasons for low quality are counted "
            "here: swinging load, low coverage, outside events.",
            "check2-circle",
        )
    total = len(windows)
    return ui.table(
        ["Reason", "Windows", "Share"],
        [
            [reason, str(count), fmt.percent(count / total)]
            for reason, count in counts.most_common(12)
        ],
    )


def frame() -> Component:
    """The page without its numbers."""
    return html.Div(
        [
            ui.page_head("Learning", "Three levels learn from what is measured."),
            html.Div(ui.skeleton(3), id="learning-levels", className="grid-3 level-cards"),
            level_head(0),
            html.H3("Knob agent", className="agent-head"),
            html.Div(ui.skeleton(3), id="learning-tiles", className="tiles tiles-6"),
            html.Div(
                [
                    ui.card(
                        "Reward",
                        ui.graph("learning-reward", 240, "reward"),
                        hint_id="hint-reward",
                        hint_text="Higher is better: how much lower the "
                        "latency index was than the incumbent's, less what it cost in resources "
                        "and errors. Rewards of exploring trials are often negative.",
                    ),
                    ui.card(
                        "What the reward is made of",
                        ui.graph("learning-terms", 240, "terms of the reward"),
                        subtitle="rolling means",
                    ),
                    ui.card(
                        "Critic loss",
                        ui.graph("learning-critic", 200, "critic loss"),
                        hint_id="hint-critic",
                        hint_text="How far the critics' forecasts of the "
                        "reward are from what was measured; it should fall, and then stay level.",
                        subtitle="logarithmic",
                    ),
                    ui.card(
                        "Actor loss",
                        ui.graph("learning-actor", 200, "actor loss"),
                        hint_id="hint-actor",
                        hint_text="Minus the reward that the critics expect "
                        "of the actor's proposals: lower means that it expects more.",
                    ),
                    ui.card(
                        "Exploration noise",
                        ui.graph("learning-noise", 200, "exploration noise"),
                        hint_id="hint-noise",
                        hint_text="How far proposals are moved at random, "
                        "in the knobs' common range of −1 to 1.",
                    ),
                    ui.card(
                        "Replay",
                        ui.graph("learning-replay", 200, "replay size"),
                        hint_id="hint-replay",
                        hint_text="How many measurements it can learn from again.",
                    ),
                    ui.card(
                        "Sample quality",
                        ui.graph("learning-quality", 240, "sample quality"),
                        hint_id="hint-quality",
                        hint_text="How far each window can be trusted: "
                        "windows spoilt by swings of the clients' load weigh little in the "
                        "critics' loss, and below the dotted line they train nothing.",
                        subtitle="by window",
                    ),
                    ui.card("Why quality was lost", html.Div(ui.skeleton(), id="learning-reasons")),
                ],
                className="grid-2",
            ),
            *plan_learning.section(),
            *learning_level1.section(),
            *learning_level2.section(),
        ]
    )


def _steps(
    name: str, title: str, *, smooth: bool = False, log: bool = False, colour: str = "accent"
) -> object:
    return lambda v: figs.step_figure(
        _records(v),
        lambda r: getattr(r, name),
        v.viewer,
        name=title,
        y_title=title,
        revision=name,
        waiting=WAITING,
        smooth=smooth,
        log=log,
        colour=getattr(palette(v.viewer.dark), colour),
    )


PAGE = Page(
    path="/learning",
    title="Learning",
    icon="mortarboard",
    frame=frame,
    parts={
        "learning-levels.children": overview,
        "learning-tiles.children": tiles,
        "learning-reward.figure": _steps("reward", "reward", smooth=True),
        "learning-terms.figure": lambda v: figs.reward_terms_figure(_records(v), v.viewer),
        "learning-critic.figure": _steps("critic_loss", "critic loss", log=True, colour="amber"),
        "learning-actor.figure": _steps("actor_loss", "actor loss", colour="violet"),
        "learning-noise.figure": _steps("noise", "noise", colour="blue"),
        "learning-replay.figure": _steps("replay_size", "transitions", colour="grey"),
        "learning-quality.figure": lambda v: figs.quality_figure(
            _windows(v), v.floors.training, v.viewer
        ),
        "learning-reasons.children": reasons,
        **plan_learning.PARTS,
        **learning_level1.PARTS,
        **learning_level2.PARTS,
    },
)
