"""What each role may do, by pages and by scripts: over the whole application."""

from __future__ import annotations

import re

import pytest

from backend.domain.modes import CommandKind
from dashboard import security
from dashboard.pages import PAGES
from tests.dashboard.clients import (
    HOST,
    OPERATOR,
    ORIGIN,
    PAUSE,
    PORT,
    VIEWER,
    basic,
    press,
    session_of,
    tracked,
)

pytestmark = pytest.mark.usefixtures("cheap_hashes")


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


@pytest.mark.parametrize("kind", [CommandKind.PAUSE, CommandKind.FREEZE, CommandKind.ROLL_BACK])
def test_an_operator_commands_and_a_viewer_is_refused_where_commands_are_queued(
    store, operator, viewer, kind
):
    (refused,) = tracked(press(viewer, kind.value, {}))
    assert "wall is a viewer" in refused["error"]
    assert store.commands() == []
    (queued,) = tracked(press(operator, kind.value, {}))
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
