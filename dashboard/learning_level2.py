"""Level 2 for people: the genomes measured, the one deployed, and what it is better in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from dash import html
from dash.development.base_component import Component

from backend.domain.policies import GenomeRecord
from dashboard import components as ui
from dashboard import figures_policies as figs
from dashboard import format as fmt
from dashboard.learning_genes import differing, gene_text, title_of
from dashboard.learning_levels import level_head, plain_tile
from dashboard.live import Builder, View

MOST_READ = 5000
MOST_COMPARISONS = 20
AT_WORK_WITHIN = timedelta(minutes=5)
"""An evolution is taken to be at work if its newest sign of life is younger."""
START = "python run.py evolve --minutes 20"
WAITING = "Appears with the first measured genomes"


def measured(genomes: Sequence[GenomeRecord]) -> Sequence[GenomeRecord]:
    """The individuals among them: neither the comparison in the end, nor a way back."""
    return [g for g in genomes if not g.comparison and not g.deployed]


def newest_study(view: View) -> Sequence[GenomeRecord]:
    """The individuals of the study that was at work last, oldest first."""
    every = measured(view.reader.genomes(limit=MOST_READ))
    return [g for g in every if g.study == every[-1].study]


def deployed_genome(view: View) -> GenomeRecord | None:
    """The genome that was deployed last, of any study."""
    genomes = view.reader.genomes(limit=MOST_READ)
    return next((g for g in reversed(genomes) if g.deployed), None)


def incumbent_of(view: View, study: str) -> GenomeRecord | None:
    """The genome that a study began with; without an evolution before it, the default one."""
    genomes = view.reader.genomes(limit=MOST_READ)
    return next((g for g in genomes if g.study == study and g.origin == "default"), None)


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
                _last_outcome(view),
                _progress(view) or _how_to_start(),
            ],
            className="panel below",
        )
    incumbent, deployed = incumbent_of(view, study[-1].study), deployed_genome(view)
    gain = deployed.comparison.get("gain") if deployed else None
    return [
        html.Div(
            [
                plain_tile("Genomes", fmt.number(len(study)), f"of {study[-1].study}"),
                plain_tile(
                    "Generations",
                    str(1 + max(g.generation for g in study)),
                    f"newest genome {view.viewer.time(study[-1].at, now=view.now)}",
                ),
                _best("Fewest trials", figs.TRIALS, study, incumbent),
                _best("Least gain missed", figs.REGRET, study, incumbent),
                _best("Least CPU time", figs.CPU, study, incumbent),
                plain_tile(
                    "Deployed",
                    fmt.percent(gain, signed=True) if deployed else "none",
                    "trials saved on held-out problems"
                    if gain is not None
                    else "nothing beat it"
                    if deployed is None
                    else "see below",
                ),
            ],
            className="tiles tiles-6",
        ),
        _last_outcome(view),
        _progress(view) or _how_to_start(),
    ]


def _best(
    label: str,
    objective: figs.Objective,
    study: Sequence[GenomeRecord],
    incumbent: GenomeRecord | None,
) -> Component:
    best = min((v for g in study if (v := objective.of(g)) is not None), default=None)
    usual = objective.of(incumbent) if incumbent else None
    return plain_tile(
        label,
        fmt.quantity(best, objective.unit),
        f"{fmt.quantity(usual, objective.unit)} with the incumbent",
    )


def _progress(view: View) -> Component | None:
    """How far the evolution is that is at work; None where none is."""
    evolution = view.reader.evolution()
    if evolution is None or evolution.ended_at is not None:
        return None
    if view.now - evolution.at > AT_WORK_WITHIN:
        return None
    begun = "that began by itself " if evolution.by_itself else ""
    return html.Div(
        [
            html.Div(
                f"An evolution {begun}is at work: {evolution.activity or 'preparing'}",
                className="activity-text",
            ),
            ui.progress_bar(evolution.share, "progress of the evolution"),
        ],
        className="panel evolution-progress",
    )


def _last_outcome(view: View) -> Component | None:
    """What came of the evolution that ended last; None where none did."""
    evolution = view.reader.evolution()
    if evolution is None or evolution.ended_at is None:
        return None
    ended = view.viewer.time(evolution.ended_at, now=view.now)
    return html.P(f"The last evolution ended {ended}. {evolution.reason}", className="small")


def _how_to_start() -> Component:
    return html.P(
        [
            "Unless level2.enabled is off, one begins by itself (level2.evaluation_interval). "
            "Begin one now with ",
            html.Code(START),
            "; it runs beside the tuner, on processor time that nobody else wants.",
        ],
        className="quiet start-evolution",
    )


def genes(view: View) -> object:
    """In which genes the deployed genome differs from the default one."""
    deployed = deployed_genome(view)
    if deployed is None:
        return ui.empty(
            "The default genome is in force",
            "A genome that beats it on problems that the evolution never saw is deployed, and "
            "shown here with what it changes.",
            "sliders2",
        )
    incumbent = incumbent_of(view, deployed.study)
    before = incumbent.genes if incumbent else {}
    changes = differing(before, deployed.genes)
    return html.Div(
        [
            html.P(
                f"Deployed {view.viewer.moment(deployed.at)}, of {deployed.study}: "
                f"{deployed.reason}",
                className="small",
            ),
            _in_force(deployed, view),
            ui.table(
                ["Gene", "Incumbent", "Deployed"],
                [
                    [
                        html.Div([title_of(name), html.Div(name, className="small mono")]),
                        html.Span(gene_text(old), className="value-old"),
                        html.Span(gene_text(new), className="value-new"),
                    ]
                    for name, (old, new) in changes.items()
                ],
                "genes",
            )
            if changes
            else ui.empty("It is the incumbent of that study", "No gene differs.", "check2-circle"),
        ]
    )


def _in_force(deployed: GenomeRecord, view: View) -> Component | None:
    status = view.reader.status()
    if status is None:
        return None
    if status.genome == deployed.id:
        return ui.badge("in force", "good", "check-lg")
    return ui.badge(
        "not in force: the tuner chooses by workload, before a trial", "info", "hourglass-split"
    )


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
        ["When", "Genome", "Trials saved", "Outcome and why"],
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
                html.Div(f"after {genome.generation} generations"),
                html.Div(genome.study, className="small"),
            ]
        ),
        html.Div(
            [
                html.Span(fmt.percent(gain, signed=True), className=f"strong {tone}".strip()),
                html.Span(
                    f" [{fmt.percent(low, signed=True)} to {fmt.percent(high, signed=True)}]",
                    className="small",
                ),
                html.Div(_pairs(genome), className="small"),
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


def _pairs(genome: GenomeRecord) -> str:
    pairs = genome.comparison.get("pairs")
    return "" if pairs is None else f"{fmt.number(pairs)} pairs of runs"


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
                    ui.graph("learning-genomes-steady", 280, "genomes by speed and steadiness"),
                    hint_id="hint-genomes-steady",
                    hint_text=f"{lower} Gain missed: the share of the possible gain that clients "
                    "did not have, averaged over the run. Upwards: how much that differs between "
                    "seeds, plus the share of proposals that were clearly slower.",
                ),
                ui.card(
                    "Speed and cost",
                    ui.graph("learning-genomes-cost", 280, "genomes by speed and CPU time"),
                    hint_id="hint-genomes-cost",
                    hint_text=f"{lower} Cost: CPU time of a learning run.",
                ),
                ui.card(
                    "By generation",
                    ui.graph("learning-generations", 280, "trials by generation"),
                    hint_id="hint-generations",
                    hint_text="How many trials it takes until what is deployed has 95 % of the "
                    "possible gain; lower is better.",
                ),
                ui.card(
                    "What the deployed genome changes",
                    html.Div(ui.skeleton(4), id="learning-genes"),
                    hint_id="hint-genes",
                    hint_text="Against the incumbent: the genome that its study began with. That "
                    "is the default one until another was deployed.",
                ),
                ui.card(
                    "Comparisons on held-out problems",
                    html.Div(ui.skeleton(3), id="learning-comparisons"),
                    class_name="span-2",
                    hint_id="hint-comparisons",
                    hint_text="Against the incumbent, on workloads and seeds that the evolution "
                    "never saw: how many fewer trials it takes to 95 % of the gain. Only what is "
                    "clear of 0 is deployed.",
                ),
            ],
            className="grid-2",
        ),
    ]


def _deployed_genes(view: View) -> Mapping[str, float] | None:
    deployed = deployed_genome(view)
    return deployed.genes if deployed else None


def _scatter(y: figs.Objective) -> Builder:
    return lambda v: figs.genomes_figure(
        newest_study(v), _deployed_genes(v), figs.REGRET, y, v.viewer, WAITING
    )


PARTS: Mapping[str, Builder] = {
    "learning-level2.children": summary,
    "learning-genomes-steady.figure": _scatter(figs.INSTABILITY),
    "learning-genomes-cost.figure": _scatter(figs.CPU),
    "learning-generations.figure": lambda v: figs.generations_figure(
        newest_study(v), _deployed_genes(v), figs.TRIALS, v.viewer, WAITING
    ),
    "learning-genes.children": genes,
    "learning-comparisons.children": comparisons,
}
