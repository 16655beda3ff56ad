"""Requests drawn from the routes' own description, by schemathesis: answers are as described."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import dashboard
from backend.domain.modes import CommandKind
from dashboard import openapi
from dashboard.security import TOKEN_HEADER
from tests.dashboard.clients import HOST, Browser, Client
from tests.dashboard.clients import settings as dashboard_settings
from tests.dashboard.fake_store import FakeStore

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
drawn = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))

STORE = FakeStore()
APP = dashboard.create_app(STORE, STORE, dashboard_settings(refresh_interval_s=1e-6))
OURS = {"Host": HOST, "Origin": f"http://{HOST}", TOKEN_HEADER: Client(APP).token}
schema = schemathesis.openapi.from_wsgi("/api/openapi.json", APP.server, headers=OURS)


@schema.parametrize()
@drawn
def test_every_answer_is_as_described(case: Any) -> None:
    before = len(STORE.commands(limit=10_000))
    answer = case.call(headers=OURS)
    case.validate_response(answer, checks=CHECKS)
    queued = case.method == "POST" and answer.status_code == 202
    assert len(STORE.commands(limit=10_000)) == before + queued


def test_every_route_for_scripts_and_every_kind_of_command_is_described() -> None:
    described = {
        path.replace("{", "<int:").replace("}", ">") for path in schema.raw_schema["paths"]
    }
    there = {
        rule.rule
        for rule in APP.server.url_map.iter_rules()
        if rule.endpoint.startswith("api.") and rule.endpoint not in ("api.unknown",)
    }
    assert described == there - {"/api/openapi.json"}
    assert set(openapi.PAYLOADS) == set(CommandKind)


@pytest.mark.parametrize("path", ["/api/", "/api/no/such", "/api/commands/abc"])
def test_what_is_no_route_is_no_page(path: str) -> None:
    answer = Client(APP).get(path)
    assert answer.status_code == 404
    assert answer.json["status"] == "refused"


def test_strangers_do_not_read_it(stranger: Browser) -> None:
    assert stranger.get("/api/openapi.json").status_code == 401
