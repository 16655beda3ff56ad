"""The pages, in the order of the navigation. A new page is a module and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from dashboard.live import Page
from dashboard.pages import decisions, knobs, learning, overview, queries, safety

PAGES: Sequence[Page] = (
    overview.PAGE,
    knobs.PAGE,
    decisions.PAGE,
    queries.PAGE,
    learning.PAGE,
    safety.PAGE,
)
