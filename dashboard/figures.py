"""What all figures are made of, as plain dictionaries. Pure: no store, no page, no clock.

Plain dictionaries are what the browser gets anyway; they are built in microseconds, and the tests
have Plotly validate them. The figures themselves: ``figures_server``, ``figures_trials``,
``figures_learning``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from backend.domain.modes import Phase
from backend.domain.records import WindowRecord
from dashboard.format import Viewer
from dashboard.theme import palette

Figure = dict[str, Any]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Inter, 'Helvetica Neue', sans-serif"


def base_layout(viewer: Viewer, *, y_title: str, revision: str, time_axis: bool = True) -> Figure:
    """The layout that all figures share: transparent, quiet, zoom kept over updates."""
    colours = palette(viewer.dark)
    axis = {
        "gridcolor": colours.grid,
        "linecolor": colours.border,
        "zeroline": False,
        "tickfont": {"color": colours.muted, "size": 11},
        "ticks": "",
        "automargin": True,
        "exponentformat": "power",
        "title": {"font": {"color": colours.muted, "size": 11}},
        "fixedrange": viewer.narrow,
    }
    x: Figure = {**axis, "showgrid": False}
    if time_axis:
        x |= {
            "type": "date",
            "hoverformat": "%H:%M:%S",
            "nticks": 5 if viewer.narrow else 7,
            "tickangle": 0,
        }
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "color": colours.text, "size": 12},
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "autosize": True,
        "xaxis": x,
        "yaxis": {
            **axis,
            "title": {**axis["title"], "text": y_title, "standoff": 6},
            "rangemode": "tozero",
        },
        "hovermode": "x unified" if time_axis else "closest",
        "hoverlabel": {
            "bgcolor": colours.surface,
            "bordercolor": colours.border,
            "font": {"color": colours.text, "size": 12, "family": FONT},
            "namelength": -1,
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"color": colours.muted, "size": 11},
            "itemclick": "toggle",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "showlegend": False,
        "uirevision": revision,
        "dragmode": False if viewer.narrow else "zoom",
    }


def plot_text(text: str) -> str:
    """Text as Plotly takes it literally: it reads a few HTML tags otherwise."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def empty_figure(viewer: Viewer, message: str) -> Figure:
    """A figure that says what will appear in it, and when."""
    layout = base_layout(viewer, y_title="", revision="empty", time_axis=False)
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= {"visible": False}
    layout["annotations"] = [
        {
            "text": message,
            "showarrow": False,
            "x": 0.5,
            "y": 0.5,
            "xref": "paper",
            "yref": "paper",
            "font": {"color": palette(viewer.dark).muted, "size": 13},
        }
    ]
    return {"data": [], "layout": layout}


def level(y: float, colour: str, **more: Any) -> Figure:
    """A dotted line across a figure, at a value of its y axis."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": "y",
        "y0": y,
        "y1": y,
        "line": {"color": colour, "width": 1, "dash": "dot"},
        **more,
    }


def line(
    viewer: Viewer,
    times: Sequence[datetime],
    values: Sequence[float | None],
    name: str,
    colour: str,
    text: Callable[[float], str],
    **more: Any,
) -> Figure:
    """A line over time; ``text`` writes a value for the hover label."""
    stroke = {"color": colour, "width": 1.8, **more.pop("line", {})}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plot_text(name),
        "line": stroke,
        "x": [viewer.plot_time(t) for t in times],
        "y": list(values),
        "customdata": ["" if v is None else text(v) for v in values],
        "hovertemplate": "%{customdata}",
        **more,
    }


def phase_spans(windows: Sequence[WindowRecord]) -> list[tuple[Phase, datetime, datetime]]:
    """Runs of windows of one phase, in order."""
    spans: list[tuple[Phase, datetime, datetime]] = []
    for window in windows:
        if spans and spans[-1][0] is window.phase:
            spans[-1] = (window.phase, spans[-1][1], window.ended_at)
        else:
            spans.append((window.phase, window.started_at, window.ended_at))
    return spans


def shade_phases(
    layout: Figure, windows: Sequence[WindowRecord], viewer: Viewer, *, labels: bool = True
) -> None:
    """Add one shaded band a phase, named at its top where it is wide enough."""
    colours = palette(viewer.dark)
    spans = phase_spans(windows)
    total_s = (windows[-1].ended_at - windows[0].started_at).total_seconds() if windows else 0.0
    shapes = layout.setdefault("shapes", [])
    notes = layout.setdefault("annotations", [])
    for phase, start, end in spans:
        shapes.append(
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": viewer.plot_time(start),
                "x1": viewer.plot_time(end),
                "y0": 0,
                "y1": 1,
                "line": {"width": 0},
                "layer": "below",
                "fillcolor": colours.phases[phase],
            }
        )
        wide = total_s and (end - start).total_seconds() / total_s > (0.2 if viewer.narrow else 0.1)
        if labels and wide:
            notes.append(
                {
                    "x": viewer.plot_time(start),
                    "y": 1,
                    "xref": "x",
                    "yref": "paper",
                    "xanchor": "left",
                    "yanchor": "top",
                    "text": phase.value,
                    "showarrow": False,
                    "xshift": 4,
                    "yshift": -2,
                    "font": {"size": 11, "color": colours.muted},
                }
            )


def sparkline(values: Sequence[float | None], colour: str, fill: str) -> str:
    """A few numbers as a small picture (an SVG data URI, 120 × 32): cheap, and it scales."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    span = (high - low) or abs(high) or 1.0
    points = " ".join(
        f"{120 * i / (len(known) - 1):.1f},{29 - 26 * (v - low) / span:.1f}"
        for i, v in enumerate(known)
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 32" '
        f'preserveAspectRatio="none"><polygon points="0,32 {points} 120,32" fill="{fill}"/>'
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6" '
        'vector-effect="non-scaling-stroke" stroke-linejoin="round"/></svg>'
    )
    return f"data:image/svg+xml,{quote(svg)}"
