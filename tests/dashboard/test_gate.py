"""Who gets in, by which way, and what each role may do: over the whole application."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dashboard
from backend.config_dashboard import Role, UserSettings
from backend.domain.modes import CommandKind
from backend.errors import ConfigError
from dashboard import security
from dashboard.auth import accounts as passwords
from dashboard.auth import gate as gates
from dashboard.auth.attempts import PER_ADDRESS
from dashboard.pages import PAGES
from tests.dashboard.conftest import HOST, PORT, settings
from tests.dashboard.fake_store import FakeStore

OPERATOR, VIEWER = "operator's password", "viewer's password"
ORIGIN = f"http://{HOST}"
PAUSE = {"kind": "pause", "payload": {}}
CHROMIUM_ACCEPTS = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;"
    "q=0.8,application/signed-exchange;v=b3;q=0.7"
)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    monkeypatch.setattr(passwords, "METHOD", "scrypt:1024:1:1")


def guarded(store: FakeStore, **changes: Any) -> Any:
    users = {
        "alice": UserSettings(role=Role.OPERATOR, password=OPERATOR),
        "wall": UserSettings(role=Role.VIEWER, password=VIEWER),
    }
    chosen = settings(refresh_interval_s=1e-6, users=users, **changes)
    return dashboard.create_app(store, store, chosen, record=store._events.append)


@pytest.fixture
def protected(store: FakeStore) -> Any:
    return guarded(store)


@pytest.fixture(scope="module")
def fuzzed() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "METHOD", "scrypt:1024:1:1")
        yield guarded(FakeStore(empty=True))


class Browser:
    """A browser's cookies and what it sends by itself."""

    def __init__(self, app: Any, address: str = "10.1.1.1") -> None:
        self.flask = app.server.test_client()
        self.address = {"REMOTE_ADDR": address}

    def cookie(self, name: str) -> str | None:
        found = self.flask.get_cookie(name, domain="127.0.0.1")
        return None if found is None else found.value

    def get(self, path: str, **headers: str) -> Any:
        sent = {"Host": HOST, "Accept": CHROMIUM_ACCEPTS, **headers}
        return self.flask.get(
            path, headers=sent, base_url=ORIGIN, environ_base=self.address, buffered=True
        )

    def post(self, path: str, body: Any = None, form: Any = None, **headers: str) -> Any:
        sent = {"Host": HOST, "Origin": ORIGIN, "Sec-Fetch-Site": "same-origin", **headers}
        if form is None:
            sent.setdefault(security.TOKEN_HEADER, self.cookie(security.token_cookie(PORT)) or "")
        return self.flask.post(
            path, json=body, data=form, headers=sent, base_url=ORIGIN, environ_base=self.address
        )

    def log_in(self, name: str, password: str, path: str = "/login", **headers: str) -> Any:
        page = self.get("/login").text
        token = re.search(r'name="token" value="([^"]+)"', page)
        form = {"name": name, "password": password, "token": token[1] if token else ""}
        return self.post(path, form=form, **headers)


@pytest.fixture
def stranger(protected: Any) -> Browser:
    return Browser(protected)


@pytest.fixture
def operator(protected: Any) -> Browser:
    browser = Browser(protected)
    assert browser.log_in("alice", OPERATOR).status_code == 303
    return browser


@pytest.fixture
def viewer(protected: Any) -> Browser:
    browser = Browser(protected)
    assert browser.log_in("wall", VIEWER).status_code == 303
    return browser


def basic(name: str, password: str) -> dict[str, str]:
    given = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {given}", "Accept": "*/*"}


def session_of(browser: Browser) -> str | None:
    return browser.cookie(gates.session_cookie(PORT))


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


# -- scripts and monitors ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/api/status"])
def test_scripts_log_in_by_basic_authentication(stranger, path):
    assert stranger.get(path, **basic("wall", VIEWER)).status_code == 200
    wrong = stranger.get(path, **basic("wall", "a wrong password"))
    assert wrong.status_code == 401
    assert wrong.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert session_of(stranger) is None


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Basic Og==", "Bearer x", "Digest a=b", "x" * 5000]
)
def test_odd_authorization_is_refused(stranger, header):
    assert stranger.get("/metrics", Authorization=header, Accept="*/*").status_code == 401


def test_a_browser_is_not_made_to_ask_by_its_own_window(stranger):
    answer = stranger.get("/api/status", **{"Accept": "*/*", "Sec-Fetch-Mode": "navigate"})
    assert answer.status_code == 401
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/plain", "/_dash-layout", "/_dash-update-component"])
def test_basic_authentication_opens_no_page(stranger, path):
    assert stranger.get(path, **basic("alice", OPERATOR)).status_code in (303, 401)


