"""Experiment plans as files: YAML that people write, checked value by value: it is hostile."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import yaml

from backend.catalog.knobs import KnobCatalog
from backend.domain.experiment_plans import ExperimentPlanRecord, KnobRange
from backend.domain.hours import Hours
from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.domain.quantities import format_quantity
from backend.errors import ConfigError
from backend.strict_yaml import FileTooLargeError, RefusedYAMLError, read_strictly

KEYS = ("knobs", "hours", "trials", "expires", "days", "note")
MOST_KNOBS, MOST_HOURS, MOST_CHOICES = 100, 20, 50
MOST_TRIALS, MOST_DAYS, MOST_NOTE = 10_000, 90, 500
REMEDY = "python run.py plan show --yaml prints one to start from"


def read_file(path: Path) -> dict[str, Any]:
    """The content of a plan's file, as JSON would have it; not checked yet.

    Raises:
        ConfigError: it cannot be read, or is no mapping in YAML.
    """
    try:
        document = read_strictly(path)
    except FileTooLargeError as error:
        raise ConfigError(str(error), remedy=REMEDY) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place is not None else ""
        told = f": {error.problem}" if isinstance(error, RefusedYAMLError) else " is not YAML"
        raise ConfigError(f"{path}{line}{told}", remedy=REMEDY) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} holds no experiment plan", remedy=REMEDY)
    expires = document.get("expires")
    if isinstance(expires, datetime):  # YAML knows times, JSON does not
        document["expires"] = expires.isoformat()
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ConfigError(
            f"{path} holds something else than texts and numbers", remedy=REMEDY
        ) from None
    return document


def plan_of(
    document: object,
    catalog: KnobCatalog,
    space: KnobSpace,
    *,
    server_id: str,
    author: str,
    now: datetime,
) -> ExperimentPlanRecord:
    """The plan that a document describes, every value checked against this server's knobs.

    Raises:
        ConfigError: a key, a time, a number is refused.
        KnobError: a knob is not to be written, not known, or a value lies outside its bounds.
    """
    if not isinstance(document, Mapping):
        raise ConfigError("an experiment plan is a mapping", remedy=REMEDY)
    unknown = [str(key) for key in document if key not in KEYS]
    if unknown:
        raise ConfigError(
            f"an experiment plan has no {', '.join(unknown)[:100]}",
            remedy=f"only {', '.join(KEYS)}",
        )
    knobs = document.get("knobs")
    if not isinstance(knobs, Mapping) or not 0 < len(knobs) <= MOST_KNOBS:
        raise ConfigError(f"knobs must map 1 to {MOST_KNOBS} names to ranges", remedy=REMEDY)
    hours = _texts(document.get("hours") or (), "hours")
    try:
        Hours.parse(hours)
    except ValueError as error:
        raise ConfigError(f"hours: {error}") from None
    trials, note = document.get("trials"), document.get("note", "")
    if isinstance(trials, bool) or not isinstance(trials, int) or not 0 < trials <= MOST_TRIALS:
        told = f"= {trials!r:.40} is no whole number from 1 to {MOST_TRIALS}"
        raise ConfigError(
            f"trials {'is missing' if trials is None else told}",
            remedy="say how many may begin at the most, such as trials: 60",
        )
    if not isinstance(note, str) or len(note) > MOST_NOTE:
        raise ConfigError(f"note is no text of at most {MOST_NOTE} characters")
    return ExperimentPlanRecord(
        created_at=now,
        author=author,
        server_id=server_id,
        knobs=tuple(_range(name, given, catalog, space) for name, given in knobs.items()),
        trials=trials,
        expires_at=_expiry(document, now),
        hours=hours,
        note=note,
    )


def as_yaml(plan: ExperimentPlanRecord) -> str:
    """The plan as a file that :func:`read_file` takes; numbers are in the knobs' own units."""
    lines = ["# Experiment plan: what may be tried. Text may carry a unit, such as 64MB.", "knobs:"]
    for knob in plan.knobs:
        if knob.low is None or knob.high is None:
            lines.append(f"  {knob.name}: {json.dumps({'choices': list(knob.choices)})}")
        else:
            low, high = (_plain(end) for end in (knob.low, knob.high))
            ends = [format_quantity(end, knob.unit) for end in (knob.low, knob.high)]
            unit = f"  # {knob.unit}: {' to '.join(ends)}" if knob.unit else ""
            lines.append(f"  {knob.name}: {json.dumps({'low': low, 'high': high})}{unit}")
    lines += [
        f"hours: {json.dumps(list(plan.hours))}  # empty: whenever the settings let trials run",
        f"trials: {plan.trials}",
        f'expires: "{plan.expires_at.isoformat()}"  # or days: 7',
        f"note: {json.dumps(plan.note)}",
    ]
    return "\n".join(lines) + "\n"


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number


