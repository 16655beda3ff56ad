"""What scripts ask for: health, status, metrics, commands and their answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

import dashboard
from backend.domain.modes import CommandState
from tests.dashboard.conftest import Client, settings
from tests.dashboard.fake_store import FakeStore


def test_healthz_tells_the_state_of_the_run(store, client):
    store.beat()
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "ok",
        "mode": "auto",
        "phase": "optimised",
        "trials": store.status().trials,
        "index": store.status().index,
    }


def test_healthz_before_the_tuner_wrote_anything():
    store = FakeStore(empty=True)
    answer = Client(dashboard.create_app(store, store, settings())).get("/healthz")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "starting",
        "mode": None,
        "phase": None,
        "trials": 0,
        "index": None,
    }


def test_healthz_says_when_the_tuner_is_silent(store, client):
    store._status = replace(store.status(), at=datetime.now(timezone.utc) - timedelta(seconds=11))
    assert client.get("/healthz").json["status"] == "stale"


def test_healthz_says_when_the_tuner_lives_and_cannot_work(store, client):
    now = datetime.now(timezone.utc)
    store._status = replace(store.status(), at=now, fault="the server does not answer")
    assert client.get("/healthz").json["status"] == "fault"


def test_an_unreadable_store_is_503_with_the_reason(store):
    client = Client(dashboard.create_app(store, store, settings(refresh_interval_s=0.001)))
    store.failure = "disk I/O error"
    for path in ("/healthz", "/api/status", "/metrics", "/plain"):
        answer = client.get(path)
        assert answer.status_code == 503, path
        assert "disk I/O error" in answer.json["reason"]
    refused = client.post("/api/commands", {"kind": "pause", "payload": {}})
    assert refused.status_code == 503


def test_metrics_are_prometheus_text(store, client):
    store.beat()
    text = client.get("/metrics").text
    assert f"autopilot_latency_index {store.status().index}" in text
    assert 'autopilot_trials{verdict="accept"} 12.0' in text
    assert 'autopilot_mode{mode="auto"} 1.0' in text
    assert "autopilot_up 1.0" in text


def test_metrics_count_the_query_classes_that_steering_knows(store, client):
    text = client.get("/metrics").text
    assert "autopilot_steered_query_classes 2.0" in text
    assert 'autopilot_query_classes{state="verified"} 3.0' in text
    assert 'autopilot_query_classes{state="withdrawn"} 1.0' in text
    store._steering_status = None
    assert "autopilot_steered_query_classes 0.0" in client.get("/metrics").text


def test_metrics_say_when_the_tuner_is_silent(store, client):
    store._status = replace(store.status(), at=datetime.now(timezone.utc) - timedelta(seconds=11))
    assert "autopilot_up 0.0" in client.get("/metrics").text


def test_status_is_json(store, client):
    body = client.get("/api/status").json
    assert body["phase"] == "optimised"
    assert body["limits"]["cpu_limit_percent"] == 98.0
    datetime.fromisoformat(body["started_at"])
    assert body["steering"]["classes"] == {
        "known": 8,
        "explored": 5,
        "steered": 2,
        "withdrawn": 1,
    }
    assert body["steering"]["explorer"]["role"] == "autopilot_explorer"


def test_status_before_the_tuner_wrote_anything_is_null():
    store = FakeStore(empty=True)
    client = Client(dashboard.create_app(store, store, settings()))
    assert client.get("/api/status").json is None


def test_a_command_is_queued_and_can_be_followed(store, client):
    answer = client.post(
        "/api/commands", {"kind": "set_knobs", "payload": {"knobs": {"work_mem": 8192}}}
    )
    assert answer.status_code == 202
    number = answer.json["id"]
    assert client.get(f"/api/commands/{number}").json["state"] == "queued"
    store.work()
    done = client.get(f"/api/commands/{number}").json
    assert done["state"] == "done"
    assert done["actor"] == "human@api"
    assert {k.name: k.value for k in store.knob_statuses()}["work_mem"] == 8192


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        ({"kind": "set_knobs", "payload": {"knobs": {"fsync": False}}}, 422, "fsync"),
        ({"kind": "set_knobs", "payload": {"knobs": {"work_mem": 1}}}, 422, "64"),
        ({"kind": "shutdown", "payload": {}}, 422, "shutdown"),
        ({"kind": "pause", "payload": {}, "actor": "root"}, 400, "actor"),
        (["pause"], 400, "JSON object"),
    ],
)
def test_bad_commands_are_refused_with_the_reason(store, client, body, code, word):
    answer = client.post("/api/commands", body)
    assert answer.status_code == code
    assert word in answer.json["reason"]
    assert store.commands() == []


def test_an_unknown_command_is_404(client):
    assert client.get("/api/commands/12345").status_code == 404


def test_a_refusal_by_the_tuner_keeps_its_reason(store, client):
    number = client.post(
        "/api/commands", {"kind": "set_knobs", "payload": {"knobs": {"work_mem": 524288}}}
    ).json["id"]
    store.work()
    answer = client.get(f"/api/commands/{number}").json
    assert answer["state"] == CommandState.REFUSED.value
    assert "memory budget" in answer["result"]
