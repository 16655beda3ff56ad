"""The three levels of learning: what each is, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dash import html
from dash.development.base_component import Component

from dashboard import components as ui
from dashboard import format as fmt
from dashboard.live import View


class Level(NamedTuple):
    """A level: its name and what it is, in one sentence."""

    name: str
    text: str


LEVELS: Mapping[int, Level] = {
    0: Level(
        "Agents",
        "Two agents learn from every measurement while the server runs: one proposes knobs, the "
        "other plans for single statements.",
    ),
    1: Level(
        "Policies",
        "Now and then new policies are learnt from all that was recorded; one is deployed only if "
        "it is better on records that it never saw.",
    ),
    2: Level(
        "Genomes",
        "Evolution looks for better settings of the learning itself: each genome really learns, "
        "and what it cost and brought is measured.",
    ),
}


def level_head(number: int) -> Component:
    """A level's heading, where links to it lead."""
    return html.Div(
        html.H2([ui.badge(f"Level {number}", "accent"), LEVELS[number].name]),
        id=f"level-{number}",
        className="level-head",
    )


def plain_tile(label: str, value: str, note: str) -> Component:
    """A number with its name and what it means."""
    return html.Div(
        [
            html.Div(label, className="tile-label"),
            html.Div(value, className="tile-value"),
            html.Div(note, className="tile-note"),
        ],
        className="tile plain-tile",
    )


def overview(view: View) -> object:
    """The three levels side by side, each with a link to its part of the page."""
    facts = {0: _level0(view), 1: _level1(view), 2: _level2(view)}
    return [
        html.A(
            [
                html.Div(
                    [ui.badge(f"Level {number}", "accent"), html.B(level.name)], className="tags"
                ),
                html.Div(level.text, className="small"),
                html.Div(facts[number], className="level-fact"),
            ],
            href=f"#level-{number}",
            className="panel level-card",
        )
        for number, level in LEVELS.items()
    ]


def _level0(view: View) -> str:
    knob = view.reader.learning(limit=1000)
    plan = view.reader.learning(agent="plan", limit=1000)
    plans = plan[-1].replay_size if plan else 0
    steps = knob[-1].step if knob else 0
    return f"{fmt.number(steps)} learning steps, {fmt.number(plans)} plans learnt from"


def _level1(view: View) -> str:
    updates = view.reader.policy_updates(limit=500)
    if not updates:
        return "no update yet" if view.update_interval_s is not None else "off"
    return f"{len(updates)} updates tried, {sum(u.deployed for u in updates)} deployed"


def _level2(view: View) -> str:
    genomes = view.reader.genomes(limit=5000)
    if not genomes:
        return "nothing evolved yet"
    count = sum(not g.comparison and not g.deployed for g in genomes)
    deployed = sum(g.deployed for g in genomes)
    return f"{fmt.number(count)} genomes measured, {fmt.number(deployed)} deployed"
