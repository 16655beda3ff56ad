"""Trials and query classes → Plotly figures, as plain dictionaries. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from backend.domain.modes import Arm
from backend.domain.records import TrialRecord, WindowRecord
from dashboard.figures import Figure, base_layout, empty_figure, level, line, shade_phases
from dashboard.format import Viewer, ms_text, percent
from dashboard.theme import palette


def blocks_figure(trial: TrialRecord | None, viewer: Viewer) -> Figure:
    """One dot a block, the effect and its interval; below 0 the candidate is faster."""
    if trial is None or not trial.block_log_ratios:
        return empty_figure(viewer, "Each finished block of the trial becomes a dot here")
    colours = palette(viewer.dark)
    layout = base_layout(
        viewer,
        y_title="candidate against incumbent, %",
        revision=f"blocks-{trial.id}",
        time_axis=False,
    )
    effects = [100 * math.expm1(ratio) for ratio in trial.block_log_ratios]
    numbers = list(range(1, len(effects) + 1))
    shapes = [level(0, colours.grey)]
    if trial.ci_low is not None and trial.ci_high is not None:
        shapes.append(
            {
                "type": "rect",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "yref": "y",
                "layer": "below",
                "y0": 100 * trial.ci_low,
                "y1": 100 * trial.ci_high,
                "line": {"width": 0},
                "fillcolor": colours.accent_soft,
            }
        )
    if trial.effect is not None:
        shapes.append(
            level(100 * trial.effect, colours.accent, line={"color": colours.accent, "width": 2})
        )
    layout["shapes"] = shapes
    layout["yaxis"] |= {"rangemode": "normal", "ticksuffix": " %"}
    layout["xaxis"] |= {
        "title": {**layout["xaxis"]["title"], "text": "block"},
        "range": [0.5, max(len(effects), trial.max_blocks) + 0.5],
        "tickformat": "d",
        "nticks": 12,
    }
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": numbers,
                "y": effects,
                "marker": {
                    "size": 9,
                    "color": colours.amber,
                    "line": {"width": 1.5, "color": colours.surface},
                },
                "customdata": [percent(e / 100, signed=True) for e in effects],
                "hovertemplate": "block %{x}: %{customdata}<extra></extra>",
            }
        ],
        "layout": layout,
    }


def trial_windows_figure(windows: Sequence[WindowRecord], floor: float, viewer: Viewer) -> Figure:
    """The windows of a trial by arm; hollow where their quality was below ``floor``: void."""
    rows = [w for w in windows if w.index is not None]
    values = [w.index for w in rows]
    title = "latency index"
    if not rows:
        rows = [w for w in windows if w.mean_ms is not None]
        values, title = [w.mean_ms for w in rows], "mean, ms"
    if not rows:
        return empty_figure(viewer, "The trial's windows appear here as they are measured")
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title=title, revision=f"trial-windows-{rows[0].trial_id}")
    layout |= {"showlegend": True, "hovermode": "closest"}
    layout["yaxis"]["rangemode"] = "normal"
    data = []
    for arm, colour in ((Arm.INCUMBENT, colours.accent), (Arm.CANDIDATE, colours.amber)):
        mine = [(w, v) for w, v in zip(rows, values, strict=True) if w.arm is arm]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": arm.value,
                "x": [viewer.plot_time(w.ended_at) for w, _ in mine],
                "y": [v for _, v in mine],
                "marker": {
                    "size": 9,
                    "color": colour,
                    "symbol": ["circle" if w.quality >= floor else "circle-open" for w, _ in mine],
                },
                "customdata": [f"{v:.3g}, quality {w.quality:.2f}" for w, v in mine],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
    return {"data": data, "layout": layout}


def query_trend_figure(
    windows: Sequence[WindowRecord], keys: Sequence[str], names: Mapping[str, str], viewer: Viewer
) -> Figure:
    """Mean times of the costliest query classes over time."""
    if not windows or not keys:
        return empty_figure(viewer, "Trends appear with the first measured windows")
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="mean, ms", revision="query-trend")
    layout |= {"showlegend": not viewer.narrow}
    layout["yaxis"] |= {"type": "log", "rangemode": "normal", "dtick": 1, "minor": {"nticks": 3}}
    data = []
    for key, colour in zip(keys, colours.cycle, strict=False):
        points = [(w.ended_at, q.mean_ms) for w in windows for q in w.queries if q.key == key]
        data.append(
            line(
                viewer,
                [t for t, _ in points],
                [v for _, v in points],
                names.get(key, key),
                colour,
                ms_text,
                line={"width": 1.6},
            )
        )
    shade_phases(layout, windows, viewer, labels=False)
    return {"data": data, "layout": layout}
