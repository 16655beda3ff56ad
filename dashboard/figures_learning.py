"""What the agent learned → Plotly figures, as plain dictionaries. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backend.domain.records import LearningRecord, WindowRecord
from dashboard.figures import Figure, base_layout, empty_figure, level, plot_text
from dashboard.format import Viewer, number
from dashboard.theme import palette

MEAN_OVER = 10


def rolling_mean(values: Sequence[float], over: int = MEAN_OVER) -> list[float]:
    """The mean of each value and up to ``over - 1`` before it."""
    return [
        sum(values[max(0, i + 1 - over) : i + 1]) / len(values[max(0, i + 1 - over) : i + 1])
        for i in range(len(values))
    ]


def step_figure(
    records: Sequence[LearningRecord],
    read: Callable[[LearningRecord], float | None],
    viewer: Viewer,
    *,
    name: str,
    y_title: str,
    x_title: str = "learning step",
    revision: str,
    waiting: str,
    smooth: bool = False,
    log: bool = False,
    colour: str | None = None,
) -> Figure:
    """One quantity over the learning steps; ``smooth`` shows dots with their rolling mean."""
    pairs = [(r.step, v) for r in records if (v := read(r)) is not None]
    if not pairs:
        return empty_figure(viewer, waiting)
    colours = palette(viewer.dark)
    stroke = colour or colours.accent
    layout = base_layout(viewer, y_title=y_title, revision=revision, time_axis=False)
    layout["xaxis"]["title"] = {**layout["xaxis"]["title"], "text": x_title}
    layout["yaxis"] |= {"rangemode": "normal", "type": "log" if log else "linear"}
    layout["hovermode"] = "x unified"
    if log:
        layout["yaxis"]["dtick"] = "D2"
    steps, values = [p[0] for p in pairs], [p[1] for p in pairs]
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "markers" if smooth else "lines",
            "name": name,
            "x": steps,
            "y": values,
            "marker": {"size": 5, "color": stroke, "opacity": 0.4},
            "line": {"color": stroke, "width": 1.8},
            "customdata": [number(v) for v in values],
            "hovertemplate": "%{customdata}",
        }
    ]
    if smooth:
        means = rolling_mean(values)
        layout["showlegend"] = True
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"mean of {MEAN_OVER}",
                "x": steps,
                "y": means,
                "line": {"color": stroke, "width": 2.2},
                "customdata": [number(v) for v in means],
                "hovertemplate": "%{customdata}",
            }
        )
    return {"data": data, "layout": layout}


def reward_terms_figure(records: Sequence[LearningRecord], viewer: Viewer) -> Figure:
    """The terms that make up the reward, as rolling means."""
    rows = [r for r in records if r.reward_terms]
    if not rows:
        return empty_figure(viewer, "The terms appear with the first learning step")
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="part of the reward", revision="terms", time_axis=False)
    layout["xaxis"]["title"] = {**layout["xaxis"]["title"], "text": "learning step"}
    layout["yaxis"]["rangemode"] = "normal"
    layout |= {"showlegend": True, "hovermode": "x unified"}
    names = list(dict.fromkeys(name for r in rows for name in r.reward_terms))
    data = []
    for name, colour in zip(names, colours.cycle, strict=False):
        means = rolling_mean([r.reward_terms.get(name, 0.0) for r in rows])
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plot_text(name.replace("_", " ")),
                "x": [r.step for r in rows],
                "y": means,
                "line": {"color": colour, "width": 1.8},
                "customdata": [number(v) for v in means],
                "hovertemplate": "%{customdata}",
            }
        )
    return {"data": data, "layout": layout}


def quality_figure(windows: Sequence[WindowRecord], floor: float, viewer: Viewer) -> Figure:
    """The quality of each window; below the floor it trains nothing."""
    if not windows:
        return empty_figure(viewer, "Qualities appear with the first measured windows")
    colours = palette(viewer.dark)
    layout = base_layout(viewer, y_title="sample quality (1 is best)", revision="quality")
    layout["yaxis"] |= {"range": [0, 1.05]}
    layout["hovermode"] = "closest"
    layout["shapes"] = [level(floor, colours.bad)]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [viewer.plot_time(w.ended_at) for w in windows],
                "y": [w.quality for w in windows],
                "marker": {
                    "size": 5,
                    "opacity": 0.7,
                    "color": [
                        colours.bad if w.quality < floor else colours.accent for w in windows
                    ],
                },
                "customdata": [
                    plot_text(f"{w.quality:.2f} {'; '.join(w.quality_reasons)}") for w in windows
                ],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        ],
        "layout": layout,
    }
