"""What the tests in a real browser share: Chromium by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.dashboard.fake_store import FakeStore

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000
"""For machines that are busy with other things, too."""
expect.set_options(timeout=PATIENCE_MS)
SIZES = {"wide": (1280, 800), "phone": (390, 844)}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LOADED = (
    "() => document.querySelector('#content .page') && "
    "!document.querySelector('#content .skeleton')"
)


def chromium() -> str | None:
    """Where Chromium is, None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def beating(store: FakeStore) -> FakeStore:
    """A store whose heartbeat is of this moment."""
    store.beat()
    return store


class Watched:
    """What a page did that it should not do."""

    def __init__(self, page: Page, base: str) -> None:
        self.problems: list[str] = []
        host = urlsplit(base).netloc
        page.on("console", lambda m: self._add("console", m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self._add("script", str(e)))
        page.on(
            "request",
            lambda r: (
                self._add("foreign request", r.url)
                if urlsplit(r.url).netloc not in (host, "")
                else None
            ),
        )
        page.on(
            "response", lambda r: self._add(f"HTTP {r.status}", r.url) if r.status >= 400 else None
        )

    def _add(self, kind: str, text: str) -> None:
        self.problems.append(f"{kind}: {text[:300]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, served: Callable[..., str]) -> Iterator[Any]:
    """Opens a page and, where ``quiet``, checks in the end that nothing went wrong.

    ``changes`` are settings; ``log_in`` is a name and a password for the login page.
    """
    contexts = []

    @contextmanager
    def visit(
        store: FakeStore,
        path: str = "/",
        size: str = "wide",
        scheme: str = "light",
        quiet: bool = True,
        log_in: tuple[str, str] | None = None,
        **changes: Any,
    ) -> Iterator[Page]:
        base = served(store, **changes)
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            timezone_id="Europe/Berlin",
            base_url=base,
            has_touch=size == "phone",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        watched = Watched(page, base)
        page.goto(path)
        if log_in is not None:
            page.get_by_label("Name").fill(log_in[0])
            page.get_by_label("Password").fill(log_in[1])
            page.get_by_role("button", name="Log in").click()
        page.wait_for_function(LOADED)
        yield page
        if quiet:
            assert watched.problems == []
        context.close()

    yield visit
    for context in contexts:
        context.close()
