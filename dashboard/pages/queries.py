"""Queries: the classes of statements, how each has fared, and which get a better plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dash
from dash import ALL, Input, Output, ctx, html
from dash.development.base_component import Component
from dash.exceptions import PreventUpdate

from backend.domain.deployed import deployed_windows
from backend.domain.records import WindowRecord
from backend.domain.steering import SteeredClassRecord
from dashboard import components as ui
from dashboard import figures, figures_trials, steering_detail, steering_head, steering_table
from dashboard import format as fmt
from dashboard import steering_words as words
from dashboard.live import Page, View
from dashboard.query_stats import RECENT_WINDOWS, QueryStats, query_stats
from dashboard.services import Services
from dashboard.theme import palette

WINDOWS = 300
MOST_SHOWN = 30
IN_FIGURE = 6
BLOCK_BYTES = 8192
ORDERS: Mapping[str, tuple[str, Callable[[QueryStats], float]]] = {
    "total": ("By total time", lambda s: -s.total_ms),
    "mean": ("By mean time", lambda s: -s.mean_ms),
    "calls": ("By calls", lambda s: -s.calls_per_s),
    "faster": ("Most improved", lambda s: s.change if s.change is not None else 0.0),
    "slower": ("Most worsened", lambda s: -s.change if s.change is not None else 0.0),
}


def _windows(view: View) -> Sequence[WindowRecord]:
    return view.reader.query_windows(limit=WINDOWS)


def short(text: str, length: int = 46) -> str:
    """A statement's beginning on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def _change(change: float | None) -> Component:
    if change is None:
        return html.Span(fmt.NONE, title="not seen for long enough")
    tone = "good" if change < -0.02 else "bad" if change > 0.02 else ""
    return html.Span(fmt.percent(change, signed=True), className=f"strong {tone}".strip())


def class_table(view: View) -> object:
    """The classes with their numbers and a trend each."""
    stats = query_stats(_windows(view), view.reader.trials())
    if not stats:
        return ui.empty(
            "No statement was measured yet",
            "Statement classes appear here with the first window, as pg_stat_statements sees them.",
            "braces",
        )
    order = ORDERS.get(str(view.choices.get("queries-order")), ORDERS["total"])
    stats.sort(key=order[1])
    texts = view.reader.query_classes()
    steered = {key: r for r in view.reader.steered_classes() for key in r.query_keys}
    colours = palette(view.viewer.dark)
    rows = []
    for s in stats[:MOST_SHOWN]:
        text = texts[s.key].text if s.key in texts else f"(text not known) {s.key}"
        picture = figures.sparkline(s.trend, colours.accent, colours.accent_soft)
        rows.append(
            [
                html.Div(
                    [
                        html.Div(text, className="query-text", title=text, tabIndex="0"),
                        html.Div(
                            [
                                f"{fmt.number(s.rows_per_call)} rows a call",
                                f", {fmt.percent(s.hits)} of blocks cached"
                                if s.hits is not None
                                else "",
                                ", spills "
                                f"{fmt.bytes_text(s.temp_blocks_per_call * BLOCK_BYTES)} a call"
                                if s.temp_blocks_per_call >= 0.5
                                else "",
                            ],
                            className="small",
                        ),
                        _steering_badge(steered[s.key], view) if s.key in steered else None,
                    ]
                ),
                html.Div(
                    [
                        html.Span(fmt.percent(s.share), className="strong"),
                        html.Div(
                            html.Div(
                                className="bar-fill", style={"width": f"{100 * s.share:.0f}%"}
                            ),
                            className="bar slim",
                        ),
                    ]
                ),
                fmt.quantity(s.calls_per_s, "/ s"),
                fmt.ms_text(s.mean_ms),
                _change(s.change),
                html.Img(src=picture, alt="trend of the mean time", className="row-spark")
                if picture
                else "",
            ]
        )
    return ui.table(
        ["Statement", "Share of time", "Calls", "Mean", "Change", "Trend"], rows, "queries"
    )


def _steering_badge(record: SteeredClassRecord, view: View) -> Component:
    stands = words.standing(record, view.mode)
    badge = ui.badge(stands.word, stands.tone, stands.icon)
    return steering_table.details_button(record.key, badge, "classes", "badge-button")


def _detail(view: View) -> object:
    if not view.choices.get("queries-selected"):
        return None
    stats = query_stats(_windows(view), view.reader.trials())
    return steering_detail.detail(view, {s.key: s for s in stats})


def _figure(view: View) -> object:
    trials = view.reader.trials()
    windows = deployed_windows(_windows(view), trials)
    texts = view.reader.query_classes()
    keys = [s.key for s in query_stats(windows, trials)[:IN_FIGURE]]
    names = {k: short(texts[k].text, 34) if k in texts else k for k in keys}
    return figures_trials.query_trend_figure(windows, keys, names, view.viewer)


def frame() -> Component:
    """The page without its numbers."""
    options = [{"label": label, "value": key} for key, (label, _key) in ORDERS.items()]
    return html.Div(
        [
            ui.page_head("Queries", "Classes of statements, without their literals."),
            ui.card(
                "Query steering",
                html.Div(ui.skeleton(3), id="queries-steering"),
                hint_id="hint-steering",
                hint_text="Plans are tried on statements that only read, a small share of the "
                "time. A class is steered only where another plan was measured to be faster, by "
                "planner settings that are sent along with its statements alone.",
            ),
            ui.card(
                "Steered classes",
                html.Div(ui.skeleton(6), id="queries-steered"),
                class_name="spaced below",
                hint_id="hint-steered",
                hint_text="Measured: runs of the same statements under both plans, side by side, "
                "with bounds of the effect. In service: what applications saw in the last hour. "
                "Auto steers while the evidence stands, pin always, off never.",
            ),
            ui.card(
                "Mean time of the costliest classes",
                ui.graph("queries-trend", 300, "mean time of query classes"),
                hint_id="hint-trend",
                hint_text="Under the deployed configuration, one point a "
                "window, on a logarithmic axis. pg_stat_statements gives means, not percentiles.",
                subtitle="logarithmic",
            ),
            ui.card(
                "Classes",
                html.Div(ui.skeleton(8), id="queries-classes"),
                class_name="spaced",
                hint_id="hint-classes",
                hint_text=f"Over the newest {RECENT_WINDOWS} windows. Change compares the newest "
                f"{RECENT_WINDOWS} with the oldest {RECENT_WINDOWS} of at most {WINDOWS} windows, "
                "all under the deployed configuration. The tuner's own statements are left out.",
                actions=ui.select("queries-order", "Order of the classes", options, "total"),
            ),
            *steering_detail.dialog(),
        ]
    )


def setup(app: dash.Dash, _services: Services) -> None:
    """A class's button opens what steering knows of it."""

    @app.callback(
        Output("queries-selected", "data"),
        Output("queries-dialog", "is_open"),
        Input({"type": "steered", "class": ALL, "place": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def choose(_clicks: list[int | None]) -> Any:
        if not ctx.triggered_id or not any(t["value"] for t in ctx.triggered):
            raise PreventUpdate
        return ctx.triggered_id["class"], True


PAGE = Page(
    path="/queries",
    title="Queries",
    icon="braces",
    frame=frame,
    follows_commands=True,
    parts={
        "queries-steering.children": steering_head.head,
        "queries-steered.children": steering_table.steered_table,
        "queries-trend.figure": _figure,
        "queries-classes.children": class_table,
        "queries-detail.children": _detail,
    },
    choices=(("queries-order", "value"), ("queries-selected", "data")),
    setup=setup,
)
