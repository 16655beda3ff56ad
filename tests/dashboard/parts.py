"""The parts of pages, as the tests look at them: built for a viewer, and as one text."""

from __future__ import annotations

import json

from plotly.utils import PlotlyJSONEncoder

from dashboard.format import Viewer
from dashboard.live import View
from tests.dashboard.fake_store import FakeStore


def view(store: FakeStore, viewer: Viewer | None = None, **choices: object) -> View:
    """What a part is built from; ``choices`` are those of the page, by the id of their field."""
    return View(
        store,
        viewer or Viewer(),
        store.now,
        {k.replace("_", "-"): v for k, v in choices.items()},
    )


def text_of(value: object) -> str:
    """A part as the browser gets it."""
    return json.dumps(value, cls=PlotlyJSONEncoder, ensure_ascii=False)
