"""The pages in a real browser: Chromium by Playwright, against the in-memory store."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from playwright.sync_api import expect

from dashboard.pages import PAGES
from tests.dashboard.browsing import LOADED, OVERFLOW, SIZES, beating
from tests.dashboard.fake_store import FakeStore

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_loads_in_every_size_and_theme(open_page, store, size, scheme):
    with open_page(beating(store), size=size, scheme=scheme) as page:
        assert page.locator("html").get_attribute("data-bs-theme") == scheme
        page.evaluate("window.neverReloaded = true")
        nav = page.locator(".bottomnav" if size == "phone" else ".sidenav")
        for entry in PAGES:
            nav.get_by_text(entry.title, exact=True).click()
            expect(page.locator("h1")).to_have_text(entry.title)
            page.wait_for_function(LOADED)
            graphs = [p for p in entry.parts if p.endswith(".figure")]
            if graphs and entry.slug not in ("decisions",):
                page.wait_for_function(
                    "n => document.querySelectorAll('.js-plotly-plot .main-svg').length >= n",
                    arg=len(graphs),
                )
            assert page.evaluate(OVERFLOW) <= 0, entry.title
            assert page.title().startswith(entry.title)
        assert page.evaluate("window.neverReloaded") is True


@pytest.mark.parametrize("entry", PAGES, ids=lambda p: p.slug)
def test_an_empty_store_says_what_will_appear(open_page, entry):
    with open_page(FakeStore(empty=True), entry.path, size="phone", scheme="dark") as page:
        expect(page.locator("h1")).to_have_text(entry.title)
        expect(page.locator("#shell-banner")).to_contain_text("The tuner is starting")
        expect(
            page.locator("#content .empty, #content .annotation-text, #knobs-summary").first
        ).to_be_visible()
        assert page.evaluate(OVERFLOW) <= 0


def test_numbers_are_fresh_without_a_reload(open_page, store):
    with open_page(beating(store)) as page:
        page.evaluate("window.neverReloaded = true")
        store.beat(activity="a very new activity", index=0.5)
        expect(page.locator("#overview-activity")).to_contain_text("a very new activity")
        expect(page.locator(".tag-index")).to_contain_text("0.500")
        assert page.evaluate("window.neverReloaded") is True


class SlowStore(FakeStore):
    """Its answers take longer than a page waits until it asks again."""

    def trials(self, *, limit: int = 200) -> Any:
        threading.Event().wait(1.5)
        return super().trials(limit=limit)


@pytest.mark.parametrize("path", ["/", "/decisions"])
def test_a_slow_store_keeps_no_page_from_being_fresh(open_page, path):
    store = SlowStore()
    with open_page(beating(store), path) as page:
        button = page.locator(".icon-button").first
        button.click()
        page.locator("#shell-controls").get_by_role("button", name="Pause").click()
        expect(page.locator("#command-notes")).to_contain_text("Pause: queued")
        store._trials[-1] = replace(store._trials[-1], reasons=("a very new reason",))
        store.beat(activity="a very new activity")
        shown = "#overview-activity" if path == "/" else "#decisions-trials"
        expect(page.locator(shown)).to_contain_text("a very new")


def test_hostile_text_is_shown_as_text(open_page, store):
    with open_page(beating(store), "/queries") as page:
        expect(page.locator("#queries-classes")).to_contain_text("<script>")
        page.locator(".sidenav").get_by_text("Safety").click()
        expect(page.locator("#safety-events")).to_contain_text("<img src=x")
        assert page.evaluate("window.__pwned") is None


def test_the_theme_is_switched_and_remembered(open_page, store):
    with open_page(beating(store), scheme="light") as page:
        page.locator("#theme-toggle").click()
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
        page.wait_for_function(
            "() => document.querySelector('#overview-index .js-plotly-plot')"
            ".layout.font.color === '#e3eaee'"
        )
        page.reload()
        page.wait_for_function(LOADED)
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")


def test_a_silent_tuner_and_an_unreadable_store_are_told_and_recover(open_page, store):
    with open_page(beating(store)) as page:
        store._status = replace(
            store.status(), at=datetime.now(timezone.utc) - timedelta(minutes=2)
        )
        banner = page.locator("#shell-banner")
        expect(banner).to_contain_text("The tuner does not answer since")
        store.failure = "disk I/O error"
        expect(banner).to_contain_text("The store cannot be read. disk I/O error")
        store.failure = None
        store.beat()
        expect(banner).to_be_empty()
        expect(page.locator("#overview-tiles")).to_contain_text("Latency index")


def test_a_dead_dashboard_is_noticed_by_the_page(open_page, store):
    with open_page(beating(store), quiet=False) as page:
        expect(page.locator("#offline")).to_be_hidden()
        page.route("**/_dash-update-component*", lambda route: route.abort())
        expect(page.locator("#offline")).to_be_visible()
        page.unroute("**/_dash-update-component*")
        expect(page.locator("#offline")).to_be_hidden()


def test_without_scripts_there_is_a_plain_summary(browser, served, store):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(served(beating(store)))
    page.wait_for_url("**/plain")
    assert "Latency index" in page.inner_text("main")
    context.close()
