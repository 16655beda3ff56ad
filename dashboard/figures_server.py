"""What the server and its clients did → Plotly figures, as plain dictionaries. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.domain.deployed import deployed_windows
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import ClientIntervalRecord, TrialRecord, WindowRecord
from dashboard.figures import (
    Figure,
    base_layout,
    empty_figure,
    level,
    line,
    plot_text,
    shade_phases,
)
from dashboard.format import Viewer, bytes_text, ms_text, number
from dashboard.metric_names import Shown
from dashboard.theme import palette

MOST_POINTS = 180
"""Client intervals in one line; more would not be told apart."""


def index_figure(
    windows: Sequence[WindowRecord],
    trials: Sequence[TrialRecord],
    versions: Sequence[PolicyVersionRecord],
    viewer: Viewer,
) -> Figure:
    """The latency index over time: phases shaded, deployments marked, other arms as dots."""
    known = [w for w in windows if w.index is not None]
    if not known:
        return empty_figure(viewer, "The index appears when the baseline is measured")
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="latency index (start = 1)", revision="index")
    shade_phases(layout, windows, viewer)
    layout["showlegend"] = True
    layout["shapes"].append(level(1, colours.grey, layer="below"))
    lived = deployed_windows(known, trials)
    shown = {id(w) for w in lived}
    tried = [w for w in known if id(w) not in shown]
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
                "another, in a trial",
                colours.amber,
                text,
            ),
            "mode": "markers",
            "marker": {"size": 5, "color": colours.amber, "opacity": 0.65, "line": {"width": 0}},
        },
    ]
    data += _deployments(
        [v for v in versions if v.created_at >= windows[0].started_at], versions, viewer
    )
    values = sorted(w.index for w in known if w.index is not None)
    top = max(1.12, values[min(len(values) - 1, int(0.99 * len(values)))] * 1.08)
    layout["yaxis"] |= {
        "range": [max(0.0, min(values[0], 0.95) * 0.92), top],
        "rangemode": "normal",
    }
    return {"data": data, "layout": layout}


def _deployments(
    shown: Sequence[PolicyVersionRecord], versions: Sequence[PolicyVersionRecord], viewer: Viewer
) -> list[Figure]:
    """One mark a version with other knobs; a promotion has a trial, any other change has none."""
    colours = palette(viewer.dark)
    configs = {v.id: v.config for v in versions}
    shown = [v for v in shown if v.config != configs.get(v.parent_id)]
    marks = []
    for name, symbol, colour, rows in (
        ("promotion", "triangle-up", colours.violet, [v for v in shown if v.trial_id is not None]),
        ("change by hand, or undone", "diamond", colours.grey,
         [v for v in shown if v.trial_id is None and v.parent_id is not None]),
    ):  # fmt: skip
        if not rows:
            continue
        marks.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [viewer.plot_time(v.created_at) for v in rows],
                "y": [v.index for v in rows],
                "marker": {
                    "symbol": symbol,
                    "size": 12,
                    "color": colour,
                    "line": {"width": 1.5, "color": colours.surface},
                },
                "customdata": [
                    plot_text(f"version {v.id}: {_changed(v, configs.get(v.parent_id))}")
                    for v in rows
                ],
                "hovertemplate": "%{customdata}",
            }
        )
    return marks


def _changed(
    version: PolicyVersionRecord, before: Mapping[str, object] | None, most: int = 3
) -> str:
    """The knobs in which a version differs from its parent; its note where that is not known."""
    if before is None:
        return version.note
    names = sorted(
        name
        for name in {**before, **version.config}
        if before.get(name) != version.config.get(name)
    )
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def latency_figure(
    intervals: Sequence[ClientIntervalRecord], windows: Sequence[WindowRecord], viewer: Viewer
) -> Figure:
    """Client-side percentiles over time; the server's means where there is no client."""
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="ms", revision="latency")
    layout["showlegend"] = True
    if any(i.p50_ms is not None for i in intervals):
        rows = thinned(intervals, MOST_POINTS)
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


def thinned(intervals: Sequence[ClientIntervalRecord], most: int) -> list[ClientIntervalRecord]:
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
        rows = thinned(intervals, MOST_POINTS)
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
    # 1024² as everywhere else here, and as PostgreSQL counts its MB.
    scale, unit_text = (1024.0**2, "MB/s") if unit == "B/s" else (1.0, unit)
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
