"""The whole product in a browser: a knob turned on the page is on the real server, and back."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from dashboard.pages import PAGES
from dashboard.security import TOKEN_HEADER, token_cookie
from tests.dashboard.browsing import LOADED, Watched
from tests.running_product import RunningProduct, eventually, open_folder

pytestmark = [pytest.mark.browser, pytest.mark.integration, pytest.mark.slow]

KNOB = "maintenance_work_mem"
PROMISE_S = 2.0
"""A knob turned on the page is on the server within this time on an idle machine."""
LIMIT_S = 10.0
"""What the tests demand: other tests share the machine."""


@pytest.fixture(scope="module")
def product() -> Iterator[RunningProduct]:
    """A product that observes, so that nothing but the tests changes a knob."""
    with open_folder() as folder:
        running = RunningProduct(folder, mode="observe").start()
        try:
            eventually(
                lambda: (s := running.store.status()) is not None and s.phase.value == "learning",
                "the baseline is measured", 120,
            )  # fmt: skip
            yield running
        finally:
            print(running.story())
            running.end()
            running.server.destroy()


@pytest.fixture
def context(browser: Browser, product: RunningProduct) -> Iterator[BrowserContext]:
    base = f"http://127.0.0.1:{product.port}"
    opened = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=base)
    opened.set_default_timeout(20_000)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, product: RunningProduct) -> Iterator[Page]:
    opened = context.new_page()
    watched = Watched(opened, f"http://127.0.0.1:{product.port}")
    yield opened
    assert watched.problems == []


def setting(product: RunningProduct, name: str = KNOB) -> tuple[str, str]:
    [(value, source)] = product.query(
        f"SELECT setting, source FROM pg_settings WHERE name = '{name}'"
    )
    return value, source


def edit(page: Page, knob: str, value: str) -> None:
    """Choose a knob in the grid and type a value."""
    page.fill("#knobs-search", knob)
    page.locator(".ag-cell", has_text=re.compile(f"^{knob}$")).first.click()
    expect(page.locator("#knob-title")).to_have_text(knob)
    page.fill("#knob-input", value)


def post(context: BrowserContext, product: RunningProduct, body: Any, **headers: str) -> Any:
    """POST a command as a page of ours would; ``headers`` replace."""
    context.request.get("/healthz")
    name = token_cookie(product.port)
    token = next(c["value"] for c in context.cookies() if c["name"] == name)
    origin = f"http://127.0.0.1:{product.port}"
    sent = {"Origin": origin, TOKEN_HEADER: token}
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    return context.request.post("/api/commands", data=body, headers=sent)


def test_every_page_shows_the_running_product(page, product):
    page.goto("/")
    for entry in PAGES:
        page.locator(".sidenav").get_by_text(entry.title, exact=True).click()
        expect(page.locator("h1")).to_have_text(entry.title)
        page.wait_for_function(LOADED)
        expect(page.locator("#shell-banner")).not_to_contain_text("does not answer")
    page.goto("/queries")
    page.wait_for_function(LOADED)
    expect(page.locator("#content")).to_contain_text(re.compile("select", re.IGNORECASE))


def test_a_knob_turned_on_the_page_is_on_the_server_and_one_click_undoes_it(page, product):
    before, entries = setting(product), product.server_state().entries
    page.goto("/knobs")
    page.wait_for_function(LOADED)
    edit(page, KNOB, "96MB")
    page.locator("#knob-review").click()
    expect(page.locator("#review-body")).to_contain_text("96\u00a0MB")
    assert setting(product) == before, "nothing happens before it is confirmed"

    confirmed_s = time.monotonic()
    page.locator("#review-apply").click(no_wait_after=True)
    eventually(
        lambda: setting(product) == ("98304", "configuration file"), "it is on the server",
        LIMIT_S, poll_s=0.02,
    )  # fmt: skip
    took_s = time.monotonic() - confirmed_s
    print(f"on the server after {took_s:.2f} s (promised: {PROMISE_S:g} s)")
    assert KNOB in product.server_state().entries
    expect(page.locator("#knobs-last")).to_contain_text("on the server")
    expect(page.locator("#knobs-history")).to_contain_text(KNOB)
    expect(page.locator("#knobs-history")).to_contain_text("human@dashboard")
    change = product.store.changes(limit=1)[-1]
    assert (change.knob, change.actor, change.after_value) == (KNOB, "human@dashboard", 98304)

    page.locator("#knobs-last").get_by_role("button", name="Undo").click()
    eventually(lambda: setting(product) == before, "the old value is back", LIMIT_S)
    assert product.server_state().entries == entries, "no entry is left behind"
    expect(page.locator("#knobs-last")).to_contain_text("undone")
    expect(page.locator("#knobs-history")).to_contain_text("rolled back")
    assert product.store.open_changes() == []


def test_a_value_out_of_bounds_cannot_be_confirmed(page, product):
    before = setting(product)
    page.goto("/knobs")
    page.wait_for_function(LOADED)
    edit(page, KNOB, "64TB")
    expect(page.locator("#knob-check")).to_contain_text("Allowed:")
    expect(page.locator("#knob-review")).to_be_disabled()
    assert setting(product) == before


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({KNOB: 2**40}, KNOB),
        ({KNOB: "96MB'; DROP TABLE orders"}, KNOB),
        ({"fsync": "off"}, "fsync"),
        ({"synchronous_commit": "off"}, "synchronous_commit"),
        ({"archive_command": "rm -rf /"}, "archive_command"),
        ({"no_such_knob": 1}, "no_such_knob"),
    ],
)
def test_what_may_not_be_written_is_refused_with_the_reason(context, product, knobs, reason):
    before, state = product.store.commands(), product.server_state()
    answer = post(context, product, {"kind": "set_knobs", "payload": {"knobs": knobs}})
    assert answer.status == 422
    assert reason in answer.json()["reason"]
    assert product.store.commands() == before
    assert product.server_state().differences(state) == {}


@pytest.mark.parametrize(
    "forged",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {TOKEN_HEADER.replace("-", "_"): "guessed"},
    ],
    ids=str,
)
def test_a_forged_request_is_refused_with_the_reason(context, product, forged):
    before = product.store.commands()
    body = {"kind": "set_knobs", "payload": {"knobs": {KNOB: 131072}}}
    answer = post(context, product, body, **forged)
    assert answer.status in (400, 403, 421)
    assert answer.json()["reason"]
    assert product.store.commands() == before
    assert setting(product)[0] != "131072"


def test_the_api_changes_a_knob_and_the_audit_trail_says_who(context, product):
    before = setting(product)
    answer = post(context, product, {"kind": "set_knobs", "payload": {"knobs": {KNOB: 131072}}})
    assert answer.status == 202
    number = answer.json()["id"]
    eventually(lambda: setting(product)[0] == "131072", "it is on the server", LIMIT_S)
    command = eventually(
        lambda: (c := product.store.command(number)) and c.state.value == "done" and c,
        "the command is answered", LIMIT_S,
    )  # fmt: skip
    assert command.actor == "human@api"
    assert post(context, product, {"kind": "roll_back", "payload": {}}).status == 202
    eventually(lambda: setting(product) == before, "the old value is back", LIMIT_S)
