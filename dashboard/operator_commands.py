"""Checking and queueing what an operator asks for: the one way for pages and the JSON API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from backend.domain.knobs import Knob, KnobValue
from backend.domain.modes import CommandKind, Mode
from backend.domain.records import CommandRecord, KnobStatusRecord
from backend.domain.steering import SteeringMode
from backend.errors import AutopilotError, KnobBoundsError, NeverKnobError, UnknownKnobError

MAX_KNOBS = 100
MAX_ID_LENGTH = 100
MAX_SEARCH_PATH_LENGTH = 1000
MAX_REASON_LENGTH = 300
MOST_TRACKED = 5
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


class CommandError(AutopilotError):
    """The request is not a command that we know, or its payload is malformed."""


def knob_of(status: KnobStatusRecord) -> Knob:
    """The knob that a status describes, for its checks."""
    return Knob(
        name=status.name,
        kind=status.kind,  # type: ignore[arg-type]
        low=status.low,
        high=status.high,
        unit=status.unit,
        choices=status.choices,
        special=status.special,
    )


def check_knobs(
    values: Mapping[str, object], statuses: Sequence[KnobStatusRecord]
) -> dict[str, KnobValue]:
    """Check names and values against the knobs as they stand; return them typed.

    The tuner checks again (never-list, joint memory budget, freeze) before it writes.

    Raises:
        UnknownKnobError, NeverKnobError, KnobBoundsError: the first offence.
    """
    known = {status.name: status for status in statuses}
    checked: dict[str, KnobValue] = {}
    for name, value in values.items():
        status = known.get(name)
        if status is None:
            raise UnknownKnobError(
                f"{name[:80]!r} is not in the knob catalogue, so it is never written",
                remedy="settings of durability, authentication, time-outs and limits of "
                "connections are left out on purpose",
            )
        if not status.writable:
            raise NeverKnobError(
                f"{name} cannot be changed from here: {status.note or 'it is not writable'}"
            )
        if isinstance(value, str) and len(value) > MAX_ID_LENGTH:
            raise KnobBoundsError(f"{name}: the value is {len(value)} characters long")
        checked[name] = knob_of(status).validate(value)
    return checked


def _only(payload: Mapping[str, Any], *allowed: str) -> None:
    unknown = sorted(set(map(str, payload)) - set(allowed))
    if unknown:
        expected = f"only {', '.join(allowed)}" if allowed else "an empty payload"
        raise CommandError(f"unknown payload keys {', '.join(unknown)[:100]}: expected {expected}")


def _number(payload: Mapping[str, Any], key: str) -> int:
    value = payload.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53:
        raise CommandError(f"{key} = {value!r:.60} is not a positive whole number")
    return value


def _roll_back(payload: Mapping[str, Any]) -> dict[str, Any]:
    _only(payload, "batch_id", "version_id")
    if len(payload) > 1:
        raise CommandError("roll_back takes batch_id or version_id, not both")
    if "version_id" in payload:
        return {"version_id": _number(payload, "version_id")}
    if "batch_id" in payload:
        batch = payload["batch_id"]
        if not isinstance(batch, str) or not 0 < len(batch) <= MAX_ID_LENGTH:
            raise CommandError("batch_id is not a text of 1 to 100 characters")
        return {"batch_id": batch}
    return {}


def _mode(payload: Mapping[str, Any], modes: type[Mode] | type[SteeringMode]) -> str:
    value = payload.get("mode")
    try:
        return modes(value).value
    except ValueError:
        raise CommandError(
            f"mode = {value!r:.60} is none of {', '.join(m.value for m in modes)}"
        ) from None


def takes_reason(kind: object) -> bool:
    """Whether an operator may say why, for the others."""
    return kind == CommandKind.FREEZE.value


def _freeze(payload: Mapping[str, Any]) -> dict[str, Any]:
    _only(payload, "reason")
    reason = payload.get("reason", "")
    if not isinstance(reason, str) or len(reason) > MAX_REASON_LENGTH:
        raise CommandError(f"reason is not a text of at most {MAX_REASON_LENGTH} characters")
    return {"reason": reason} if reason else {}


def _steer(payload: Mapping[str, Any]) -> dict[str, Any]:
    _only(payload, "fingerprint", "search_path", "mode")
    fingerprint, search_path = payload.get("fingerprint"), payload.get("search_path")
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        raise CommandError(f"fingerprint = {fingerprint!r:.60} is not 16 hexadecimal digits")
    if not isinstance(search_path, str) or len(search_path) > MAX_SEARCH_PATH_LENGTH:
        raise CommandError(
            f"search_path is not a text of at most {MAX_SEARCH_PATH_LENGTH} characters"
        )
    return {
        "fingerprint": fingerprint,
        "search_path": search_path,
        "mode": _mode(payload, SteeringMode),
    }


def check_payload(
    kind: CommandKind, payload: Mapping[str, Any], statuses: Sequence[KnobStatusRecord]
) -> dict[str, Any]:
    """The payload with nothing unknown in it and every value checked.

    Raises:
        AutopilotError: it is malformed, or a knob or value is refused.
    """
    if kind is CommandKind.SET_KNOBS:
        _only(payload, "knobs")
        knobs = payload.get("knobs")
        if not isinstance(knobs, Mapping) or not 0 < len(knobs) <= MAX_KNOBS:
            raise CommandError(f"knobs must map 1 to {MAX_KNOBS} names to values")
        return {"knobs": check_knobs(knobs, statuses)}
    if kind is CommandKind.ROLL_BACK:
        return _roll_back(payload)
    if kind is CommandKind.DEPLOY_VERSION:
        _only(payload, "version_id")
        return {"version_id": _number(payload, "version_id")}
    if kind is CommandKind.SET_MODE:
        _only(payload, "mode")
        return {"mode": _mode(payload, Mode)}
    if kind in (CommandKind.APPROVE, CommandKind.DECLINE):
        _only(payload, "trial_id")
        return {"trial_id": _number(payload, "trial_id")}
    if kind in (CommandKind.APPROVE_PLAN, CommandKind.DECLINE_PLAN):
        _only(payload, "plan_id")
        return {"plan_id": _number(payload, "plan_id")}
    if kind is CommandKind.FREEZE:
        return _freeze(payload)
    if kind is CommandKind.STEER:
        return _steer(payload)
    _only(payload)
    return {}


def make_command(
    kind: object, payload: object, statuses: Sequence[KnobStatusRecord], actor: str
) -> CommandRecord:
    """A checked command, ready to be queued, from what a browser or script sent.

    ``actor`` says who asked, and where.

    Raises:
        AutopilotError: it is malformed, or a knob or value is refused; with the reason.
    """
    try:
        known = CommandKind(kind)
    except ValueError:
        raise CommandError(
            f"kind = {kind!r:.60} is none of {', '.join(k.value for k in CommandKind)}"
        ) from None
    if not isinstance(payload, Mapping):
        raise CommandError("payload must be an object")
    return CommandRecord(
        kind=known,
        payload=check_payload(known, payload, statuses),
        actor=actor,
        created_at=datetime.now(timezone.utc),
    )


def track(
    tracked: Sequence[Any] | None, command_id: int | None, reason: str
) -> list[dict[str, Any]]:
    """Add a command, or the reason why it was not queued, to those that notes are shown for."""
    item: dict[str, Any] = (
        {"id": f"refused-{datetime.now(timezone.utc).timestamp()}", "error": reason}
        if command_id is None
        else {"id": command_id}
    )
    return [*(tracked or []), item][-MOST_TRACKED:]
