"""Refuses callbacks that no page of ours would send, before Dash stumbles over them.

Dash takes the shape of a body for granted and answers 500 where it is another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import dash
from flask import Flask, Response, jsonify, request

from dashboard.auth.gate import CALLBACKS

_MANY = re.compile(r'\["ALL(SMALLER)?"\]')


def problem(body: object, callbacks: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with a callback's body; empty where nothing is.

    Args:
        body: as JSON was read.
        callbacks: Dash's, by the text that names their outputs.
    """
    if not isinstance(body, dict):
        return "send a JSON object with Content-Type application/json"
    output = body.get("output")
    known = callbacks.get(output) if isinstance(output, str) else None
    if known is None or "callback" not in known:
        return f"there is no callback for output {output!r:.100}"
    for key in ("inputs", "state"):
        if not _are_those_of(body.get(key, []), known[key]):
            return f"{key} are not those of the callback"
    if not known.get("no_output") and not _are_named(body.get("outputs"), str(output)):
        return "outputs are not those of the callback"
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(isinstance(item, str) for item in changed):
        return "changedPropIds is no list of texts"
    return ""


def _are_those_of(given: object, expected: Sequence[Mapping[str, Any]]) -> bool:
    if not isinstance(given, list) or len(given) != len(expected):
        return False
    return all(map(_is_one_of, given, expected))


def _is_one_of(item: object, wanted: Mapping[str, Any]) -> bool:
    """Whether an input is the wanted one, or the list of those that a pattern stands for."""
    pattern = str(wanted["id"])
    if not pattern.startswith("{"):
        return isinstance(item, dict) and all(item.get(k) == wanted[k] for k in ("id", "property"))
    return _fits_pattern(item, pattern, wanted["property"])


def _fits_pattern(item: object, pattern: str, name: str) -> bool:
    if _MANY.search(pattern) is None:
        return _is_property(item, name)
    return isinstance(item, list) and all(_is_property(one, name) for one in item)


def _are_named(outputs: object, output: str) -> bool:
    """Whether the outputs are those that Dash's text names: ``a.b`` or ``..a.b...c.d..``."""
    names, items = [output], [outputs]
    if output.startswith(".."):
        names = output[2:-2].split("...")
        items = outputs if isinstance(outputs, list) else []
    return len(names) == len(items) and all(map(_is_named, items, names))


def _is_named(item: object, name: str) -> bool:
    place, _, attribute = name.rpartition(".")
    # An output that several callbacks share has a mark behind an @, which pages send or leave out.
    plain = attribute.partition("@")[0]
    if place.startswith("{"):
        return _fits_pattern(item, place, attribute) or _fits_pattern(item, place, plain)
    if not isinstance(item, dict) or item.get("id") != place:
        return False
    return item.get("property") in (attribute, plain)


def _is_property(item: object, name: str) -> bool:
    return (
        isinstance(item, dict) and isinstance(item.get("id"), dict) and item.get("property") == name
    )


def install(server: Flask, app: dash.Dash) -> None:
    """Check callbacks after whoever sends them was let in."""

    @server.before_request
    def check() -> tuple[Response, int] | None:
        if request.path != CALLBACKS or request.method != "POST":
            return None
        told = problem(request.get_json(silent=True), app.callback_map)
        return (jsonify(status="refused", reason=told), 400) if told else None
