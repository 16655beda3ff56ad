"""Clients of the pages: a page of ours, a browser that logs in, a script."""

from __future__ import annotations

import base64
import json
import re
from types import SimpleNamespace
from typing import Any

import dash
from flask.testing import FlaskClient

import dashboard
from backend.settings.dashboard import Role, UserSettings
from dashboard.auth.gate import session_cookie
from dashboard.security import TOKEN_HEADER, token_cookie
from tests.dashboard.fake_store import FakeStore

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


OPERATOR, VIEWER = "operator's password", "viewer's password"
ORIGIN = f"http://{HOST}"
PAUSE = {"kind": "pause", "payload": {}}
CHROMIUM_ACCEPTS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)


def guarded(store: FakeStore, **changes: Any) -> dash.Dash:
    """A dashboard with an operator, alice, and a viewer, wall; further arguments are settings."""
    users = {
        "alice": UserSettings(role=Role.OPERATOR, password=OPERATOR),
        "wall": UserSettings(role=Role.VIEWER, password=VIEWER),
    }
    chosen = settings(refresh_interval_s=1e-6, users=users, **changes)
    return dashboard.create_app(store, store, chosen, record=store._events.append)


class Browser:
    """A browser's cookies and what it sends by itself."""

    def __init__(self, app: Any, address: str = "10.1.1.1") -> None:
        self.flask = app.server.test_client()
        self.address = {"REMOTE_ADDR": address}

    def cookie(self, name: str) -> str | None:
        """What the browser keeps under a name."""
        found = self.flask.get_cookie(name, domain="127.0.0.1")
        return None if found is None else found.value

    def get(self, path: str, **headers: str) -> Any:
        """GET as Chromium navigates."""
        sent = {"Host": HOST, "Accept": CHROMIUM_ACCEPTS, **headers}
        return self.flask.get(
            path, headers=sent, base_url=ORIGIN, environ_base=self.address, buffered=True
        )

    def post(self, path: str, body: Any = None, form: Any = None, **headers: str) -> Any:
        """POST JSON as a page does, or a form, whose token is its own business."""
        sent = {"Host": HOST, "Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", **headers}
        if form is None:
            sent.setdefault(TOKEN_HEADER, self.cookie(token_cookie(PORT)) or "")
        return self.flask.post(
            path, json=body, data=form, headers=sent, base_url=ORIGIN, environ_base=self.address
        )

    def log_in(self, name: str, password: str, path: str = "/login", **headers: str) -> Any:
        """Fill in the login page and send it."""
        page = self.get("/login").text
        token = re.search(r'name="token" value="([^"]+)"', page)
        form = {"name": name, "password": password, "token": token[1] if token else ""}
        return self.post(path, form=form, **headers)


def basic(name: str, password: str) -> dict[str, str]:
    """The headers of a script that authenticates itself."""
    given = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {given}", "Accept": "*/*"}


def session_of(browser: Browser) -> str | None:
    """The session cookie that a browser keeps."""
    return browser.cookie(session_cookie(PORT))


def callback_of(browser: Browser, part: str) -> dict[str, Any]:
    """What Dash knows of the callback with this text among its inputs."""
    dependencies = browser.get("/_dash-dependencies", Accept="*/*").json
    return next(d for d in dependencies if part in json.dumps(d["inputs"]))


def press(browser: Browser, kind: str, payload: dict[str, Any]) -> Any:
    """Send what Dash sends when a button that queues a command is pressed."""
    button = {
        "type": "command",
        "kind": kind,
        "place": "forged",
        "payload": json.dumps(payload),
        "confirm": "",
    }
    callback = callback_of(browser, '\\"command\\"')
    key = json.dumps(button, sort_keys=True, separators=(",", ":"))
    body = {
        "output": callback["output"],
        "outputs": [
            dict(zip(("id", "property"), name.split(".", 1), strict=True))
            for name in callback["output"].strip(".").split("...")
        ],
        "inputs": [[{"id": button, "property": "n_clicks", "value": 1}]],
        "changedPropIds": [f"{key}.n_clicks"],
        "state": [{"id": "tracked", "property": "data", "value": []}],
    }
    return browser.post("/_dash-update-component", body)


def tracked(answer: Any) -> list[dict[str, Any]]:
    """The commands that the page follows after an answer to :func:`press`."""
    assert answer.status_code == 200, answer.text
    response = answer.json["response"]
    return next(v["data"] for k, v in response.items() if k.startswith("tracked"))
