"""Overview: is the server faster than at the start, and what is going on right now?"""

from __future__ import annotations

from collections.abc import Sequence

from dash import dcc, html
from dash.development.base_component import Component

from backend.domain.records import ClientIntervalRecord, WindowRecord
from dashboard import components as ui
from dashboard import figures_server as figures
from dashboard import format as fmt
from dashboard import metric_names as names
from dashboard import overview_tiles
from dashboard.baseline import BaselineMemory
from dashboard.live import Page, View
from dashboard.phases import summarise
from dashboard.steering_numbers import class_counts

WINDOWS = 1000
INTERVALS = 2000
CLIENT_TIMES = (("p50 (client)", "p50_ms"), ("p95 (client)", "p95_ms"), ("p99 (client)", "p99_ms"))


def _windows(view: View) -> Sequence[WindowRecord]:
    return view.reader.windows(limit=WINDOWS)


def _intervals(view: View) -> Sequence[ClientIntervalRecord]:
    return view.reader.client_intervals(limit=INTERVALS)


def _with_baseline(view: View) -> tuple[list[WindowRecord], list[ClientIntervalRecord]]:
    memory = view.memory or BaselineMemory(view.reader)
    return memory.recall(view.reader.status()).before(_windows(view), _intervals(view))


def tiles(view: View) -> object:
    """The key numbers, now and against the start."""
    return overview_tiles.tiles(view, *_with_baseline(view))


def activity(view: View) -> object:
    """What the tuner does now, and on what."""
    status = view.reader.status()
    if status is None:
        return ui.empty("Nothing yet", "The tuner's present step appears here once it runs.")
    share = status.progress
    steering = class_counts(view.reader.steered_classes(), view.reader.steering_status())
    bar = None if share is None else ui.progress_bar(share, "progress of the present step")
    return [
        html.Div(status.activity or "waiting for the next step", className="activity-text"),
        bar,
        ui.facts(
            [
                (
                    "Server",
                    f"{status.server_version} at {status.server}" if status.server else fmt.NONE,
                ),
                (
                    "Workload",
                    (status.workload or "the server's own clients")
                    + (" (accelerated clock)" if status.fast_mode else ""),
                ),
                ("Running since", view.viewer.time(status.started_at)),
                ("Ends at", view.viewer.time(status.ends_at) if status.ends_at else "runs on"),
                (
                    "Deployed version",
                    fmt.NONE if status.policy_version is None else str(status.policy_version),
                ),
                *(
                    [("Steered", f"{steering.steered} of {steering.known} query classes")]
                    if steering.known
                    else []
                ),
            ]
        ),
    ]


def deployed_knobs(view: View) -> object:
    """The knobs that the deployed version sets."""
    active = next((v for v in reversed(view.reader.policy_versions()) if v.active), None)
    if active is None or not active.config:
        return ui.empty(
            "The server runs as found", "Knobs that were proven to help are listed here.", "sliders"
        )
    statuses = {k.name: k for k in view.reader.knob_statuses()}
    before = {n: statuses[n].default if n in statuses else None for n in active.config}
    return [
        ui.knob_diff(before, active.config, statuses),
        html.P(
            [
                "from the server's defaults; the evidence is under ",
                dcc.Link("Decisions", href="/decisions"),
                ".",
            ],
            className="quiet",
        ),
    ]


def phase_table(view: View) -> object:
    """The phases next to each other."""
    rows = summarise(*_with_baseline(view), view.reader.trials())
    if not rows:
        return ui.empty(
            "No phase is measured yet",
            "The baseline comes first; its numbers appear here.",
            "bar-chart-steps",
        )
    top = max((r.index for r in rows if r.index is not None), default=1.0)

    def cell(
        value: str, now: float | None, before: float | None, lower_is_better: bool | None
    ) -> object:
        if now is None or not before or before == now:
            return value
        change = now / before - 1
        better = None if lower_is_better is None else (change < 0) == lower_is_better
        tone = "" if better is None or abs(change) < 0.005 else " good" if better else " bad"
        delta = fmt.percent(change, signed=True, digits=0)
        return html.Span([value, html.Span(delta, className=f"delta{tone}")])

    first = rows[0]
    timed = [
        (label, name)
        for label, name in CLIENT_TIMES
        if any(getattr(r, name) is not None for r in rows)
    ]
    body = []
    for r in rows:
        bar = html.Div(
            html.Div(className="bar-fill", style={"width": f"{100 * (r.index or 0) / top:.0f}%"}),
            className="bar slim",
        )
        body.append(
            [
                html.Div(
                    [
                        html.Div(r.phase.value, className="phase-name"),
                        html.Div(fmt.duration_text(r.duration_s), className="small"),
                    ]
                ),
                html.Div(
                    [
                        cell(
                            fmt.NONE if r.index is None else f"{r.index:.3f}",
                            r.index,
                            first.index,
                            True,
                        ),
                        bar,
                    ]
                ),
                cell(fmt.ms_text(r.mean_ms), r.mean_ms, first.mean_ms, True),
                *(
                    cell(
                        fmt.ms_text(getattr(r, name)), getattr(r, name), getattr(first, name), True
                    )
                    for _label, name in timed
                ),
                cell(fmt.quantity(r.calls_per_s, "/ s"), r.calls_per_s, first.calls_per_s, None),
                cell(fmt.quantity(r.cpu, "%"), r.cpu, first.cpu, None),
                fmt.quantity(r.hits, "%", 4),
            ]
        )
    return ui.table(
        [
            "Phase",
            "Latency index",
            "Mean (server)",
            *(label for label, _name in timed),
            "Throughput",
            "CPU",
            "Cache hits",
        ],
        body,
        "numbers",
    )


