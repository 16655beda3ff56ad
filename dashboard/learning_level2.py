"""Level 2 for people: the genomes measured, the one deployed, and what it is better in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html
from dash.development.base_component import Component

from backend.domain.records import GenomeRecord
from dashboard import components as ui
from dashboard import figures_policies as figs
from dashboard import format as fmt
from dashboard.learning_genes import differing, gene_text, title_of
from dashboard.learning_levels import level_head, plain_tile
from dashboard.live import Builder, View

MOST_READ = 5000
MOST_COMPARISONS = 20
START = "python run.py evolve --minutes 20"
WAITING = "Appears with the first measured genomes"


def newest_study(view: View) -> Sequence[GenomeRecord]:
    """The genomes of the study that was at work last, oldest first."""
    newest = view.reader.genomes(limit=1)
    return view.reader.genomes(study=newest[-1].study, limit=MOST_READ) if newest else ()


def deployed_genome(view: View) -> GenomeRecord | None:
    """The genome that was deployed last, of any study."""
    genomes = view.reader.genomes(limit=MOST_READ)
    return next((g for g in reversed(genomes) if g.deployed), None)


def default_genome(view: View, study: Sequence[GenomeRecord]) -> GenomeRecord | None:
    """The default genome as it was measured: in the study, or in an earlier one."""
    for genomes in (study, view.reader.genomes(limit=MOST_READ)):
        found = next((g for g in reversed(genomes) if g.origin == "default"), None)
        if found is not None:
            return found
    return None


def summary(view: View) -> object:
    """How far the newest study is, and what it found."""
    study = newest_study(view)
    if not study:
        return html.Div(
            [
                ui.empty(
                    "No genome was measured yet",
                    "An evolution measures how fast, how steadily and at which cost each genome "
                    "learns, on what was recorded here.",
                    "diagram-2",
                ),
                _how_to_start("Start one with"),
            ],
            className="panel below",
        )
    default, deployed = default_genome(view, study), deployed_genome(view)
    best = min((t for g in study if (t := figs.TRIALS.of(g)) is not None), default=None)
    usual = figs.TRIALS.of(default) if default else None
    cpu_s = sum(figs.CPU.of(g) or 0.0 for g in study)
    gain = deployed.comparison.get("gain") if deployed else None
    return [
        html.Div(
            [
                plain_tile("Genomes", fmt.number(len(study)), f"of study {study[-1].study}"),
                plain_tile(
                    "Generations",
                    str(1 + max(g.generation for g in study)),
                    f"newest {view.viewer.time(study[-1].at, now=view.now)}",
                ),
                plain_tile("Fewest trials", fmt.quantity(best, ""), "to 95 % of the gain"),
                plain_tile("Default", fmt.quantity(usual, ""), "trials to 95 % of the gain"),
                plain_tile(
                    "Deployed",
                    fmt.percent(gain, signed=True) if deployed else "default",
                    "better on held-out problems" if deployed else "no other was better",
                ),
                plain_tile("CPU time", fmt.duration_text(cpu_s), "spent by this study"),
            ],
            className="tiles tiles-6",
        ),
        _how_to_start("Go on with"),
    ]


def _how_to_start(words: str) -> Component:
    return html.P(
        [
            f"{words} ",
            html.Code(START),
            "; it runs beside the tuner at low priority and can be stopped at any time.",
        ],
        className="quiet start-evolution",
    )


def genes(view: View) -> object:
    """In which genes the deployed genome differs from the default one."""
    deployed = deployed_genome(view)
    default = default_genome(view, newest_study(view))
    if deployed is None:
        return ui.empty(
            "The default genome is in force",
            "A genome that beats it on problems that the evolution never saw is deployed, and "
            "shown here with what it changes.",
            "sliders2",
        )
    changes = differing(default.genes, deployed.genes) if default else {}
    if default is not None and not changes:
        return ui.empty("It is the default genome", "No gene differs.", "check2-circle")
    if default is None:
        changes = {name: (None, value) for name, value in deployed.genes.items()}
    return html.Div(
        [
            html.P(
                [
                    f"Deployed {view.viewer.moment(deployed.at)}, of study {deployed.study}, "
                    f"generation {deployed.generation}. ",
                    deployed.reason,
                ],
                className="lead-text small",
            ),
            _gone_back(view),
            ui.table(
                ["Gene", "Default", "Deployed"],
                [
                    [
                        html.Div([title_of(name), html.Div(name, className="small mono")]),
                        html.Span(gene_text(before), className="value-old"),
                        html.Span(gene_text(after), className="value-new"),
                    ]
                    for name, (before, after) in changes.items()
                ],
                "genes",
            ),
        ]
    )


def _gone_back(view: View) -> Component | None:
    versions = view.reader.policy_versions(limit=1)
    if not versions or versions[-1].weights.get("genome"):
        return None
    return ui.badge("not in force: the deployed version goes without it", "warn")


def comparisons(view: View) -> object:
    """The genomes that were held against the one in force, on what the evolution never saw."""
    compared = [g for g in view.reader.genomes(limit=MOST_READ) if g.comparison]
    if not compared:
        return ui.empty(
            "Nothing was compared yet",
            "The best genome of an evolution is held against the one in force, on workloads and "
            "seeds that it never saw.",
            "clipboard-data",
        )
    return ui.table(
        ["When", "Genome", "Gain [interval]", "Outcome and why"],
        [_comparison(g, view) for g in reversed(compared[-MOST_COMPARISONS:])],
        "comparisons",
    )


def _comparison(genome: GenomeRecord, view: View) -> list[Any]:
    gain, low, high = (genome.comparison.get(name) for name in ("gain", "low", "high"))
    tone = "good" if (low or 0.0) > 0 else "bad" if (high or 0.0) < 0 else ""
    return [
        html.Span(view.viewer.time(genome.at, now=view.now), title=view.viewer.moment(genome.at)),
        html.Div(
            [
                html.Div(f"generation {genome.generation}"),
                html.Div(f"study {genome.study}", className="small"),
            ]
        ),
        html.Div(
            [
                html.Span(fmt.percent(gain, signed=True), className=f"strong {tone}".strip()),
                html.Span(
                    f" [{fmt.percent(low, signed=True)} to {fmt.percent(high, signed=True)}]",
                    className="small",
                ),
            ]
        ),
        html.Div(
            [
                ui.badge("deployed", "good", "check-lg")
                if genome.deployed
                else ui.badge("not deployed", "neutral", "slash-circle"),
                html.Div(genome.reason, className="small"),
            ]
        ),
    ]


def section() -> list[Component]:
    """Level 2's part of the page without its numbers."""
    lower = "Lower is better on both axes; each dot is a genome that really learnt."
    return [
        level_head(2),
        html.Div(ui.skeleton(3), id="learning-level2"),
        html.Div(
            [
                ui.card(
                    "Speed and steadiness",
                    ui.graph("learning-genomes-spread", 280, "genomes by speed and spread"),
                    hint_id="hint-genomes-spread",
                    hint_text=f"{lower} Spread: how much the outcome differs between seeds.",
                ),
                ui.card(
                    "Speed and cost",
                    ui.graph("learning-genomes-cost", 280, "genomes by speed and CPU time"),
                    hint_id="hint-genomes-cost",
                    hint_text=f"{lower} Cost: CPU time of its learning.",
                ),
                ui.card(
                    "By generation",
                    ui.graph("learning-generations", 280, "regret by generation"),
                    hint_id="hint-generations",
                    hint_text="Regret: what was lost on the way to the best configuration, summed "
                    "over the trials; lower is better.",
                ),
                ui.card(
                    "What the deployed genome changes",
                    html.Div(ui.skeleton(4), id="learning-genes"),
                ),
                ui.card(
                    "Comparisons on held-out problems",
                    html.Div(ui.skeleton(3), id="learning-comparisons"),
                    class_name="span-2",
                    hint_id="hint-comparisons",
                    hint_text="Against the genome in force at that time, on workloads and seeds "
                    "that the evolution never saw; only a gain clear of 0 is deployed.",
                ),
            ],
            className="grid-2",
        ),
    ]


def _scatter(y: figs.Objective) -> Builder:
    return lambda v: figs.genomes_figure(
        newest_study(v), deployed_genome(v), figs.TRIALS, y, v.viewer, WAITING
    )


PARTS: Mapping[str, Builder] = {
    "learning-level2.children": summary,
    "learning-genomes-spread.figure": _scatter(figs.SPREAD),
    "learning-genomes-cost.figure": _scatter(figs.CPU),
    "learning-generations.figure": lambda v: figs.generations_figure(
        newest_study(v), deployed_genome(v), figs.REGRET, v.viewer, WAITING
    ),
    "learning-genes.children": genes,
    "learning-comparisons.children": comparisons,
}
