"""Pages whose parts refresh by themselves: only what changed is sent, and nothing is reloaded.

A page names its parts as ``component-id.property`` with a builder each. One callback a page
builds all parts on each tick, compares each with what the browser holds (by digest), and sends
the ones that differ.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import dash
from dash import ClientsideFunction, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component
from plotly.utils import PlotlyJSONEncoder

from backend.domain.modes import Mode
from backend.errors import AutopilotError
from backend.protocols import TelemetryReader
from dashboard import components as ui
from dashboard.baseline import BaselineMemory
from dashboard.figures import empty_figure
from dashboard.format import Viewer
from dashboard.services import (
    DEFAULT_FLOORS,
    DEFAULT_UPDATE_INTERVAL_S,
    QualityFloors,
    Services,
)
from dashboard.steering_numbers import InService, ServiceMemory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class View:
    """What a builder may look at.

    Args:
        reader: the store, read at most once a tick.
        viewer: time zone, theme and width of who looks.
        now: the moment of this tick.
        choices: values of the page's own inputs (filters, the selected row), by ``id``.
        floors: the sample qualities below which a window is not used.
        memory: of the run's baseline.
        service: of what steering does in service.
        update_interval_s: real seconds between two updates of the policies; None: never.
    """

    reader: TelemetryReader
    viewer: Viewer
    now: datetime
    choices: Mapping[str, Any] = field(default_factory=dict)
    floors: QualityFloors = DEFAULT_FLOORS
    memory: BaselineMemory | None = None
    service: ServiceMemory | None = None
    update_interval_s: float | None = DEFAULT_UPDATE_INTERVAL_S

    @property
    def mode(self) -> Mode | None:
        """The autopilot's mode; None before its first status."""
        status = self.reader.status()
        return status.mode if status else None

    def in_service(self) -> InService:
        """What applications saw of each class that is steered, or was."""
        return (self.service or ServiceMemory(self.reader)).recall()


Builder = Callable[[View], Any]


@dataclass(frozen=True)
class Page:
    """One page: where it is, its frame, its live parts, and its own callbacks.

    Args:
        choices: ids and properties of inputs that rebuild the page at once when they change.
        follows_commands: refresh faster while a command is on its way.
        setup: registers further callbacks.
    """

    path: str
    title: str
    icon: str
    frame: Callable[[], Component]
    parts: Mapping[str, Builder]
    choices: Sequence[tuple[str, str]] = ()
    follows_commands: bool = False
    setup: Callable[[dash.Dash, Services], None] | None = None

    @property
    def slug(self) -> str:
        """The page's name in ids."""
        return self.title.lower()


def digest(value: Any) -> str:
    """A short digest of a component or figure, equal when what the browser gets is equal."""
    text = json.dumps(value, cls=PlotlyJSONEncoder, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=9).hexdigest()


def build(part: str, builder: Builder, view: View) -> Any:
    """Build a part; a failure shows where the part would be, and the log has the rest."""
    try:
        return builder(view)
    except AutopilotError as error:
        message = str(error)
    except Exception:
        log.exception("could not build %s", part)
        message = "This part could not be drawn; the dashboard's log says why."
    if part.endswith(".children"):
        return ui.empty("Not available", message, "exclamation-triangle")
    if part.endswith(".figure"):
        return empty_figure(view.viewer, "Not available now")
    return no_update


def changed(
    parts: Mapping[str, Builder], view: View, held: Mapping[str, str]
) -> tuple[list[Any], dict[str, str]]:
    """New values (``no_update`` where the browser has them already) and the digests to hold."""
    values: list[Any] = []
    digests = dict(held)
    for part, builder in parts.items():
        value = build(part, builder, view)
        if value is not no_update:
            mark = digest(value)
            if held.get(part) == mark:
                value = no_update
            digests[part] = mark
        values.append(value)
    return values, digests


def live_frame(page: Page, services: Services) -> Component:
    """The page's frame with its tick and the memory of what the browser holds."""
    return html.Div(
        [
            page.frame(),
            dcc.Interval(id=f"{page.slug}-tick", interval=services.tick_ms),
            dcc.Store(id=f"{page.slug}-held", data={}),
        ],
        className=f"page page-{page.slug}",
        id=f"page-{page.slug}",
    )


def register_page(app: dash.Dash, page: Page, services: Services) -> None:
    """Register the tick of a page and its own callbacks."""
    outputs = [Output(*part.rsplit(".", 1)) for part in page.parts]
    ids = [component_id for component_id, _property in page.choices]
    inputs = [Input(component_id, prop) for component_id, prop in page.choices]
    tick = f"{page.slug}-tick"
    if page.follows_commands:
        app.clientside_callback(
            ClientsideFunction("autopilot", "tempo"),
            Output(tick, "interval"),
            Input("command-tick", "disabled"),
            State("shell-tick", "interval"),
            State("command-tick", "interval"),
        )

    # While an answer is on its way no further one is asked for: the browser drops an answer when
    # the next question is out, so a slow machine would never show any.
    @app.callback(
        [*outputs, Output(f"{page.slug}-held", "data")],
        Input(tick, "n_intervals"),
        Input("viewer", "data"),
        *inputs,
        State(f"{page.slug}-held", "data"),
        running=[(Output(tick, "disabled"), True, False)],
    )
    def refresh(_tick: int, viewer: object, *rest: Any) -> list[Any]:
        *choices, held = rest
        view = View(
            services.reader,
            Viewer.from_browser(viewer),
            datetime.now(timezone.utc),
            dict(zip(ids, choices, strict=False)),
            services.floors,
            services.memory,
            services.service,
            services.update_interval_s,
        )
        values, digests = changed(page.parts, view, held or {})
        return [*values, no_update if digests == held else digests]

    if page.setup is not None:
        page.setup(app, services)
