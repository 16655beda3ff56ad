"""Who gets in and stays in: strangers, logins, logouts, sessions, attempts."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dashboard
from backend.errors import ConfigError
from dashboard import security
from dashboard.auth import accounts as passwords
from dashboard.auth import gate as gates
from dashboard.auth.attempts import PER_ADDRESS
from dashboard.pages import PAGES
from tests.dashboard.clients import (
    HOST,
    OPERATOR,
    ORIGIN,
    PAUSE,
    PORT,
    VIEWER,
    Browser,
    basic,
    guarded,
    session_of,
    settings,
)
from tests.dashboard.fake_store import FakeStore

pytestmark = pytest.mark.usefixtures("cheap_hashes")


@pytest.fixture(scope="module")
def fuzzed() -> Any:
    """A dashboard for all examples together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "METHOD", "scrypt:1024:1:1")
        yield guarded(FakeStore(empty=True))


# -- strangers --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*(p.path for p in PAGES), "/plain", "/nothing", "/login/x"])
def test_a_stranger_is_sent_to_the_login_page(stranger, path):
    answer = stranger.get(path)
    assert answer.status_code == 303
    assert answer.headers["Location"].partition("?")[0] == "/login"


@pytest.mark.parametrize(
    "path",
    [
        "/_dash-layout",
        "/_dash-dependencies",
        "/_dash-component-suites/dash/deps/polyfill@7.js",
        "/_reload-hash",
        "/api/status",
        "/api/commands/1",
        "/api/",
        "/metrics",
        "/metrics/",
        "/assets",
        "/vendor",
    ],
)
def test_a_stranger_reads_nothing_of_the_store(store, stranger, path):
    reads = store.reads
    answer = stranger.get(path, Accept="*/*")
    assert answer.status_code == 401
    assert answer.json["status"] == "refused"
    assert "log in" in answer.json["reason"]
    assert store.reads == reads


@pytest.mark.parametrize(
    "path", ["/assets/../api/status", "/assets/..%2fapi/status", "/vendor//../metrics", "//metrics"]
)
def test_open_folders_lead_nowhere_else(stranger, path):
    assert stranger.get(path, Accept="*/*").status_code in (308, 401, 404)


@pytest.mark.parametrize("path", ["/_dash-update-component", "/api/commands", "/logout", "/x"])
def test_a_stranger_posts_nothing(store, stranger, path):
    stranger.get("/login")
    answer = stranger.post(path, PAUSE)
    assert answer.status_code == 401
    assert store.commands() == []


def test_style_sheets_and_icons_of_the_login_page_are_open(stranger):
    page = stranger.get("/login").text
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', page):
        assert stranger.get(path).status_code == 200, path
    assert "/assets/css/plain.css" in page


def test_health_tells_strangers_nothing(store, stranger, operator):
    store.beat()
    assert stranger.get("/healthz").json == {"status": "ok"}
    assert operator.get("/healthz").json["mode"] == "auto"
    store.failure = "disk I/O error at /secret/place"
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.json) == (503, {"status": "error"})
    assert "disk" in operator.get("/healthz").json["reason"]


# -- logging in and out -----------------------------------------------------------------------


def test_a_login_opens_the_pages_and_a_logout_closes_them(store, stranger):
    answer = stranger.log_in("alice", OPERATOR)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert stranger.get("/").status_code == 200
    assert stranger.get("/_dash-layout", Accept="*/*").status_code == 200
    kept = session_of(stranger)
    assert stranger.post("/logout").status_code == 303
    assert stranger.get("/").status_code == 303
    stranger.flask.set_cookie(gates.session_cookie(PORT), kept, domain="127.0.0.1")
    assert stranger.get("/").status_code == 303, "a cookie that somebody kept is worth nothing"
    kinds = [(e.kind, e.level, e.message) for e in store._events[-1:]]
    assert kinds == [("login", "info", "alice (operator) logged in from 10.1.1.1")]


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(stranger):
    answer = stranger.log_in("alice", OPERATOR)
    cookies = {c.partition("=")[0]: c for c in answer.headers.getlist("Set-Cookie")}
    session = cookies[gates.session_cookie(PORT)]
    for word in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert word in session
    assert "Secure" not in session
    assert "Domain" not in session
    assert OPERATOR not in session


def test_behind_tls_cookies_are_for_tls_alone(protected):
    client = protected.server.test_client()
    https = f"https://{HOST}"
    page = client.get("/login", base_url=https, headers={"Host": HOST})
    token = re.search(r'name="token" value="([^"]+)"', page.text)[1]
    answer = client.post(
        "/login",
        data={"name": "alice", "password": OPERATOR, "token": token},
        base_url=https,
        headers={"Host": HOST, "Origin": https},
    )
    assert answer.status_code == 303
    plain = client.post(
        "/login", base_url=https, headers={"Host": HOST, "Origin": f"http://{HOST}"}
    )
    assert plain.status_code == 403  # a page that was forged on the way, without TLS
    cookies = answer.headers.getlist("Set-Cookie")
    assert len(cookies) == 2
    assert all("Secure" in cookie for cookie in cookies)


