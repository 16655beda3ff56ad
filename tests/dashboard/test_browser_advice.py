"""The page of the advice in a real browser, from its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from backend.advice.advice import advise
from backend.advice.pages import to_html
from tests.dashboard.browsing import OVERFLOW, SIZES, Watched
from tests.unit.advice.made_facts import START, facts, hostile_advice, query, table

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_the_window_and_runs_nothing(
    browser: Browser, tmp_path: Path, size: str, scheme: str
) -> None:
    long = advise(
        facts(tables=(table(dead_rows=400_000, name="orders_" * 9),), queries=query()), START
    )
    for number, advice in enumerate((long, hostile_advice())):
        file = tmp_path / f"advice{number}.html"
        file.write_text(to_html(advice), encoding="utf-8")
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        watched = Watched(page, file.as_uri())
        page.goto(file.as_uri())
        for text in page.locator("summary").all()[:7]:
            text.click()
        assert page.evaluate(OVERFLOW) == 0
        assert page.locator("pre").first.is_visible()
        assert watched.problems == []
        page.close()
