"""Records to rows and back.

Driven by the records' type hints, so a field added to a record needs a column and nothing here.
Three ways a number that is not finite survives: in a column it becomes NULL (read back as None, or
as NaN where the field is not optional), in a JSON mapping of numbers it becomes the text ``NaN``,
``Infinity`` or ``-Infinity`` (read back as the number).

A record inside a record: its fields become columns of the row, or, where it may be None, one JSON
object. In a document it is an object always.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, timezone
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeVar

import numpy as np

from backend.telemetry.redaction import redact, redact_deep

T = TypeVar("T")

_FREE_TEXT = frozenset(
    (
        "activity",
        "actor",
        "default_plan",
        "detail",
        "decided_by",
        "fault",
        "hindrance",
        "holder",
        "limits",
        "message",
        "note",
        "payload",
        "proposer",
        "quality_reasons",
        "reason",
        "reasons",
        "result",
        "safety_reasons",
        "server",
        "steered_plan",
        "text",
        "workload",
    )
)
"""Fields that people or foreign systems fill: redacted before they are stored. Knob values,
postgresql.auto.conf entries and planner settings are not among them: a roll-back needs them to the
letter, and so does the comparison with what is in force."""

# -- JSON -----------------------------------------------------------------------------------


def dump_json(value: Any) -> str:
    """Write strict JSON (never a bare NaN)."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, default=_plain, separators=(",", ":"))


def load_json(text: str | bytes) -> Any:
    """Read JSON."""
    return json.loads(text)


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into what it knows."""
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, (Enum, PurePath, Exception)):
        return str(value.value if isinstance(value, Enum) else value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return repr(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


# -- fields ---------------------------------------------------------------------------------

_Convert = Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _real_or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)


def _real_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _value_of(value: Enum | None) -> Any:
    return None if value is None else value.value


def _reals(value: Any) -> Any:
    """Read a mapping (of mappings) or list of numbers back."""
    if isinstance(value, dict):
        return {key: _reals(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_reals(item) for item in value]
    return float(value) if isinstance(value, str) else math.nan if value is None else value


def _whole_keys(value: Any) -> Any:
    """Read a mapping back whose keys are whole numbers: JSON knows texts only."""
    return {int(key): item for key, item in value.items()}


def _time_to_text(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(timezone.utc).isoformat()


def _time_from_text(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    encode: _Convert
    decode: _Convert
    is_time: bool = False
    spread: type | None = None
    """The record whose fields stand for this one in a row."""


def _field(name: str, hint: Any) -> _Field:
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arguments = [a for a in typing.get_args(hint) if a is not type(None)]
        optional = len(arguments) < len(typing.get_args(hint))
        hint = arguments[0] if len(arguments) == 1 else object
    origin = typing.get_origin(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        kind = hint
        return _Field(name, _value_of, lambda v: None if v is None else kind(v))
    if hint is datetime:
        return _Field(name, _same, _same, is_time=True)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        record = hint
        return _Field(
            name,
            lambda v: None if v is None else to_document(v),
            lambda v: None if v is None else from_document(record, v),
            spread=None if optional else record,
        )
    if hint is float:
        return _Field(name, _number, _real_or_none if optional else _real_or_nan)
    if hint is int:
        return _Field(name, _whole, _same)
    if hint is bool:
        return _Field(name, bool, bool)
    if hint is str:
        return _Field(name, _redacted if name in _FREE_TEXT else _same, _same)
    if origin is tuple and dataclasses.is_dataclass(typing.get_args(hint)[0]):
        item = typing.get_args(hint)[0]
        return _Field(
            name,
            lambda values: [to_document(v) for v in values],
            lambda values: tuple(from_document(item, v) for v in values),
        )
    if origin is tuple:
        decode = _reals if typing.get_args(hint)[0] is float else _same
        clean = redact_deep if name in _FREE_TEXT else _same
        return _Field(name, lambda v: list(clean(v)), lambda v: tuple(decode(v)))
    if origin is not None and issubclass(origin, Mapping):
        decode = _reals if _holds_reals(hint) else _same
        if typing.get_args(hint)[0] is int:
            decode = _whole_keys
        return _Field(name, redact_deep if name in _FREE_TEXT else dict, decode)
    return _Field(name, _same, _same)


def _holds_reals(hint: Any) -> bool:
    """Whether a mapping (of mappings) holds nothing but numbers."""
    arguments = typing.get_args(hint)
    return hint is float or (len(arguments) == 2 and _holds_reals(arguments[1]))


def _redacted(value: str | None) -> str | None:
    return None if value is None else redact(str(value))


_known_fields: dict[type, tuple[_Field, ...]] = {}


def _fields(kind: type) -> tuple[_Field, ...]:
    """Return a record type's fields; worked out once, since windows come in thousands."""
    fields = _known_fields.get(kind)
    if fields is None:
        hints = typing.get_type_hints(kind)
        fields = tuple(_field(f.name, hints[f.name]) for f in dataclasses.fields(kind))
        _known_fields[kind] = fields
    return fields


# -- records --------------------------------------------------------------------------------


def to_row(record: Any, *, omit: tuple[str, ...] = ("id",)) -> dict[str, Any]:
    """Return the record's column values, without the fields in ``omit``."""
    row: dict[str, Any] = {}
    for f in _fields(type(record)):
        if f.name in omit:
            continue
        value = getattr(record, f.name)
        if f.spread is not None:
            row.update(to_row(value))
        else:
            row[f.name] = f.encode(value)
    return row


def from_row(kind: type[T], row: Mapping[Any, Any]) -> T:
    """Build a record of ``kind`` from a row's mapping; other columns are ignored."""
    values: dict[str, Any] = {}
    for f in _fields(kind):
        if f.spread is not None:
            values[f.name] = from_row(f.spread, row)
        elif f.name in row:
            values[f.name] = f.decode(row[f.name])
    return kind(**values)


def to_document(record: Any) -> dict[str, Any]:
    """Return the record as one JSON object."""
    return {
        f.name: _time_to_text(getattr(record, f.name))
        if f.is_time
        else f.encode(getattr(record, f.name))
        for f in _fields(type(record))
    }


def from_document(kind: type[T], document: Mapping[str, Any]) -> T:
    """Read back what :func:`to_document` wrote; fields it lacks take their defaults."""
    return kind(
        **{
            f.name: _time_from_text(document[f.name]) if f.is_time else f.decode(document[f.name])
            for f in _fields(kind)
            if f.name in document
        }
    )