def test_a_login_makes_a_new_session_and_ends_the_one_before(operator):
    first = session_of(operator)
    token = operator.cookie(security.token_cookie(PORT))
    form = {"name": "alice", "password": OPERATOR, "token": token}
    assert operator.post("/login", form=form).status_code == 303
    second = session_of(operator)
    assert second != first
    operator.flask.set_cookie(gates.session_cookie(PORT), first, domain="127.0.0.1")
    assert operator.get("/").status_code == 303


@pytest.mark.parametrize("kept", ["", "x", "e30.x.y", "x" * 4000])
def test_a_made_up_session_is_none(stranger, kept):
    stranger.flask.set_cookie(gates.session_cookie(PORT), kept, domain="127.0.0.1")
    assert stranger.get("/").status_code == 303


def test_a_restart_ends_sessions(store, operator):
    again = Browser(guarded(store))
    again.flask.set_cookie(gates.session_cookie(PORT), session_of(operator), domain="127.0.0.1")
    assert again.get("/").status_code == 303


def test_an_idle_session_ends_though_its_page_refreshes(store):
    app = guarded(store)
    clock = [1000.0]
    browser = Browser(app)
    app.server.view_functions["login"].__self__.sessions._clock = lambda: clock[0]
    assert browser.log_in("wall", VIEWER).status_code == 303
    tick = {"changedPropIds": ["overview-tick.n_intervals", "shell-tick.n_intervals"]}
    for _ in range(35):
        clock[0] += 100
        assert browser.post("/_dash-update-component", tick).status_code != 401
    clock[0] += 200
    assert browser.post("/_dash-update-component", tick).status_code == 401
    assert browser.log_in("wall", VIEWER).status_code == 303
    click = {"changedPropIds": ["url.pathname"]}
    for _ in range(11):
        clock[0] += 3500
        assert browser.post("/_dash-update-component", click).status_code != 401
    clock[0] += 5000
    assert browser.post("/_dash-update-component", click).status_code == 401


def test_an_idle_session_ends_though_the_plain_page_loads_itself_anew(store):
    app = guarded(store)
    clock = [1000.0]
    browser = Browser(app)
    app.server.view_functions["login"].__self__.sessions._clock = lambda: clock[0]
    browser.log_in("wall", VIEWER)
    address = re.search(
        r'http-equiv="refresh" content="10; url=([^"]+)"', browser.get("/plain").text
    )
    assert address
    for _ in range(36):
        assert browser.get(address[1]).status_code == 200
        clock[0] += 100
    clock[0] += 100
    assert browser.get(address[1]).status_code == 303


@pytest.mark.parametrize(
    ("target", "leads"),
    [
        ("/knobs", "/knobs"),
        ("/plain", "/plain"),
        ("//evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/metrics", "/"),
    ],
)
def test_a_login_leads_to_pages_of_ours_alone(stranger, target, leads):
    answer = stranger.log_in("alice", OPERATOR, f"/login?next={target}")
    assert answer.headers["Location"] == leads
    assert "evil" not in stranger.get(f"/login?next={target}").text


def test_wrong_logins_say_the_same_for_every_reason(store, stranger):
    wrong = stranger.log_in("alice", "a wrong password")
    unknown = stranger.log_in("<script>alert(1)</script>", OPERATOR)
    for answer in (wrong, unknown):
        assert answer.status_code == 401
        assert gates.WRONG in answer.text
        assert "<script>alert" not in answer.text
        assert OPERATOR not in answer.text
    assert session_of(stranger) is None
    messages = [(e.kind, e.message) for e in store._events[-2:]]
    assert messages == [
        ("login_failed", "login failed: alice from 10.1.1.1"),
        ("login_failed", "login failed: an unknown name from 10.1.1.1"),
    ]


def test_attempts_are_limited_with_the_time_to_wait(store, protected, stranger):
    for _ in range(PER_ADDRESS):
        assert stranger.log_in("alice", "a wrong password").status_code == 401
    answer = stranger.log_in("alice", OPERATOR)
    assert answer.status_code == 429
    assert 25 <= int(answer.headers["Retry-After"]) <= 30
    assert "Too many attempts" in answer.text
    assert store._events[-1].kind == "login_limited"
    assert stranger.get("/api/status", **basic("alice", OPERATOR)).status_code == 429
    elsewhere = Browser(protected, "10.2.2.2")
    assert elsewhere.log_in("alice", OPERATOR).status_code == 303


def test_who_shares_an_address_locks_nobody_out_who_was_in(protected, operator, stranger):
    assert operator.address == stranger.address
    operator.post("/logout")
    while stranger.log_in("alice", "a wrong password").status_code == 401:
        pass
    assert stranger.log_in("alice", OPERATOR).status_code == 429
    assert operator.log_in("alice", OPERATOR).status_code == 303


