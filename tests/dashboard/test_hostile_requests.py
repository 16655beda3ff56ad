"""Requests of any method, path, header and body: JSON with a reason, never a 500, nothing queued.

Nothing is queued without this dashboard's token, and, where there are users, without an operator.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import dashboard
from backend.settings.dashboard import Role, UserSettings
from dashboard import security
from dashboard.auth import accounts as passwords
from dashboard.pages import PAGES
from tests.dashboard.conftest import HOST, Client
from tests.dashboard.conftest import settings as dashboard_settings
from tests.dashboard.fake_store import FakeStore

HEADERS = ("Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options",
           "Referrer-Policy")  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get")
PATHS = st.sampled_from(
    ["/", "/api/status", "/api/commands", "/api/commands/1", "/api/commands/" + "9" * 400,
     "/api/commands/-1", "/api/commands/\u0661", "/healthz", "/metrics", "/plain", "/login",
     "/logout", "/_dash-layout", "/_dash-dependencies", "/_dash-update-component", "/_reload-hash",
     "/_favicon.ico", "/vendor/icons/x.svg", "/assets/js/theme.js", "/assets/../run.py",
     "/_dash-component-suites/dash/x.js", "//evil.example/", "/api/%2e%2e/", "/\x00",
     *(page.path for page in PAGES)]
) | st.text(max_size=20).map(lambda text: "/" + quote(text, safe="/%?=&"))  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "payload", "knobs", "work_mem", "fsync", "version_id", "mode"])
            | st.text(max_size=10),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
BODIES = (
    st.binary(max_size=100)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [b"[" * 100_000, b'{"kind":' * 20_000, b"9" * 10_000, b'{"kind": 1' + b"0" * 9000 + b"}",
         b'{"kind": "pause", "kind": "resume"}', b'{"kind": "\\ud800"}', b"\xff\xfe{\x00",
         b"NaN", b'{"kind": "set_knobs", "payload": {"knobs": {"work_mem": 1e999}}}',
         b"token=x&token=y", b"--x\r\nContent-Disposition: form-data; name=token\r\n\r\nx\r\n--x--"]
    )
)  # fmt: skip
TYPES = st.sampled_from(
    ["application/json", "application/json; charset=utf-16", "application/json; charset=no-such",
     "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
     "multipart/form-data", "application/json\x0b", "", "/", "application/vnd.api+json"]
)  # fmt: skip
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
OTHER_HEADERS = st.dictionaries(
    st.sampled_from(
        ["Accept", "Accept-Encoding", "Cookie", "Authorization", "Content-Encoding", "Range",
         "If-None-Match", "If-Modified-Since", "X-Forwarded-For", "X-Forwarded-Host",
         "X-HTTP-Method-Override", "Origin", "Referer", "Content-Length", "Transfer-Encoding"]
    ),
    TEXTS | st.sampled_from(["-1", "9" * 30, "chunked", "bytes=9-1", "*/*;q=x", "gzip"]),
    max_size=3,
)  # fmt: skip
ALL_OURS = {"Host": HOST, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}


class Site:
    """A dashboard under test, and what it logs."""

    def __init__(self, **changes: Any) -> None:
        self.store = FakeStore()
        self.app = dashboard.create_app(
            self.store, self.store, dashboard_settings(refresh_interval_s=1e-6, **changes)
        )
        self.flask = self.app.server.test_client()

    def send(self, method: str, path: str, headers: dict[str, str], **more: Any) -> Any:
        """One request."""
        return self.flask.open(
            path, method=method, headers=headers, base_url=f"http://{HOST}", buffered=True, **more
        )

    @property
    def queued(self) -> int:
        """How many commands were ever queued."""
        return len(self.store.commands(limit=10_000))


@pytest.fixture(scope="module")
def site() -> Site:
    """Without users: everybody on this machine is an operator."""
    return Site()


@pytest.fixture(scope="module")
def guarded() -> Any:
    """With users."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "METHOD", "scrypt:1024:1:1")
        users = {
            "ann": UserSettings(role=Role.OPERATOR, password="operator's password"),
            "wall": UserSettings(role=Role.VIEWER, password="viewer's password"),
        }
        yield Site(users=users)


@pytest.fixture(autouse=True)
def nothing_failed(caplog: pytest.LogCaptureFixture) -> Any:
    """No request made the dashboard log an error.

    But for a callback's value that no page of ours sends: the page stays as it is.
    """
    yield
    errors = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    borne = ("a callback failed", "could not build ")
    assert [message for message in errors if not message.startswith(borne)] == []


def is_sound(answer: Any, path: str) -> None:
    """What holds of every answer."""
    text = answer.get_data().decode("utf-8", "replace")
    assert answer.status_code < 500 or answer.status_code == 501, text
    for name in HEADERS:
        assert name in answer.headers, name
    assert "Traceback" not in text
    if answer.status_code >= 400 and path.startswith("/api/") and text:
        assert answer.json["reason"]


fuzzing = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzing
@given(st.sampled_from(METHODS), PATHS, OTHER_HEADERS, BODIES, TYPES)
@example("POST", "/api/commands", {}, b'{"kind": "pause"}', "application/json")
def test_without_a_token_nothing_is_queued_and_nothing_breaks(
    site: Site, method: str, path: str, headers: dict[str, str], body: bytes, kind: str
) -> None:
    before = site.queued
    sent = {**headers, "Host": HOST, "Content-Type": kind}
    is_sound(site.send(method, path, sent, data=body), path)
    assert site.queued == before


