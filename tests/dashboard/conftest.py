"""A dashboard over an in-memory store, for clients of every kind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dash
import pytest
from flask.testing import FlaskClient

import dashboard
from dashboard import serving
from dashboard.security import TOKEN_HEADER, token_cookie
from tests.dashboard.browsing import browser, open_page
from tests.dashboard.fake_store import FakeStore

__all__ = ["browser", "open_page"]

PORT = 8050
HOST = f"127.0.0.1:{PORT}"


def settings(**changes: Any) -> Any:
    """Settings as backend.config makes them, without reading files."""
    values: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": PORT,
        "refresh_interval_s": 1.0,
        "allowed_hosts": (),
        "users": {},
        "trusted_proxy": None,
        "session_idle_s": 3600.0,
        "session_max_s": 43200.0,
    }
    return SimpleNamespace(**{**values, **changes})


class Client:
    """A Flask test client that behaves like a page of ours unless told otherwise."""

    def __init__(self, app: dash.Dash) -> None:
        self.flask: FlaskClient = app.server.test_client()
        self.get("/healthz")
        cookie = self.flask.get_cookie(token_cookie(PORT), domain="127.0.0.1")
        assert cookie is not None
        self.token = cookie.value

    def get(self, path: str, **headers: str) -> Any:
        """GET with the right Host."""
        return self.flask.get(
            path, headers={"Host": HOST, **headers}, base_url=f"http://{HOST}", buffered=True
        )

    def post(self, path: str, body: Any, drop: tuple[str, ...] = (), **headers: str) -> Any:
        """POST JSON as a page of ours would; ``headers`` replace, ``drop`` leaves out."""
        sent = {
            "Host": HOST,
            "Origin": f"http://{HOST}",
            "Sec-Fetch-Site": "same-origin",
            TOKEN_HEADER: self.token,
        }
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        for name in drop:
            sent.pop(name, None)
        return self.flask.post(path, json=body, headers=sent, base_url=f"http://{HOST}")


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
