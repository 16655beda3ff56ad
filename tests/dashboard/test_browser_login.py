"""Logging in, looking and logging out in a real browser, with scripts and without."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from backend.settings.dashboard import Role, UserSettings
from dashboard.pages import PAGES
from tests.dashboard.browsing import LOADED, OVERFLOW, SIZES
from tests.dashboard.fake_store import FakeStore

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("cheap_hashes")]

OPERATOR, VIEWER = "operator's password", "viewer's password"
USERS = {
    "alice": UserSettings(role=Role.OPERATOR, password=OPERATOR),
    "wall": UserSettings(role=Role.VIEWER, password=VIEWER),
}
DARK, LIGHT = "rgb(15, 21, 25)", "rgb(244, 246, 244)"


@pytest.fixture
def beating(store: FakeStore) -> FakeStore:
    store.beat()
    return store


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_page_fits_and_follows_the_theme(
    browser: Any, served: Any, beating: FakeStore, size: str, scheme: str, scripts: bool
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        java_script_enabled=scripts,
        base_url=served(beating, users=USERS),
    )
    page = context.new_page()
    page.goto("/safety")
    assert page.url.endswith("/login?next=/safety")
    expect(page.get_by_label("Name")).to_be_focused()
    if scripts:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            DARK if scheme == "dark" else LIGHT
        )
        assert page.evaluate(OVERFLOW) <= 0
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("a wrong password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The name or the password is not right.")
    expect(page.get_by_label("Name")).to_have_value("alice")
    expect(page.get_by_label("Password")).to_have_value("")
    page.get_by_label("Password").fill(OPERATOR)
    page.keyboard.press("Enter")
    if scripts:
        page.wait_for_function(LOADED)
        assert page.url.endswith("/safety")
    else:
        page.wait_for_url("**/plain")
        expect(page.locator("main")).to_contain_text("Latency index")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
    context.close()


def test_an_operator_logs_in_commands_and_logs_out(open_page: Any, beating: FakeStore) -> None:
    with open_page(beating, "/safety", users=USERS, log_in=("alice", OPERATOR)) as page:
        expect(page.locator(".account")).to_contain_text("alice")
        page.get_by_role("button", name=re.compile("^Pause")).first.click()
        expect(page.locator("#command-notes")).to_contain_text("Pause: queued")
        assert beating.commands()[-1].actor == "alice@dashboard"
        page.locator("#logout").click()
        page.wait_for_url("**/login")
        page.goto("/safety")
        assert page.url.endswith("/login?next=/safety")


@pytest.mark.parametrize("size", SIZES)
def test_a_viewer_reads_every_page_and_every_control_is_disabled(
    open_page: Any, beating: FakeStore, size: str
) -> None:
    with open_page(beating, size=size, users=USERS, log_in=("wall", VIEWER)) as page:
        nav = page.locator(".bottomnav" if size == "phone" else ".sidenav")
        controls = 0
        for entry in PAGES:
            nav.get_by_text(entry.title, exact=True).click()
            expect(page.locator("h1")).to_have_text(entry.title)
            page.wait_for_function(LOADED)
            found = page.locator('[id*=\'"type":"command"\']')
            enabled = [b for b in found.all() if b.is_enabled()]
            assert enabled == [], entry.title
            controls += found.count()
            assert page.evaluate(OVERFLOW) <= 0, entry.title
        assert controls > 10
        nav.get_by_text("Knobs", exact=True).click()
        page.locator(".ag-row", has_text="work_mem").first.locator(".ag-cell").first.click()
        expect(page.locator("#knob-check")).to_contain_text("viewer may look")
        expect(page.locator("#knob-input")).to_be_disabled()
        expect(page.locator("#knob-review")).to_be_disabled()
        assert beating.commands() == []


def test_a_page_whose_session_is_over_asks_for_a_login_and_comes_back(
    open_page: Any, beating: FakeStore
) -> None:
    with open_page(
        beating,
        "/safety",
        quiet=False,
        users=USERS,
        log_in=("wall", VIEWER),
        session_idle_s=4.0,
    ) as page:
        # Nobody touches the page, though it asks for new numbers all the time.
        page.wait_for_url("**/login?next=%2Fsafety")
        page.get_by_label("Name").fill("wall")
        page.get_by_label("Password").fill(VIEWER)
        page.keyboard.press("Enter")
        page.wait_for_function(LOADED)
        assert page.url.endswith("/safety")
