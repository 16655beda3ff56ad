"""A dashboard over an in-memory store, for clients of every kind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import dash
import pytest

import dashboard
from dashboard import serving
from dashboard.auth import accounts
from tests.dashboard.browsing import browser, open_page
from tests.dashboard.clients import (
    HOST,
    OPERATOR,
    PORT,
    VIEWER,
    Browser,
    Client,
    guarded,
    settings,
)
from tests.dashboard.fake_store import FakeStore

__all__ = ["HOST", "PORT", "Client", "browser", "open_page", "settings"]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def app(store: FakeStore) -> dash.Dash:
    """Every request reads the store afresh."""
    return dashboard.create_app(store, store, settings(refresh_interval_s=1e-6))


@pytest.fixture
def client(app: dash.Dash) -> Client:
    return Client(app)


@pytest.fixture
def served() -> Iterator[Any]:
    """Serve a dashboard over a store on a free port; returns a function from store to URL.

    Its further arguments are settings.
    """
    ended: list[Any] = []

    def serve(store: FakeStore, **changes: Any) -> str:
        chosen = settings(port=0, **changes)
        app = dashboard.create_app(store, store, chosen, record=store._events.append)
        server = dashboard.make_server(app, "127.0.0.1", 0, chosen.trusted_proxy)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        ended.append((server, thread))
        return f"http://127.0.0.1:{server.effective_port}"

    yield serve
    for server, thread in ended:
        serving.stop(server)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def protected(store: FakeStore, cheap_hashes: None) -> dash.Dash:
    """A dashboard with users."""
    return guarded(store)


@pytest.fixture
def stranger(protected: dash.Dash) -> Browser:
    return Browser(protected)


@pytest.fixture
def operator(protected: dash.Dash) -> Browser:
    browser = Browser(protected)
    assert browser.log_in("alice", OPERATOR).status_code == 303
    return browser


@pytest.fixture
def viewer(protected: dash.Dash) -> Browser:
    browser = Browser(protected)
    assert browser.log_in("wall", VIEWER).status_code == 303
    return browser


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash in microseconds; what the parameters are has a test of its own."""
    monkeypatch.setattr(accounts, "METHOD", "scrypt:1024:1:1")
