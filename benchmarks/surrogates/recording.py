"""Reading a file of recorded measurements: a knob space, the rows' features and what came out."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import Knob, KnobConfig, KnobSpace
from backend.errors import ConfigError

FloatArray = NDArray[np.float64]
MIN_ROWS = 10
MAX_CHOICES = 64
LOG_DECADES = 1000.0
"""Ranges that span more than three decades are logarithmic."""
SWITCHES = ({"on", "off"}, {"true", "false"}, {"yes", "no"})


@dataclass(frozen=True)
class Recording:
    """Measured configurations of one target.

    Args:
        name: the file's name without its ending.
        digest: of the file's bytes.
        space: a knob for every column that varies, in the file's order; its defaults are the
            first row's values.
        features: shape ``(rows, knobs)``, in [0, 1]: numbers scaled between the least and the
            greatest recorded, logarithmically where the knob says so; strings by their sorted
            position.
        targets: what was measured, shape ``(rows,)``, in the file's unit.
    """

    name: str
    digest: str
    space: KnobSpace
    features: FloatArray
    targets: FloatArray


def read_recording(path: Path | str) -> Recording:
    """Read a CSV file: a header, an index column, knob columns, the target column.

    Raises:
        ConfigError: the file is missing, malformed, or has nothing to tune.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        lines = list(csv.reader(content.decode("utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} could not be read as CSV: {error}") from error
    header, rows = (lines[0], [line for line in lines[1:] if line]) if lines else ([], [])
    if len(header) < 3 or len(rows) < MIN_ROWS:
        raise ConfigError(
            f"{path} has {len(header)} columns and {len(rows)} rows",
            remedy=f"an index, knobs, a target and at least {MIN_ROWS} rows are needed",
        )
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ConfigError(f"{path}, line {number}: {len(row)} fields, expected {len(header)}")
    names = header[1:-1]
    if len(set(names)) != len(names) or not all(names):
        raise ConfigError(f"{path}: each knob needs a name of its own in the header")
    targets = _numbers([row[-1] for row in rows])
    if targets is None:
        raise ConfigError(f"{path}: the last column holds what is not a finite number")
    knobs: list[Knob] = []
    columns: list[FloatArray] = []
    for position, name in enumerate(names, start=1):
        texts = [row[position] for row in rows]
        if len(set(texts)) > 1 and (knob := _knob(path, name, texts)):
            knobs.append(knob)
            columns.append(np.array([feature(knob, text) for text in texts]))
    if not knobs:
        raise ConfigError(f"{path}: no column varies, there is nothing to tune")
    digest = hashlib.sha256(content).hexdigest()[:12]
    return Recording(path.stem, digest, KnobSpace(knobs), np.stack(columns, axis=1), targets)


def feature(knob: Knob, value: object) -> float:
    """A native value as the forest sees it, in [0, 1]."""
    if knob.kind == "categorical":
        return knob.choices.index(str(value)) / (len(knob.choices) - 1)
    if isinstance(value, str) and (number := _numbers([value])) is not None:
        value = float(number[0])  # "27.0" is a whole number too, "1.0" a switch
        value = value == 1.0 if knob.kind == "boolean" else value
    return float(knob.encode(value)[0] + 1.0) / 2.0


def default_features(space: KnobSpace, config: KnobConfig) -> FloatArray:
    """The features of one configuration, shape ``(knobs,)``."""
    return np.array([feature(knob, config[knob.name]) for knob in space])


def _knob(path: Path, name: str, texts: Sequence[str]) -> Knob | None:
    """The knob behind a column; None where all its texts are one number."""
    numbers = _numbers(texts)
    if numbers is None:
        choices = sorted(set(texts))
        if {choice.lower() for choice in choices} in SWITCHES and len(choices) == 2:
            return Knob(name, "boolean", default=texts[0])
        if len(choices) > MAX_CHOICES:
            raise ConfigError(
                f"{path}: column {name} holds {len(choices)} different texts",
                remedy=f"a categorical knob has at most {MAX_CHOICES} choices",
            )
        return Knob(name, "categorical", choices=choices, default=texts[0])
    low, high, first = float(numbers.min()), float(numbers.max()), float(numbers[0])
    if low == high:
        return None
    whole = bool(np.all(numbers == np.round(numbers)))
    if set(numbers.tolist()) == {0.0, 1.0}:
        return Knob(name, "boolean", default=first == 1.0)
    if whole:
        log = low >= 0.0 and high > LOG_DECADES * max(low, 1.0)
        bounds = (int(low), int(high))
        return Knob(name, "integer", *bounds, "log" if log else "linear", default=int(first))
    log = low > 0.0 and high > LOG_DECADES * low
    return Knob(name, "real", low, high, "log" if log else "linear", default=first)


def _numbers(texts: Sequence[str]) -> FloatArray | None:
    """The texts as finite numbers, or None where one is not."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return np.array(numbers) if all(map(math.isfinite, numbers)) else None