@fuzzing
@given(st.sampled_from(METHODS), PATHS, OTHER_HEADERS, BODIES, TYPES)
@example("POST", "/api/commands", {}, b'{"kind": "pause"}', "application/json")
@example("POST", "/api/commands", {}, b"[" * 100_000, "application/json")
@example("POST", "/_dash-update-component", {}, b'{"a":' * 100_000, "application/json")
def test_with_a_token_what_is_refused_is_refused_with_a_reason(
    site: Site, method: str, path: str, headers: dict[str, str], body: bytes, kind: str
) -> None:
    before, client = site.queued, Client(site.app)
    sent = {**headers, **ALL_OURS, "Content-Type": kind, security.TOKEN_HEADER: client.token}
    answer = client.flask.open(
        path, method=method, headers=sent, base_url=f"http://{HOST}", data=body, buffered=True
    )
    is_sound(answer, path)
    taken = path == "/api/commands" and method == "POST" and answer.status_code == 202
    assert site.queued == before + taken


@fuzzing
@given(JSON | st.fixed_dictionaries({"kind": JSON, "payload": JSON}))
def test_any_json_is_queued_or_refused_with_a_reason(site: Site, body: Any) -> None:
    before = site.queued
    answer = Client(site.app).post("/api/commands", body)
    is_sound(answer, "/api/commands")
    assert answer.status_code in (202, 400, 422)
    assert site.queued == before + (answer.status_code == 202)


@fuzzing
@given(st.sampled_from(METHODS), PATHS, OTHER_HEADERS, BODIES, TYPES)
@example("POST", "/api/commands", {}, b'{"kind": "pause"}', "application/json")
def test_without_a_login_nothing_is_queued_with_a_token_either(
    guarded: Site, method: str, path: str, headers: dict[str, str], body: bytes, kind: str
) -> None:
    token = re.search(r'name="token" value="([^"]+)"', guarded.send("GET", "/login", ALL_OURS).text)
    assert token
    sent = {**headers, **ALL_OURS, "Content-Type": kind, security.TOKEN_HEADER: token[1]}
    is_sound(guarded.send(method, path, sent, data=body), path)
    assert guarded.queued == 0


# -- the pages' own callbacks --------------------------------------------------------------------


def named(name: str) -> Any:
    """An output as a page would send it."""
    place, _, attribute = name.rpartition(".")
    if not place.startswith("{"):
        return {"id": place, "property": attribute.partition("@")[0]}
    return [{"id": {"type": "x"}, "property": attribute.partition("@")[0]}]


def filled(item: Any) -> Any:
    """An input as a page would send it, with two where it is a pattern."""
    if not item["id"].startswith("{"):
        return dict(item)
    return [{"id": {"type": "x", "id": n}, "property": item["property"]} for n in range(2)]


def callbacks_of(site: Site) -> list[dict[str, Any]]:
    """The bodies of all callbacks on the server as a page would send them, without values."""
    bodies = []
    for output, found in site.app.callback_map.items():
        if "callback" not in found:
            continue
        several = output.startswith("..")
        names = output.strip(".").split("...") if several else [output]
        outputs = [named(name) for name in names]
        bodies.append(
            {
                "output": output,
                "outputs": outputs if several else outputs[0],
                "changedPropIds": [],
                "inputs": [filled(item) for item in found["inputs"]],
                "state": [filled(item) for item in found["state"]],
            }
        )
    return bodies


VALUES_OF_PAGES = JSON | st.sampled_from(
    ["/", "/knobs", "/nothing", [{"id": 1}], "work_mem", {"work_mem": "1"}, "x" * 5000, 0, 10**30]
)
CHANGES = st.dictionaries(
    st.sampled_from(["output", "outputs", "inputs", "state", "changedPropIds", "more"]),
    JSON,
    min_size=1,
    max_size=2,
)


@settings(parent=fuzzing, max_examples=200)
@given(st.data())
def test_callbacks_bear_any_value(site: Site, data: Any) -> None:
    body = data.draw(st.sampled_from(callbacks_of(site)), "body")
    names = ["nothing.like_it"]
    for item in [*body["inputs"], *body["state"]]:
        for one in item if isinstance(item, list) else [item]:
            one["value"] = data.draw(VALUES_OF_PAGES, "value")
            place = one["id"] if isinstance(one["id"], str) else json.dumps(one["id"])
            names.append(f"{place}.{one['property']}")
    body["changedPropIds"] = data.draw(st.lists(st.sampled_from(names), max_size=2))
    answer = Client(site.app).post("/_dash-update-component", body)
    assert answer.status_code in (200, 204), (answer.status_code, answer.text)
    assert "Traceback" not in answer.text


@settings(parent=fuzzing, max_examples=150)
@given(st.data())
def test_callbacks_of_another_shape_are_refused(site: Site, data: Any) -> None:
    before = site.queued
    body = data.draw(st.sampled_from(callbacks_of(site)), "body")
    body = data.draw(JSON | CHANGES.map(lambda changes: {**body, **changes}))
    answer = Client(site.app).post("/_dash-update-component", body)
    is_sound(answer, "/_dash-update-component")
    assert answer.status_code in (200, 204) or answer.json["reason"]
    assert site.queued == before