def test_a_viewer_gains_no_attempts_at_an_operator(protected, stranger):
    statuses = []
    for _ in range(3):
        stranger.log_in("wall", VIEWER)
        stranger.post("/logout")
        statuses += [stranger.log_in("alice", "a wrong password").status_code for _ in range(5)]
    assert statuses == [401] * PER_ADDRESS + [429] * (len(statuses) - PER_ADDRESS)


@pytest.mark.parametrize("method", ["get", "head", "options"])
def test_what_another_site_can_send_uses_up_no_attempt(stranger, method):
    ask = getattr(stranger.flask, method)
    for _ in range(PER_ADDRESS + 1):
        query = f"/login?{urlencode({'name': 'alice', 'password': 'a wrong password'})}"
        answer = ask(query, base_url=ORIGIN, environ_base=stranger.address)
        assert answer.status_code == 200
    assert stranger.log_in("alice", OPERATOR).status_code == 303


@pytest.mark.parametrize(
    ("headers", "form", "word"),
    [
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, {}, "another site"),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, {}, "evil.example"),
        ({"Origin": "null"}, {}, "null"),
        ({}, {"token": "made up"}, "token"),
        ({}, {"token": ""}, "token"),
        ({"Host": "evil.example"}, {}, "evil.example"),
    ],
)
def test_forged_logins_and_logouts_are_refused(stranger, operator, headers, form, word):
    token = re.search(r'name="token" value="([^"]+)"', stranger.get("/login").text)[1]
    sent = {"name": "alice", "password": OPERATOR, "token": token, **form}
    answer = stranger.post("/login", form=sent, **headers)
    assert answer.status_code == 403
    assert word in answer.json["reason"]
    assert session_of(stranger) is None
    token = operator.cookie(security.token_cookie(PORT))
    answer = operator.post("/logout", form={"token": token, **form}, **headers)
    assert answer.status_code == 403
    assert operator.get("/").status_code == 200


def test_a_token_is_worth_nothing_in_another_session(store, protected, operator, stranger):
    other = Browser(protected)
    other.log_in("alice", OPERATOR)
    stranger.get("/login")
    for browser in (stranger, other):
        token = browser.cookie(security.token_cookie(PORT))
        answer = operator.post("/api/commands", PAUSE, **{security.TOKEN_HEADER: token})
        assert answer.status_code == 403
        assert "token" in answer.json["reason"]
    assert store.commands() == []


TEXTS = st.text(max_size=300)


@hypothesis.settings(max_examples=60, deadline=None)
@given(name=TEXTS, password=TEXTS, target=TEXTS, authorization=TEXTS, cookie=TEXTS)
def test_whatever_is_sent_nobody_gets_in_and_nothing_breaks(
    fuzzed, name, password, target, authorization, cookie
):
    browser = Browser(fuzzed)
    answer = browser.log_in(name, password, f"/login?{urlencode({'next': target})}")
    assert answer.status_code in (401, 429)
    header = authorization.encode("utf-8", "replace").decode("latin-1")
    header = re.sub(r"[\r\n]", " ", header)
    for sent in (header, f"Basic {header}"):
        assert browser.get("/metrics", Authorization=sent).status_code in (401, 429)
    kept = re.sub(r"[^!-:<-\[\]-~]", "", cookie)
    browser.flask.set_cookie(gates.session_cookie(PORT), kept, domain="127.0.0.1")
    assert browser.get("/").status_code == 303


def test_whoever_is_in_is_not_asked_again(operator):
    assert operator.get("/login?next=/safety").headers["Location"] == "/safety"


def test_without_users_there_is_no_login(client):
    assert client.get("/login").headers["Location"] == "/"
    assert client.get("/").status_code == 200


def test_the_factory_refuses_to_be_reached_without_users(store):
    with pytest.raises(ConfigError, match=r"dashboard\.host = '0\.0\.0\.0'"):
        dashboard.create_app(store, store, settings(host="0.0.0.0"))


def test_the_secrets_are_nowhere(store, stranger, operator, caplog):
    caplog.set_level("DEBUG")
    stranger.log_in("alice", "a wrong password")
    stranger.log_in(OPERATOR, OPERATOR)
    written = " ".join(f"{e.message} {e.detail}" for e in store._events) + caplog.text
    shown = operator.get("/_dash-layout", Accept="*/*").text + operator.get("/plain").text
    for secret in (OPERATOR, VIEWER, "a wrong password", "scrypt:"):
        assert secret not in written
        assert secret not in shown


def test_events_of_logins_carry_the_time_and_the_address(store, stranger):
    stranger.log_in("alice", "a wrong password")
    event = store._events[-1]
    assert datetime.now(timezone.utc) - event.at < timedelta(minutes=1)
    assert event.detail == {"address": "10.1.1.1"}
    assert event.level == "warning"