def test_a_script_commands_as_its_user_with_origin_and_token(store, stranger):
    stranger.get("/healthz")
    answer = stranger.post("/api/commands", PAUSE, **basic("alice", OPERATOR))
    assert answer.status_code == 202
    assert store.commands()[-1].actor == "alice@api"
    refused = stranger.post(
        "/api/commands", PAUSE, **basic("alice", OPERATOR), Origin="http://evil.example"
    )
    assert refused.status_code == 403
    refused = stranger.post(
        "/api/commands", PAUSE, **basic("alice", OPERATOR), **{security.TOKEN_HEADER: "x"}
    )
    assert refused.status_code == 403
    assert len(store.commands()) == 1


# -- roles ------------------------------------------------------------------------------------


def callback_of(app: Any, browser: Browser, part: str) -> dict[str, Any]:
    dependencies = browser.get("/_dash-dependencies", Accept="*/*").json
    return next(d for d in dependencies if part in json.dumps(d["inputs"]))


def press(app: Any, browser: Browser, kind: str, payload: dict[str, Any]) -> Any:
    """Send what Dash sends when a button that queues a command is pressed."""
    button = {
        "type": "command",
        "kind": kind,
        "place": "forged",
        "payload": json.dumps(payload),
        "confirm": "",
    }
    callback = callback_of(app, browser, '\\"command\\"')
    key = json.dumps(button, sort_keys=True, separators=(",", ":"))
    body = {
        "output": callback["output"],
        "outputs": [
            {"id": "tracked", "property": callback["output"].split("tracked.")[1].split("...")[0]},
            {"id": "to-confirm", "property": "data"},
            {"id": "confirm-text", "property": "children"},
            {"id": "confirm", "property": callback["output"].split("confirm.")[-1].rstrip(".")},
        ],
        "inputs": [[{"id": button, "property": "n_clicks", "value": 1}]],
        "changedPropIds": [f"{key}.n_clicks"],
        "state": [{"id": "tracked", "property": "data", "value": []}],
    }
    return browser.post("/_dash-update-component", body)


def tracked(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    response = answer.json["response"]
    return next(v["data"] for k, v in response.items() if k.startswith("tracked"))


@pytest.mark.parametrize("kind", [CommandKind.PAUSE, CommandKind.FREEZE, CommandKind.ROLL_BACK])
def test_an_operator_commands_and_a_viewer_is_refused_where_commands_are_queued(
    store, protected, operator, viewer, kind
):
    (refused,) = tracked(press(protected, viewer, kind.value, {}))
    assert "wall is a viewer" in refused["error"]
    assert store.commands() == []
    (queued,) = tracked(press(protected, operator, kind.value, {}))
    assert store.command(queued["id"]).actor == "alice@dashboard"
    assert len(store.commands()) == 1


@pytest.mark.parametrize("kind", list(CommandKind))
def test_a_viewer_queues_nothing_by_the_api(store, viewer, kind):
    answer = viewer.post("/api/commands", {"kind": kind.value, "payload": {}})
    assert answer.status_code == 403
    assert "viewer may look" in answer.json["reason"]
    assert store.commands() == []


def test_a_viewer_scrapes_and_queues_nothing_by_basic_authentication(store, stranger):
    stranger.get("/healthz")
    assert stranger.get("/metrics", **basic("wall", VIEWER)).status_code == 200
    answer = stranger.post("/api/commands", PAUSE, **basic("wall", VIEWER))
    assert answer.status_code == 403
    assert store.commands() == []


@pytest.mark.parametrize("path", [*(p.path for p in PAGES), "/plain", "/api/status", "/metrics"])
def test_a_viewer_reads_everything(viewer, path):
    assert viewer.get(path).status_code == 200


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_other_writing_methods_are_refused_to_a_viewer(viewer, method):
    answer = getattr(viewer.flask, method)(
        "/api/commands",
        base_url=ORIGIN,
        headers={
            "Host": HOST,
            "Origin": ORIGIN,
            security.TOKEN_HEADER: viewer.cookie(security.token_cookie(PORT)),
        },
    )
    assert answer.status_code == 403
    assert "viewer" in answer.json["reason"]


def test_who_is_logged_in_is_shown_and_can_log_out(viewer, operator, client):
    assert "wall" in viewer.get("/_dash-layout", Accept="*/*").text
    assert "logout" in viewer.get("/_dash-layout", Accept="*/*").text
    plain = viewer.get("/plain").text
    assert "wall (viewer)" in plain
    token = re.search(r'name="token" value="([^"]+)"', plain)[1]
    assert viewer.post("/logout", form={"token": token}).status_code == 303
    assert viewer.get("/plain").status_code == 303
    assert operator.get("/plain").status_code == 200
    assert "/logout" not in client.get("/plain").text


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
