"""The Overview's key numbers: one tile each, now and against the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from backend.domain.deployed import deployed_windows
from backend.domain.modes import Phase, Verdict
from backend.domain.records import ClientIntervalRecord, WindowRecord
from dashboard import components as ui
from dashboard import figures
from dashboard import format as fmt
from dashboard import metric_names as names
from dashboard.live import View
from dashboard.phases import summarise
from dashboard.theme import palette


def _tile(
    label: str,
    value: str,
    note: object,
    values: Sequence[float | None],
    view: View,
    *,
    lead: bool = False,
    tone: str = "",
    title: str = "",
) -> Component:
    colours = palette(view.viewer.dark)
    picture = figures.sparkline(values[-80:], colours.accent, colours.accent_soft)
    return html.Div(
        [
            html.Div(label, className="tile-label", title=title),
            html.Div(value, className="tile-value"),
            html.Div(note, className=f"tile-note {tone}".strip()),
            html.Img(src=picture, alt="", className="tile-spark") if picture else None,
        ],
        className="tile tile-lead" if lead else "tile",
        title=title,
    )


def _recent(values: Sequence[float | None], count: int = 3) -> float | None:
    known = [v for v in values if v is not None][-count:]
    return sum(known) / len(known) if known else None


def _tone(change: float) -> str:
    """How a relative change is coloured where less is better."""
    return "" if abs(change) < 0.005 else "good" if change < 0 else "bad"


def tiles(
    view: View, windows: Sequence[WindowRecord], intervals: Sequence[ClientIntervalRecord]
) -> object:
    """The key numbers, now and against the start."""
    status = view.reader.status()
    if status is None and not windows:
        return ui.empty(
            "The tuner is starting",
            "Numbers appear here with the first measured window, usually within a minute.",
        )
    trials = view.reader.trials()
    lived = deployed_windows(windows, trials)
    index = status.index if status else None
    phases = summarise(windows, intervals, trials)
    start = next((p for p in phases if p.phase is Phase.BASELINE), None)

    def against(now: float | None, before: float | None) -> tuple[str, str]:
        if now is None or not before:
            return "no baseline" if start is None else "", ""
        change = now / before - 1
        return f"{fmt.percent(change, signed=True)} vs baseline", _tone(change)

    p95 = _recent([i.p95_ms for i in intervals])
    p95_note, p95_tone = against(p95, start.p95_ms if start else None)
    if not intervals and status is not None and not status.workload:
        p95_note = "not told by a server"
    server_ms = _recent([w.mean_ms for w in lived])
    mean_note, mean_tone = against(server_ms, start.mean_ms if start else None)
    index_note = (
        "measuring the reference"
        if index is None
        else f"{fmt.percent(index - 1, signed=True)} against the start"
    )
    verdicts = status.trials_by_verdict if status else {}
    hits = [names.CACHE_HITS.read(w) for w in lived]
    cpu = [names.CPU.read(w) for w in windows]
    return [
        _tile(
            "Latency index",
            fmt.NONE if index is None else f"{index:.3f}",
            index_note,
            [w.index for w in lived],
            view,
            lead=True,
            tone="" if index is None else _tone(index - 1),
            title="Load-normalised mean latency of the same statements; 1 is the start, "
            "lower is better",
        ),
        _tile(
            "p95 latency",
            fmt.ms_text(p95),
            p95_note,
            [i.p95_ms for i in intervals[-160::2]],
            view,
            tone=p95_tone,
            title="19 of 20 statements are faster; timed by the demo's clients, since "
            "pg_stat_statements gives no percentiles",
        ),
        _tile(
            "Server mean",
            fmt.ms_text(server_ms),
            mean_note,
            [w.mean_ms for w in lived],
            view,
            tone=mean_tone,
            title="Mean execution time by pg_stat_statements, which gives no percentiles",
        ),
        _tile(
            "Throughput",
            fmt.quantity(_recent([w.calls_per_s for w in windows]), "/ s"),
            "statements",
            [w.calls_per_s for w in windows],
            view,
        ),
        _tile(
            "CPU",
            fmt.quantity(_recent(cpu), "%"),
            "of all processors",
            cpu,
            view,
            title=names.CPU.meaning,
        ),
        _tile(
            "Cache hits",
            fmt.quantity(_recent(hits), "%", 4),
            "in shared buffers",
            hits,
            view,
            title=names.CACHE_HITS.meaning,
        ),
        _tile(
            "Trials",
            str(status.trials if status else 0),
            f"{verdicts.get(Verdict.ACCEPT.value, 0)} accepted, "
            f"{verdicts.get(Verdict.REJECT.value, 0)} rejected",
            [],
            view,
        ),
    ]