def _range(name: object, given: object, catalog: KnobCatalog, space: KnobSpace) -> KnobRange:
    if not isinstance(name, str):
        raise ConfigError(f"{name!r:.40} is no knob's name")
    knob = catalog.knob(name).knob  # refuses what is never written, with the reason
    if name not in space:
        raise ConfigError(
            f"{name} may not be tried here", remedy="the page Knobs tells which knobs are tried"
        )
    numeric = knob.kind in ("integer", "real")
    wanted = {"low", "high"} if numeric else {"choices"}
    if not isinstance(given, Mapping) or set(given) != wanted:
        expected = "{low: ..., high: ...}" if numeric else "{choices: [...]}"
        raise ConfigError(f"{name} is {knob.kind}: write {expected}")
    if numeric:
        low, high = (_end(knob, given[end], catalog) for end in ("low", "high"))
        if low > high:
            raise ConfigError(f"{name}: low = {given['low']!r:.40} is above its high")
        return KnobRange(name, low, high, unit=knob.unit)
    choices = given["choices"]
    if not isinstance(choices, list) or not 0 < len(choices) <= MOST_CHOICES:
        raise ConfigError(f"{name}: choices is no list of 1 to {MOST_CHOICES} values")
    checked = tuple(dict.fromkeys(_choice(knob, choice, catalog) for choice in choices))
    return KnobRange(name, choices=checked, unit=knob.unit)


def _end(knob: Knob, value: object, catalog: KnobCatalog) -> float:
    checked = catalog.check(knob.name, value)
    low, high = knob.bounds
    if isinstance(checked, (bool, str)) or not low <= checked <= high:
        raise ConfigError(f"{knob.name}: {value!r:.40} cannot be the end of a range")
    return float(checked)


def _choice(knob: Knob, value: object, catalog: KnobCatalog) -> KnobValue:
    # YAML reads a bare on and off as a truth value, where a choice of that name may be meant.
    if knob.kind == "categorical" and isinstance(value, bool):
        value = "on" if value else "off"
    return catalog.check(knob.name, value)


def _texts(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MOST_HOURS:
        raise ConfigError(f"{key} is no list of at most {MOST_HOURS} texts")
    if not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{key} holds something else than texts")
    return tuple(value)


def _expiry(document: Mapping[str, Any], now: datetime) -> datetime:
    days, text = document.get("days"), document.get("expires")
    if (days is None) == (text is None):
        raise ConfigError("an experiment plan has either expires or days")
    if days is not None:
        number = not isinstance(days, bool) and isinstance(days, (int, float))
        if not number or not math.isfinite(days) or not 0 < days <= MOST_DAYS:
            raise ConfigError(f"days = {days!r:.40} is no number above 0 and up to {MOST_DAYS}")
        return now + timedelta(days=days)
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            f"expires = {text!r:.40} is no time with a zone, like 2026-12-31T06:00:00+01:00"
        )
    if not now < moment <= now + timedelta(days=MOST_DAYS):
        raise ConfigError(f"expires = {text!r:.40} is not within the next {MOST_DAYS} days")
    return moment.astimezone(timezone.utc)
