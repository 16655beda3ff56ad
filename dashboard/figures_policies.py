"""Policy updates and genomes → Plotly figures, as plain dictionaries. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from backend.domain.policies import GenomeRecord, PolicyUpdateRecord
from dashboard.figures import Figure, base_layout, empty_figure, level, plot_text
from dashboard.format import Viewer, number, percent
from dashboard.learning_outcomes import Outcome
from dashboard.theme import Palette, palette

SYMBOLS: Mapping[str, str] = {"knob": "circle", "plan": "diamond"}


def updates_figure(
    judged: Sequence[tuple[PolicyUpdateRecord, Outcome]], viewer: Viewer, waiting: str
) -> Figure:
    """The promised gain of each update with its interval, coloured by what became of it."""
    if not any(update.gain is not None for update, _outcome in judged):
        return empty_figure(viewer, waiting)
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="less latency, %", revision="updates")
    layout |= {"showlegend": True, "hovermode": "closest", "shapes": [level(0, colours.grey)]}
    layout["yaxis"] |= {"rangemode": "normal", "ticksuffix": " %"}
    data = []
    for outcome, colour in _outcome_colours(colours).items():
        mine = [u for u, found in judged if found is outcome and u.gain is not None]
        if mine:
            data.append(_updates(mine, outcome, colour, viewer))
    return {"data": data, "layout": layout}


def _outcome_colours(colours: Palette) -> Mapping[Outcome, str]:
    return {
        Outcome.IN_FORCE: colours.good,
        Outcome.REPLACED: colours.blue,
        Outcome.UNDONE: colours.bad,
        Outcome.REFUSED: colours.grey,
    }


def _updates(
    updates: Sequence[PolicyUpdateRecord], outcome: Outcome, colour: str, viewer: Viewer
) -> Figure:
    def off(bound: float | None, gain: float | None) -> float:
        return 0.0 if bound is None or gain is None else 100 * abs(bound - gain)

    return {
        "type": "scatter",
        "mode": "markers",
        "name": outcome.value,
        "x": [viewer.plot_time(u.at) for u in updates],
        "y": [100 * (u.gain or 0.0) for u in updates],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [off(u.gain_high, u.gain) for u in updates],
            "arrayminus": [off(u.gain_low, u.gain) for u in updates],
            "color": colour,
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {
            "size": 10,
            "color": colour,
            "symbol": [SYMBOLS.get(u.policy, "square") for u in updates],
        },
        "customdata": [
            plot_text(
                f"{u.policy} policy, {outcome.value}: {percent(u.gain, signed=True)} "
                f"[{percent(u.gain_low, signed=True)} to {percent(u.gain_high, signed=True)}]"
            )
            for u in updates
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


class Objective(NamedTuple):
    """What a genome is measured by: for people, the names in ``fitness`` that add up, the unit."""

    title: str
    names: tuple[str, ...]
    unit: str = ""

    def of(self, genome: GenomeRecord) -> float | None:
        """Its value in the unit; None where it was not measured, or has no end."""
        values = [genome.fitness.get(name, math.nan) for name in self.names]
        value = sum(values) * (100 if self.unit == "%" else 1)
        return value if math.isfinite(value) else None

    def text(self, value: float) -> str:
        """For people."""
        return f"{number(value)} {self.unit}".rstrip()


TRIALS = Objective("trials to 95 % of the gain", ("trials_to_95",))
REGRET = Objective("gain missed", ("regret",), "%")
INSTABILITY = Objective("spread and harmful proposals", ("spread", "harmful"), "%")
CPU = Objective("CPU time of a run", ("cpu_s",), "s")


def genomes_figure(
    genomes: Sequence[GenomeRecord],
    deployed: Mapping[str, float] | None,
    x: Objective,
    y: Objective,
    viewer: Viewer,
    waiting: str,
) -> Figure:
    """Two objectives of each genome, generation by generation; lower is better on both.

    Args:
        deployed: the genes of the genome that is deployed, to mark it.
    """
    known = [g for g in genomes if x.of(g) is not None and y.of(g) is not None]
    if not known:
        return empty_figure(viewer, waiting)
    colours = palette(viewer.dark)
    layout = _genome_layout(_axis(x), y, viewer, f"genomes-{x.title}-{y.title}")
    layout["xaxis"]["rangemode"] = "normal"

    def trace(name: str, rows: Sequence[GenomeRecord], marker: Figure) -> Figure:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [x.of(g) for g in rows],
            "y": [y.of(g) for g in rows],
            "marker": {"line": {"width": 1.2, "color": colours.surface}, **marker},
            "customdata": [_hover(g, x, y) for g in rows],
            "hovertemplate": "%{customdata}<extra></extra>",
        }

    marked = [g for g in known if g.origin == "default" or g.genes == deployed]
    plain = [g for g in known if g not in marked]
    data = [trace("measured", plain, _by_generation(plain, colours))] if plain else []
    data += _marked(known, deployed, trace, colours)
    return {"data": data, "layout": layout}


def generations_figure(
    genomes: Sequence[GenomeRecord],
    deployed: Mapping[str, float] | None,
    objective: Objective,
    viewer: Viewer,
    waiting: str,
) -> Figure:
    """An objective of each genome by generation, and the best so far."""
    known = [g for g in genomes if objective.of(g) is not None]
    if not known:
        return empty_figure(viewer, waiting)
    colours = palette(viewer.dark)
    layout = _genome_layout("generation", objective, viewer, f"generations-{objective.title}")
    layout["xaxis"] |= {"tickformat": "d", "nticks": 8}

    def trace(name: str, rows: Sequence[GenomeRecord], marker: Figure) -> Figure:
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [g.generation for g in rows],
            "y": [objective.of(g) for g in rows],
            "marker": {"line": {"width": 1.2, "color": colours.surface}, **marker},
            "customdata": [_hover(g, objective) for g in rows],
            "hovertemplate": "%{customdata}<extra></extra>",
        }

    best = _best_so_far(known, objective)
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": list(best),
        "y": list(best.values()),
        "line": {"color": colours.accent, "width": 2, "shape": "hv"},
        "customdata": [objective.text(v) for v in best.values()],
        "hovertemplate": "best so far %{customdata}<extra></extra>",
    }
    dots = trace("measured", known, {"size": 7, "color": colours.grey, "opacity": 0.55})
    return {"data": [dots, line, *_marked(known, deployed, trace, colours)], "layout": layout}


def _genome_layout(x_title: str, y: Objective, viewer: Viewer, revision: str) -> Figure:
    layout = base_layout(viewer, y_title=_axis(y), revision=revision, time_axis=False)
    layout |= {"showlegend": True}
    layout["xaxis"]["title"] = {**layout["xaxis"]["title"], "text": x_title}
    layout["yaxis"]["rangemode"] = "normal"
    return layout


def _axis(objective: Objective) -> str:
    return f"{objective.title}, {objective.unit}" if objective.unit else objective.title


def _by_generation(genomes: Sequence[GenomeRecord], colours: Palette) -> Figure:
    return {
        "size": 9,
        "color": [g.generation for g in genomes],
        "colorscale": [[0, colours.grey], [1, colours.accent]],
        "opacity": 0.85,
        "showscale": True,
        "colorbar": {
            "thickness": 8,
            "outlinewidth": 0,
            "tickformat": "d",
            "nticks": 5,
            "tickfont": {"color": colours.muted, "size": 11},
            "title": {"text": "generation", "side": "right", "font": {"color": colours.muted}},
        },
    }


def _marked(
    known: Sequence[GenomeRecord],
    deployed: Mapping[str, float] | None,
    trace: Callable[[str, Sequence[GenomeRecord], Figure], Figure],
    colours: Palette,
) -> list[Figure]:
    default = [g for g in known if g.origin == "default"]
    winner = [g for g in known if g.genes == deployed]
    marks = []
    if default:
        marks.append(
            trace("incumbent", default, {"symbol": "square", "size": 11, "color": colours.amber})
        )
    if winner:
        marks.append(
            trace("deployed", winner, {"symbol": "star", "size": 16, "color": colours.violet})
        )
    return marks


def _best_so_far(genomes: Sequence[GenomeRecord], objective: Objective) -> dict[int, float]:
    best: dict[int, float] = {}
    lowest = math.inf
    for genome in sorted(genomes, key=lambda g: g.generation):
        value = objective.of(genome)
        lowest = lowest if value is None else min(lowest, value)
        best[genome.generation] = lowest
    return best


def _hover(genome: GenomeRecord, *objectives: Objective) -> str:
    values = ", ".join(
        f"{o.title} {o.text(value)}" for o in objectives if (value := o.of(genome)) is not None
    )
    return plot_text(f"generation {genome.generation}, {genome.origin}: {values}")
