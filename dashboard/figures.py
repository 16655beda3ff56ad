"""Records → Plotly figures, as plain dictionaries. Pure: no store, no page, no clock.

Plain dictionaries are what the browser gets anyway; they are built in microseconds, and the tests
have Plotly validate them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from backend.domain.modes import Arm, Phase
from backend.domain.records import ClientIntervalRecord, PolicyVersionRecord, WindowRecord
from dashboard.format import Viewer, bytes_text, ms_text, number
from dashboard.metric_names import Shown
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


def deployed(windows: Sequence[WindowRecord]) -> list[WindowRecord]:
    """Windows under the deployed configuration: no candidate was being tried."""
    return [w for w in windows if w.arm is not Arm.CANDIDATE]


def index_figure(
    windows: Sequence[WindowRecord], versions: Sequence[PolicyVersionRecord], viewer: Viewer
) -> Figure:
    """The latency index over time: phases shaded, promotions marked, candidates as dots."""
    known = [w for w in windows if w.index is not None]
    if not known:
        return empty_figure(viewer, "The index appears when the baseline is measured")
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="latency index (start = 1)", revision="index")
    shade_phases(layout, windows, viewer)
    layout["showlegend"] = True
    layout["shapes"].append(
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "yref": "y",
            "y0": 1,
            "y1": 1,
            "line": {"color": colours.grey, "width": 1, "dash": "dot"},
            "layer": "below",
        }
    )
    lived = deployed(known)
    tried = [w for w in known if w.arm is Arm.CANDIDATE]
    text = lambda v: f"{v:.3f} ({100 * (v - 1):+.1f} %)"  # noqa: E731
    data = [
        line(
            viewer,
            [w.ended_at for w in lived],
            [w.index for w in lived],
            "deployed",
            colours.accent,
            text,
            line={"width": 2},
        ),
        {
            **line(
                viewer,
                [w.ended_at for w in tried],
                [w.index for w in tried],
                "candidate in a trial",
                colours.amber,
                text,
            ),
            "mode": "markers",
            "marker": {"size": 5, "color": colours.amber, "opacity": 0.65, "line": {"width": 0}},
        },
    ]
    promotions = [
        v for v in versions if v.parent_id is not None and v.created_at >= windows[0].started_at
    ]
    if promotions:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "promotion",
                "x": [viewer.plot_time(v.created_at) for v in promotions],
                "y": [v.index for v in promotions],
                "marker": {
                    "symbol": "triangle-up",
                    "size": 12,
                    "color": colours.violet,
                    "line": {"width": 1.5, "color": colours.surface},
                },
                "customdata": [
                    f"version {v.id}: {', '.join(list(v.config)[-3:])[:80]}" for v in promotions
                ],
                "hovertemplate": "%{customdata}",
            }
        )
    values = sorted(w.index for w in known if w.index is not None)
    top = max(1.12, values[min(len(values) - 1, int(0.99 * len(values)))] * 1.08)
    layout["yaxis"] |= {
        "range": [max(0.0, min(values[0], 0.95) * 0.92), top],
        "rangemode": "normal",
    }
    return {"data": data, "layout": layout}


def latency_figure(
    intervals: Sequence[ClientIntervalRecord], windows: Sequence[WindowRecord], viewer: Viewer
) -> Figure:
    """Client-side percentiles over time; the server's means where there is no client."""
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="ms", revision="latency")
    layout["showlegend"] = True
    if any(i.p50_ms is not None for i in intervals):
        rows = smooth(intervals, 180)
        times = [i.ended_at for i in rows]
        data = [
            line(
                viewer,
                times,
                [i.p99_ms for i in rows],
                "p99",
                colours.bad,
                ms_text,
                line={"width": 1.2},
            ),
            line(viewer, times, [i.p95_ms for i in rows], "p95", colours.amber, ms_text),
            line(
                viewer,
                times,
                [i.mean_ms for i in rows],
                "mean",
                colours.blue,
                ms_text,
                line={"dash": "dot"},
            ),
            line(viewer, times, [i.p50_ms for i in rows], "p50 (median)", colours.accent, ms_text),
        ]
        layout["yaxis"] |= {
            "type": "log",
            "dtick": 1 if viewer.narrow else "D2",
            "rangemode": "normal",
        }
    else:
        rows_w = [w for w in windows if w.mean_ms is not None]
        if not rows_w:
            return empty_figure(viewer, "Latencies appear with the first window")
        data = [
            line(
                viewer,
                [w.ended_at for w in rows_w],
                [w.mean_ms for w in rows_w],
                "mean (pg_stat_statements)",
                colours.accent,
                ms_text,
            )
        ]
    if windows:
        shade_phases(layout, windows, viewer, labels=False)
    return {"data": data, "layout": layout}


