"""In a real browser: whatever the database, its clients and its errors say stays text."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dashboard.pages import PAGES
from tests.dashboard.browsing import LOADED, OVERFLOW
from tests.dashboard.hostile_store import hostile_store

pytestmark = pytest.mark.browser

HIDDEN = r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f]"
FOUND = f"""() => {{
  const hidden = new RegExp({HIDDEN!r});
  const wrong = [];
  for (const e of document.querySelectorAll('*')) {{
    for (const a of e.attributes) {{
      if (/^on/i.test(a.name) && a.name !== 'on') wrong.push('handler ' + a.name);
      if (/^(href|src|action|formaction|data|xlink:href)$/i.test(a.name)) {{
        const to = new URL(a.value, location.href);
        const ours = to.host === location.host || to.host === 'www.postgresql.org';
        if (!(['http:', 'https:'].includes(to.protocol) && ours)
            && !(to.protocol === 'data:' && e.tagName.toLowerCase() === 'img'))
          wrong.push(e.tagName + ' ' + a.name + '=' + a.value.slice(0, 60));
      }}
      if (!/^(id|value)$/.test(a.name) && hidden.test(a.value)) wrong.push('hidden in ' + a.name);
    }}
    if (['IFRAME', 'OBJECT', 'EMBED'].includes(e.tagName)) wrong.push(e.tagName);
  }}
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {{
    const tag = walk.currentNode.parentElement.tagName, text = walk.currentNode.data;
    // Plotly writes a lone zero-width space where a title is empty.
    if (!['SCRIPT', 'STYLE'].includes(tag) && text !== '\\u200b' && hidden.test(text))
      wrong.push('hidden text in ' + tag + ': ' + JSON.stringify(text.slice(0, 80)));
  }}
  return [...new Set(wrong)];
}}"""


def check(page: Page, what: str) -> None:
    assert page.evaluate(FOUND) == [], what
    assert page.evaluate("window.__pwned") is None, what
    assert page.evaluate(OVERFLOW) <= 0, what


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_hostile_text_is_inert_on_every_page(open_page: Any, size: str) -> None:
    with open_page(hostile_store(), size=size) as page:
        nav = page.locator(".bottomnav" if size == "phone" else ".sidenav")
        for entry in PAGES:
            nav.get_by_text(entry.title, exact=True).click()
            expect(page.locator("h1")).to_have_text(entry.title)
            page.wait_for_function(LOADED)
            expect(page.locator("body")).to_contain_text("<script>window.__pwned")
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            check(page, entry.title)
            open_details(page, entry.slug)


def open_details(page: Page, slug: str) -> None:
    """What a click opens, where hostile text is shown too."""
    if slug == "queries":
        page.get_by_role("button", name="Plans and evidence").first.click()
        expect(page.locator("#queries-detail")).to_contain_text("<script>")
    elif slug == "knobs":
        page.locator(".ag-row .ag-cell").first.click()
        expect(page.locator("#knob-editor")).to_contain_text("Server's default")
    else:
        return
    check(page, f"details of {slug}")
    page.keyboard.press("Escape")
    expect(page.locator(".modal-backdrop")).to_have_count(0)


def test_hostile_text_is_inert_without_scripts_and_in_errors(browser: Any, served: Any) -> None:
    base = served(hostile_store())
    page = browser.new_page()
    for path in (
        "/plain",
        "/vendor/icons/<script>window.__pwned=1<%2fscript>.svg",
        "/api/status",
        "/api/commands/1",
        "/metrics",
        "/healthz",
    ):
        page.goto(base + path)
        check(page, path)
    page.close()
