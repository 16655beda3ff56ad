"""Forged requests are refused with the reason; what is served carries the headers."""

from __future__ import annotations

import re

import dash
import pytest

import dashboard
from dashboard import security, vendor
from tests.dashboard.conftest import HOST, Client, settings
from tests.dashboard.fake_store import FakeStore

COMMAND = {"kind": "pause", "payload": {}}


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8050",
        "127.0.0.1",
        "[::1]:8050",
        "LOCALHOST",
        "tuner.example:80",
        "localhost.:8050",
    ],
)
def test_own_names_pass(host):
    guard = security.RequestGuard("127.0.0.1", ["tuner.example"], 8050)
    assert guard.host_allowed(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "localhost.evil.example",
        "evil@localhost",
        "localhost/evil",
        "localhost:80:80",
        "10.0.0.9",
        "[::1",
        "127.0.0.1 evil",
        "0.0.0.0",
    ],
)
def test_foreign_and_malformed_names_are_refused(host):
    guard = security.RequestGuard("127.0.0.1", [], 8050)
    assert not guard.host_allowed(host)


def test_bound_to_every_address_bare_addresses_pass_and_names_do_not():
    guard = security.RequestGuard("0.0.0.0", [], 8050)
    assert guard.host_allowed("192.168.1.7:8050")
    assert not guard.host_allowed("rebound.example:8050")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        "/metrics",
        "/_dash-layout",
        "/api/status",
        "/_dash-dependencies",
        "/vendor/bootstrap.min.css",
    ],
)
def test_a_foreign_host_reads_nothing(client, path):
    answer = client.flask.get(path, headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "evil.example" in answer.json["reason"]
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/api/commands", "/_dash-update-component", "/anything"])
@pytest.mark.parametrize(
    ("headers", "drop", "word"),
    [
        ({"Origin": "http://evil.example"}, (), "evil.example"),
        ({"Origin": "null"}, (), "null"),
        ({"Origin": f"http://{HOST}@evil.example"}, (), "evil.example"),
        ({"Origin": "http://127.0.0.1:9999"}, (), "9999"),
        ({"Origin": f"ftp://{HOST}"}, (), "ftp"),
        ({"Sec_Fetch_Site": "cross-site"}, (), "cross-site"),
        ({"Sec_Fetch_Site": "same-site"}, (), "same-site"),
        ({"Sec_Fetch_Site": "none"}, ("Origin",), "none"),
        ({}, ("Origin", "Sec-Fetch-Site"), "Origin"),
        ({}, (security.TOKEN_HEADER,), "token"),
        ({"X_CSRFToken": "wrong"}, (), "token"),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, (), "evil.example"),
    ],
)
def test_forged_requests_are_refused_and_nothing_is_queued(
    store, client, path, headers, drop, word
):
    answer = client.post(path, COMMAND, drop=drop, **headers)
    assert answer.status_code == 403
    assert answer.json["status"] == "refused"
    assert word in answer.json["reason"]
    assert store.commands() == []


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_other_writing_methods_are_checked_too(client, method):
    answer = getattr(client.flask, method)(
        "/api/commands", base_url=f"http://{HOST}", headers={"Host": HOST}
    )
    assert answer.status_code == 403


def test_a_same_origin_fetch_without_origin_passes(store, client):
    assert client.post("/api/commands", COMMAND, drop=("Origin",)).status_code == 202
    assert len(store.commands()) == 1


def test_tokens_differ_between_processes(store):
    tokens = {Client(dashboard.create_app(store, store, settings())).token for _ in range(3)}
    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32


def test_a_page_learns_the_new_token_after_a_restart(client):
    client.flask.set_cookie(security.token_cookie(8050), "old", domain="127.0.0.1")
    answer = client.post("/api/commands", COMMAND, X_CSRFToken="old")
    assert answer.status_code == 403
    assert client.token in answer.headers["Set-Cookie"]
    assert "SameSite=Strict" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/knobs",
        "/healthz",
        "/plain",
        "/assets/js/theme.js",
        "/vendor/icons/sliders.svg",
        "/api/commands/99",
    ],
)
def test_headers_are_on_every_answer(client, path):
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    script = re.search(r"script-src ([^;]*)", policy)
    assert script
    assert "unsafe-inline" not in script[1]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


def test_the_page_names_no_other_host(client):
    html = client.get("/").text
    assert re.findall(r"(?:src|href)=\"(?:https?:)?//", html) == []


def test_a_huge_body_is_refused(client):
    answer = client.post("/api/commands", {"kind": "x" * 1_100_000})
    assert answer.status_code in (400, 413)


def test_bootstrap_comes_from_the_installed_package(client):
    sheet = client.get("/vendor/bootstrap.min.css")
    assert sheet.status_code == 200
    assert "Bootstrap" in sheet.text[:200]


def test_every_icon_that_the_pages_use_exists():
    source = "".join(p.read_text("utf-8") for p in dashboard.app.paths._PACKAGE.rglob("*.py"))
    for name in (
        "sliders2",
        "circle-half",
        "broadcast",
        "hourglass-split",
        "question-circle",
        *re.findall(r'icon_name="([a-z0-9-]+)"', source),
        *re.findall(r'ui\.icon\("([a-z0-9-]+)"', source),
        *re.findall(r' icon="([a-z0-9-]+)"', source),
    ):
        assert vendor.icon_svg(name) is not None, name


@pytest.mark.parametrize("name", ["nothing-like-it", "A B"])
def test_unknown_icons_are_not_found(client, name):
    assert client.get(f"/vendor/icons/{name}.svg").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/vendor/icons/..%2f..%2fbase.html", "/assets/../base.html", "/assets/..%2f..%2fsetup.py"],
)
def test_nothing_outside_the_served_folders_is_read(client, path):
    answer = client.get(path)
    assert "{%app_entry%}" not in answer.text
    assert "setuptools" not in answer.text


def test_no_mcp_and_no_debug(app: dash.Dash, client):
    assert client.post("/_mcp", {}).status_code in (404, 405)
    assert not app.server.debug


def test_hostile_host_is_quoted_shortly(client):
    answer = client.flask.get("/", headers={"Host": "e" * 5000})
    assert answer.status_code == 403
    assert len(answer.json["reason"]) < 400


def test_an_empty_store_is_guarded_as_well():
    store = FakeStore(empty=True)
    client = Client(dashboard.create_app(store, store, settings()))
    assert client.post("/api/commands", COMMAND, Origin="http://evil.example").status_code == 403
