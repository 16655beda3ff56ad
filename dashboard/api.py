"""The routes for scripts and monitors: health, status, commands, Prometheus metrics."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from flask import Blueprint, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from backend.domain.records import CommandRecord, StatusRecord
from backend.domain.steering import SteeredClassRecord, SteeringStatusRecord
from backend.errors import AutopilotError, StoreError
from dashboard import openapi
from dashboard.auth.identity import RoleError, current, require_operator
from dashboard.operator_commands import make_command
from dashboard.services import Services
from dashboard.steering_numbers import class_counts


def plain(value: Any) -> Any:
    """A record as JSON takes it: enums by value, times as ISO 8601 in UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).isoformat()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def health(status: StatusRecord | None, services: Services) -> dict[str, Any]:
    """What ``/healthz`` says: ``starting`` before the tuner wrote, ``stale`` when it is silent.

    ``fault``: it lives and cannot do its work, as where the server does not answer.
    Whoever has not logged in learns nothing but that the dashboard answers.
    """
    if current() is None:
        return {"status": "ok"}
    if status is None:
        return {"status": "starting", "mode": None, "phase": None, "trials": 0, "index": None}
    living = "fault" if status.fault else "ok"
    return {
        "status": "stale" if services.tuner_is_silent(status) else living,
        "mode": status.mode.value,
        "phase": status.phase.value,
        "trials": status.trials,
        "index": status.index,
    }


def prometheus_text(
    status: StatusRecord | None,
    mean_ms: float | None,
    silent: bool,
    classes: Sequence[SteeredClassRecord] = (),
    steering: SteeringStatusRecord | None = None,
) -> bytes:
    """The present numbers in Prometheus' text format; ``silent``: the heartbeat is too old."""
    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, value: float | None) -> None:
        if value is not None:
            Gauge(f"autopilot_{name}", meaning, registry=registry).set(value)

    gauge("up", "1 while the tuner's heartbeat is fresh", float(status is not None and not silent))
    if status is not None:
        gauge(
            "latency_index",
            "present latency index against the start, lower is better",
            status.index,
        )
        gauge("mean_latency_ms", "mean statement time of the newest window in ms", mean_ms)
        gauge(
            "status_timestamp_seconds",
            "when the tuner last wrote its status",
            status.at.timestamp(),
        )
        gauge("paused", "1 when the tuner is paused", float(status.paused))
        gauge("frozen", "1 when the freeze switch is on", float(status.frozen))
        trials = Gauge(
            "autopilot_trials", "finished trials by verdict", ["verdict"], registry=registry
        )
        for verdict, count in status.trials_by_verdict.items():
            trials.labels(verdict=verdict).set(count)
        mode = Gauge("autopilot_mode", "1 for the present mode", ["mode"], registry=registry)
        mode.labels(mode=status.mode.value).set(1)
        steered = class_counts(classes, steering).steered
        gauge("steered_query_classes", "query classes that are steered now", float(steered))
        known = Gauge(
            "autopilot_query_classes",
            "query classes that steering knows, by state",
            ["state"],
            registry=registry,
        )
        for state, count in Counter(record.state.value for record in classes).items():
            known.labels(state=state).set(count)
    return generate_latest(registry)


def _refusal(reason: str, code: int) -> tuple[Response, int]:
    return jsonify(status="refused", reason=reason), code


def blueprint(services: Services) -> Blueprint:
    """Routes ``/healthz``, ``/metrics``, ``/api/status`` and ``/api/commands``; see openapi."""
    routes = Blueprint("api", __name__)

    @routes.errorhandler(StoreError)
    def store_failed(error: StoreError) -> tuple[Response, int]:
        if current() is None:
            return jsonify(status="error"), 503
        return jsonify(status="error", reason=str(error)), 503

    @routes.get("/healthz")
    def healthz() -> Response:
        return jsonify(health(services.reader.status(), services))

    @routes.get("/metrics")
    def metrics() -> Response:
        windows, status = services.reader.windows(limit=1), services.reader.status()
        silent = status is not None and services.tuner_is_silent(status)
        text = prometheus_text(
            status,
            windows[-1].mean_ms if windows else None,
            silent,
            services.reader.steered_classes(),
            services.reader.steering_status(),
        )
        return Response(text, content_type=CONTENT_TYPE_LATEST)

    @routes.get("/api/openapi.json")
    def description() -> Response:
        return jsonify(openapi.document())

    @routes.get("/api/status")
    def status() -> Response:
        found = services.reader.status()
        if found is None:
            return jsonify(None)
        now = services.reader.steering_status()
        counts = class_counts(services.reader.steered_classes(), now)
        steering = {"classes": plain(counts), "explorer": plain(now)}
        return jsonify({**plain(found), "steering": steering})

    @routes.post("/api/commands")
    def submit() -> tuple[Response, int]:
        body = request.get_json(silent=True) if request.is_json else None
        if not isinstance(body, dict):
            return _refusal("send a JSON object with Content-Type application/json", 400)
        unknown = sorted(set(body) - {"kind", "payload"})
        if unknown:
            return _refusal(f"unknown keys {', '.join(unknown)[:100]}: kind, payload expected", 400)
        try:
            command = make_command(
                body.get("kind"),
                body.get("payload", {}),
                services.reader.knob_statuses(),
                require_operator().at("api"),
            )
        except StoreError:
            raise
        except RoleError as error:
            return _refusal(str(error), 403)
        except AutopilotError as error:
            return _refusal(str(error), 422)
        return jsonify(status="queued", id=services.submit(command)), 202

    @routes.get("/api/commands/<int:command_id>")
    def command(command_id: int) -> tuple[Response, int]:
        record: CommandRecord | None = services.command(command_id)
        if record is None:
            return _refusal(f"there is no command {command_id}", 404)
        return jsonify(plain(record)), 200

    @routes.get("/api/", defaults={"rest": ""})
    @routes.get("/api/<path:rest>")
    def unknown(rest: str) -> tuple[Response, int]:
        # Without this the pages' own route takes it, and a script gets a page for an answer.
        return _refusal(f"there is no route /api/{rest[:100]}: see /api/openapi.json", 404)

    return routes