def frame() -> Component:
    """The page without its numbers."""
    return html.Div(
        [
            ui.page_head(
                "Overview", "Is the server faster than at the start, and what happens now?"
            ),
            html.Div(ui.skeleton(4), id="overview-tiles", className="tiles"),
            html.Div(
                [
                    ui.card(
                        "Latency index over time",
                        ui.graph("overview-index", 300, "latency index over time"),
                        hint_id="hint-index",
                        hint_text="The mean time of the same statements in the same mix, "
                        "divided by that at the start: 1 is the start, lower is better. "
                        "A shift of the mix alone cannot move it; a busier hour can, which is why "
                        "trials compare windows side by side. Triangles: a proven change was "
                        "deployed. Diamonds: a change by hand, or one undone. Dots: another "
                        "configuration stood there for a window of a trial.",
                        class_name="span-2",
                    ),
                    ui.card("Right now", html.Div(ui.skeleton(), id="overview-activity")),
                    ui.card(
                        "Latency",
                        ui.graph("overview-latency", 250, "latency percentiles"),
                        hint_id="hint-latency",
                        hint_text="Percentiles are timed by the clients "
                        "from the scheduled start of each statement. pg_stat_statements gives "
                        "only means.",
                        class_name="span-2",
                        subtitle="logarithmic",
                    ),
                    ui.card("Changed so far", html.Div(ui.skeleton(), id="overview-knobs")),
                    ui.card(
                        "Phase by phase",
                        html.Div(ui.skeleton(), id="overview-phases"),
                        hint_id="hint-phases",
                        hint_text="Medians over each phase's windows under the deployed "
                        "configuration, and the change against the first phase shown. The load may "
                        "differ between phases: the index allows for another mix, the other "
                        "columns for nothing.",
                        class_name="span-3",
                    ),
                    ui.card("Throughput", ui.graph("overview-throughput", 200, "throughput")),
                    ui.card("CPU and memory", ui.graph("overview-cpu", 200, "CPU and memory")),
                    ui.card(
                        "Cache hits",
                        ui.graph("overview-hits", 200, "cache hits"),
                        hint_id="hint-hits",
                        hint_text=names.CACHE_HITS.meaning,
                    ),
                    ui.card("Disk", ui.graph("overview-disk", 200, "disk reads and writes")),
                    ui.card(
                        "Spilled to disk",
                        ui.graph("overview-temp", 200, "temporary files"),
                        hint_id="hint-temp",
                        hint_text=names.TEMP.meaning,
                    ),
                    ui.card(
                        "WAL",
                        ui.graph("overview-wal", 200, "write-ahead log"),
                        hint_id="hint-wal",
                        hint_text=names.WAL.meaning,
                    ),
                ],
                className="grid-3",
            ),
        ]
    )


def _resource(*shown: names.Shown) -> object:
    revision = shown[0].key
    return lambda view: figures.resource_figure(_windows(view), shown, view.viewer, revision)


PAGE = Page(
    path="/",
    title="Overview",
    icon="speedometer2",
    frame=frame,
    parts={
        "overview-tiles.children": tiles,
        "overview-index.figure": lambda v: figures.index_figure(
            _windows(v), v.reader.trials(), v.reader.policy_versions(), v.viewer
        ),
        "overview-activity.children": activity,
        "overview-latency.figure": lambda v: figures.latency_figure(
            _intervals(v), _windows(v), v.viewer
        ),
        "overview-knobs.children": deployed_knobs,
        "overview-phases.children": phase_table,
        "overview-throughput.figure": lambda v: figures.throughput_figure(
            _intervals(v), _windows(v), v.viewer
        ),
        "overview-cpu.figure": _resource(names.CPU, names.MEMORY),
        "overview-hits.figure": _resource(names.CACHE_HITS),
        "overview-disk.figure": _resource(names.DISK_READ, names.DISK_WRITE),
        "overview-temp.figure": _resource(names.TEMP),
        "overview-wal.figure": _resource(names.WAL),
    },
)