def smooth(intervals: Sequence[ClientIntervalRecord], most: int) -> list[ClientIntervalRecord]:
    """At most ``most`` intervals, evenly picked, the newest always among them."""
    step = max(1, -(-len(intervals) // most))
    return list(intervals[::-1][::step][::-1])


def throughput_figure(
    intervals: Sequence[ClientIntervalRecord], windows: Sequence[WindowRecord], viewer: Viewer
) -> Figure:
    """Statements per second: offered and completed by the clients, or calls on the server."""
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="statements / s", revision="throughput")
    layout["showlegend"] = True
    text = lambda v: f"{number(v)} / s"  # noqa: E731
    if intervals:
        rows = smooth(intervals, 180)
        spans = [max(1e-3, (i.ended_at - i.started_at).total_seconds()) for i in rows]
        times = [i.ended_at for i in rows]
        data = [
            line(
                viewer,
                times,
                [i.offered / s for i, s in zip(rows, spans, strict=True)],
                "offered",
                colours.grey,
                text,
                line={"dash": "dot"},
            ),
            line(
                viewer,
                times,
                [i.completed / s for i, s in zip(rows, spans, strict=True)],
                "completed",
                colours.accent,
                text,
                fill="tozeroy",
                fillcolor=colours.accent_soft,
            ),
        ]
    elif windows:
        data = [
            line(
                viewer,
                [w.ended_at for w in windows],
                [w.calls_per_s for w in windows],
                "calls on the server",
                colours.accent,
                text,
                fill="tozeroy",
                fillcolor=colours.accent_soft,
            )
        ]
    else:
        return empty_figure(viewer, "Throughput appears with the first window")
    return {"data": data, "layout": layout}


def resource_figure(
    windows: Sequence[WindowRecord], shown: Sequence[Shown], viewer: Viewer, revision: str
) -> Figure:
    """One or several metrics of one unit over time."""
    colours = palette(viewer.dark)
    unit = shown[0].unit
    scale, unit_text = (1e6, "MB/s") if unit == "B/s" else (1.0, unit)
    text = (
        (lambda v: bytes_text(v * scale, per_s=True))
        if unit == "B/s"
        else (lambda v: f"{number(v)} {unit}")
    )
    layout = base_layout(viewer, y_title=unit_text, revision=revision)
    data = []
    for metric, colour in zip(shown, colours.cycle, strict=False):
        pairs = [(w.ended_at, metric.read(w)) for w in windows]
        known = [(t, v / scale) for t, v in pairs if v is not None]
        if known:
            data.append(
                line(
                    viewer,
                    [t for t, _ in known],
                    [v for _, v in known],
                    metric.label,
                    colour,
                    text,
                    line={"width": 1.5},
                )
            )
    if not data:
        return empty_figure(viewer, "Not measured on this server (yet)")
    layout["showlegend"] = len(shown) > 1
    if unit == "%":
        layout["yaxis"] |= {"range": [0, 102]}
    return {"data": data, "layout": layout}


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
