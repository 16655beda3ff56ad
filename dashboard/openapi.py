"""The routes for scripts and monitors, described as OpenAPI 3.1: ``GET /api/openapi.json``.

Says what ``api.py`` answers; a test draws requests from it and holds the answers against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.domain.modes import CommandKind, CommandState, Mode, Phase
from backend.domain.steering import SteeringMode
from dashboard.operator_commands import (
    MAX_ID_LENGTH,
    MAX_KNOBS,
    MAX_REASON_LENGTH,
    MAX_SEARCH_PATH_LENGTH,
)
from dashboard.security import TOKEN_HEADER

VERSION = "1"
"""Of the routes; another one where an answer loses or changes what it had."""

Schema = dict[str, Any]

_MOST = 2**53 - 1


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with nothing else in it."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _text(longest: int, least: int = 0) -> Schema:
    return {"type": "string", "minLength": least, "maxLength": longest}


def _one_of(kinds: type[Mode] | type[SteeringMode] | type[Phase] | type[CommandState]) -> Schema:
    return {"type": "string", "enum": [kind.value for kind in kinds]}


_NOTHING = _object({})
_ID: Schema = {"type": "integer", "minimum": 1, "maximum": _MOST}
_TIME: Schema = {"type": "string", "format": "date-time"}
_NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
_KNOBS: Schema = {
    "type": "object",
    "description": "Names to values, in the settings' native units.",
    "minProperties": 1,
    "maxProperties": MAX_KNOBS,
    "additionalProperties": {"type": ["boolean", "number", "string"]},
}

PAYLOADS: Mapping[CommandKind, Schema] = {
    CommandKind.SET_KNOBS: _object({"knobs": _KNOBS}),
    CommandKind.ROLL_BACK: {
        "oneOf": [
            _NOTHING,
            _object({"batch_id": _text(MAX_ID_LENGTH, 1)}),
            _object({"version_id": _ID}),
        ]
    },
    CommandKind.DEPLOY_VERSION: _object({"version_id": _ID}),
    CommandKind.PAUSE: _NOTHING,
    CommandKind.RESUME: _NOTHING,
    CommandKind.FREEZE: _object({}, {"reason": _text(MAX_REASON_LENGTH)}),
    CommandKind.UNFREEZE: _NOTHING,
    CommandKind.SET_MODE: _object({"mode": _one_of(Mode)}),
    CommandKind.APPROVE: _object({"trial_id": _ID}),
    CommandKind.DECLINE: _object({"trial_id": _ID}),
    CommandKind.DRAFT_PLAN: _NOTHING,
    CommandKind.APPROVE_PLAN: _object({"plan_id": _ID}),
    CommandKind.DECLINE_PLAN: _object({"plan_id": _ID}),
    CommandKind.STEER: _object(
        {
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "search_path": _text(MAX_SEARCH_PATH_LENGTH),
            "mode": _one_of(SteeringMode),
        }
    ),
}
"""What each kind of command takes."""


def _command(kind: CommandKind) -> Schema:
    payload = PAYLOADS[kind]
    named = {"kind": {"const": kind.value}}
    if payload.get("required"):
        return _object({**named, "payload": payload})
    return _object(named, {"payload": payload})


_REFUSED = _object({"status": {"const": "refused"}, "reason": {"type": "string"}})
_FAILED = _object({"status": {"const": "error"}}, {"reason": {"type": "string"}})
_HEALTH = _object(
    {"status": {"type": "string", "enum": ["ok", "starting", "stale", "fault"]}},
    {
        "mode": {"type": ["string", "null"]},
        "phase": {"type": ["string", "null"]},
        "trials": {"type": "integer"},
        "index": _NUMBER_OR_NULL,
    },
)
_STATUS: Schema = {
    "type": ["object", "null"],
    "description": "The tuner's status; null before it has written one.",
    "properties": {
        "at": _TIME,
        "mode": _one_of(Mode),
        "phase": _one_of(Phase),
        "index": _NUMBER_OR_NULL,
        "trials": {"type": "integer"},
        "paused": {"type": "boolean"},
        "frozen": {"type": "boolean"},
        "steering": {"type": "object"},
    },
    "required": ["at", "mode", "phase", "index", "trials", "paused", "frozen", "steering"],
}
_COMMAND = _object(
    {
        "id": _ID,
        "kind": {"type": "string", "enum": [kind.value for kind in CommandKind]},
        "payload": {"type": "object"},
        "actor": {"type": "string"},
        "created_at": _TIME,
        "state": _one_of(CommandState),
        "finished_at": {"anyOf": [_TIME, {"type": "null"}]},
        "result": {"type": "string"},
    }
)


def _answer(meaning: str, schema: Schema, media: str = "application/json") -> Schema:
    return {"description": meaning, "content": {media: {"schema": schema}}}


_STRANGER = {
    "401": _answer("Nobody is logged in.", _REFUSED),
    "429": _answer("Too many wrong passwords.", _REFUSED),
}
_UNREADABLE = {"503": _answer("The store cannot be read.", _FAILED)}


def document() -> dict[str, Any]:
    """The description, as JSON takes it."""
    read = {**_STRANGER, **_UNREADABLE}
    return {
        "openapi": "3.1.0",
        "info": {"title": "PostgreSQL autopilot", "version": VERSION},
        "components": {
            "securitySchemes": {
                "user": {"type": "http", "scheme": "basic"},
                "token": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER},
            }
        },
        "paths": {
            "/healthz": {
                "get": {
                    "summary": "Whether the tuner lives; to strangers, whether the pages do",
                    "responses": {"200": _answer("Its state.", _HEALTH), **_UNREADABLE},
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Present numbers in Prometheus' text format",
                    "security": [{}, {"user": []}],
                    "responses": {
                        "200": _answer("The numbers.", {"type": "string"}, "text/plain"),
                        **read,
                    },
                }
            },
            "/api/status": {
                "get": {
                    "summary": "The tuner's whole status",
                    "security": [{}, {"user": []}],
                    "responses": {"200": _answer("The status.", _STATUS), **read},
                }
            },
            "/api/commands": {
                "post": {
                    "summary": "Queue a command for the tuner",
                    "security": [{"token": []}, {"token": [], "user": []}],
                    "requestBody": {
                        "required": True,
                        "content": {
                            "application/json": {
                                "schema": {"oneOf": [_command(kind) for kind in CommandKind]}
                            }
                        },
                    },
                    "responses": {
                        "202": _answer(
                            "Queued.", _object({"status": {"const": "queued"}, "id": _ID})
                        ),
                        "400": _answer("It is no command.", _REFUSED),
                        "403": _answer("Not from there, or not by a viewer.", _REFUSED),
                        "413": _answer("It is too long.", _REFUSED),
                        "422": _answer("It is refused, with the reason.", _REFUSED),
                        **read,
                    },
                }
            },
            "/api/commands/{command_id}": {
                "get": {
                    "summary": "What became of a command",
                    "security": [{}, {"user": []}],
                    "parameters": [
                        {"name": "command_id", "in": "path", "required": True, "schema": _ID}
                    ],
                    "responses": {
                        "200": _answer("The command.", _COMMAND),
                        "404": _answer("There is none with this number.", _REFUSED),
                        **read,
                    },
                }
            },
        },
    }
