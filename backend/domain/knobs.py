"""Knobs, knob spaces and configurations.

A knob is a server setting that we may write. Values travel through the project in the knob's
*native unit* (the unit that PostgreSQL's ``pg_settings.unit`` names, such as ``8kB`` pages for
``shared_buffers``), and only :class:`KnobSpace` turns them into the learner's [-1, 1].
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Union

import numpy as np
from numpy.typing import NDArray

from backend.errors import KnobBoundsError, UnknownKnobError

KnobValue = Union[bool, int, float, str]
KnobKind = Literal["integer", "real", "boolean", "categorical"]
KnobScale = Literal["linear", "log"]
KnobContext = Literal["session", "reload", "restart"]
KnobRisk = Literal["low", "medium", "high"]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Knob:
    """One server setting.

    Args:
        name: the setting's name as the server spells it.
        kind: ``integer``, ``real``, ``boolean`` or ``categorical``.
        low, high: inclusive bounds in the native unit (integer and real).
        scale: ``log`` spreads the encoding over decades; it works with ``low = 0`` too.
        unit: native unit, for people (``kB``, ``8kB``, ``ms``); None where there is none.
        default: the server's default in the native unit.
        choices: the values of a categorical knob, in the order in which they are encoded.
        special: values outside the bounds with a meaning of their own (``-1`` = off); they are
            legal, and the agent never proposes them by itself.
        context: when a change takes effect.
        risk: how much a bad value can hurt.
        description: one line of meaning.
        doc_url: the page of the server's manual.
        settle_s: seconds after a change before measurements mean anything.

    Raises:
        KnobBoundsError: when the definition contradicts itself.
    """

    name: str
    kind: KnobKind
    low: float | None = None
    high: float | None = None
    scale: KnobScale = "linear"
    unit: str | None = None
    default: KnobValue | None = None
    choices: Sequence[str] = ()
    special: Sequence[KnobValue] = ()
    context: KnobContext = "reload"
    risk: KnobRisk = "low"
    description: str = ""
    doc_url: str = ""
    settle_s: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))
        object.__setattr__(self, "special", tuple(self.special))
        if self.kind in ("integer", "real"):
            low, high = self.low, self.high
            if low is None or high is None or not -math.inf < low < high < math.inf:
                raise KnobBoundsError(
                    f"knob {self.name}: a {self.kind} knob needs finite low < high, "
                    f"not low={low} and high={high}"
                )
            if self.kind == "integer" and math.ceil(low) > math.floor(high):
                raise KnobBoundsError(
                    f"knob {self.name}: there is no whole number from {low} to {high}"
                )
            if self.scale not in ("linear", "log") or (self.scale == "log" and low < 0):
                raise KnobBoundsError(
                    f"knob {self.name}: the scale is linear, or log with low >= 0, "
                    f"not {self.scale!r} with low={low}"
                )
        elif self.kind == "categorical":
            if len(set(self.choices)) < 2 or len(set(self.choices)) != len(self.choices):
                raise KnobBoundsError(
                    f"knob {self.name}: a categorical knob needs 2 choices or more, each once, "
                    f"not {self.choices}"
                )
        elif self.kind != "boolean":
            raise KnobBoundsError(f"knob {self.name}: unknown kind {self.kind!r}")
        if self.default is not None:
            object.__setattr__(self, "default", self.validate(self.default))

    # -- values -----------------------------------------------------------------------------

    def validate(self, value: object) -> KnobValue:
        """Return ``value`` in the knob's Python type.

        Raises:
            KnobBoundsError: the value is not of this kind or lies outside the bounds.
        """
        if self.kind == "boolean":
            return self._validate_boolean(value)
        if self.kind == "categorical":
            if isinstance(value, str) and value in self.choices:
                return str(value)
            raise KnobBoundsError(
                f"{self.name} = {_shown(value)} is none of {', '.join(self.choices)}"
            )
        number = self._number(value)
        for special in self.special:
            if number == special:
                return special
        low, high = self.bounds
        if not low <= number <= high:
            raise KnobBoundsError(
                f"{self.name} = {_shown(value)} is outside {low:g} to {high:g}"
                f"{' ' + self.unit if self.unit else ''}",
                remedy="choose a value inside the bounds",
            )
        return int(number) if self.kind == "integer" else float(number)

    def _number(self, value: object) -> float:
        if isinstance(value, (bool, np.bool_)) or not isinstance(
            value, (int, float, np.integer, np.floating, str)
        ):
            raise KnobBoundsError(f"{self.name} = {_shown(value)} is not a number")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise KnobBoundsError(f"{self.name} = {_shown(value)} is not a number") from None
        if not math.isfinite(number):
            raise KnobBoundsError(f"{self.name} = {_shown(value)} is not a finite number")
        if self.kind == "integer" and number != int(number):
            raise KnobBoundsError(f"{self.name} = {_shown(value)} is not a whole number")
        return number

    def _validate_boolean(self, value: object) -> bool:
        if isinstance(value, (bool, np.bool_)):
            return bool(value)
        if isinstance(value, str) and value.lower() in ("on", "true", "yes", "1"):
            return True
        if isinstance(value, str) and value.lower() in ("off", "false", "no", "0"):
            return False
        if isinstance(value, (int, np.integer)) and value in (0, 1):
            return bool(value)
        raise KnobBoundsError(f"{self.name} = {_shown(value)} is neither on nor off")

    @property
    def bounds(self) -> tuple[float, float]:
        """Inclusive bounds of a numeric knob, in the native unit."""
        if self.low is None or self.high is None:
            raise KnobBoundsError(f"{self.name} is {self.kind} and has no bounds")
        return float(self.low), float(self.high)

    # -- encoding ---------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """How many coordinates the knob takes in the encoding (one-hot for categories)."""
        return len(self.choices) if self.kind == "categorical" else 1

    def encode(self, value: object) -> FloatArray:
        """Encode a native value to ``width`` numbers in [-1, 1].

        A number outside the bounds (a special value, or one that a human has set) is encoded as
        the nearest bound: a learner must be able to look at what it may not propose.

        Raises:
            KnobBoundsError: the value is not of this kind.
        """
        if self.kind == "categorical":
            valid = self.validate(value)
            return np.array([1.0 if c == valid else -1.0 for c in self.choices])
        if self.kind == "boolean":
            return np.array([1.0 if self.validate(value) else -1.0])
        low, high = self.bounds
        number = min(max(self._number(value), low), high)
        unit = (self._warp(number) - self._warp(low)) / (self._warp(high) - self._warp(low))
        return np.array([2.0 * unit - 1.0])

    def decode(self, coordinates: FloatArray) -> KnobValue:
        """Decode ``width`` numbers (clipped to [-1, 1]) to the nearest legal native value.

        Real values have six significant digits, which is what a server shows of them: what was
        written is then what is read back.
        """
        if self.kind == "categorical":
            return self.choices[int(np.argmax(coordinates))]
        coordinate = float(np.clip(coordinates[0], -1.0, 1.0))
        if self.kind == "boolean":
            return coordinate > 0.0
        low, high = self.bounds
        if abs(coordinate) == 1.0:  # the ends exactly, whatever the logarithm's rounding
            number = low if coordinate < 0 else high
        else:
            share = (coordinate + 1.0) / 2.0
            number = self._unwarp(self._warp(low) + share * (self._warp(high) - self._warp(low)))
        if self.kind == "integer":
            return int(min(max(round(number), math.ceil(low)), math.floor(high)))
        return min(max(float(f"{number:.6g}"), low), high)

    @property
    def _log_offset(self) -> float:
        """Shift that keeps the logarithm finite when the lower bound is 0."""
        low, high = self.bounds
        if low > 0:
            return 0.0
        return 1.0 if self.kind == "integer" else high * 1e-4

    def _warp(self, number: float) -> float:
        return math.log(number + self._log_offset) if self.scale == "log" else number

    def _unwarp(self, warped: float) -> float:
        return math.exp(warped) - self._log_offset if self.scale == "log" else warped


class KnobConfig(Mapping[str, KnobValue]):
    """An immutable assignment of native values to knob names. Hashable, order-independent."""

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Mapping[str, KnobValue]) -> None:
        self._values: dict[str, KnobValue] = dict(sorted(values.items()))
        self._hash = hash(tuple(self._values.items()))

    def __getitem__(self, name: str) -> KnobValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._values == dict(other)

    def __repr__(self) -> str:
        return f"KnobConfig({self._values!r})"

    def replace(self, values: Mapping[str, KnobValue]) -> KnobConfig:
        """Return a copy with some values replaced or added."""
        return KnobConfig({**self._values, **values})


@dataclass(frozen=True)
class KnobSpace:
    """An ordered set of knobs with an encoding to [-1, 1]."""

    knobs: Sequence[Knob]
    _by_name: Mapping[str, Knob] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "knobs", tuple(self.knobs))
        by_name = {knob.name: knob for knob in self.knobs}
        if len(by_name) != len(self.knobs):
            raise KnobBoundsError("a knob space holds each knob once")
        object.__setattr__(self, "_by_name", by_name)

    def __len__(self) -> int:
        return len(self.knobs)

    def __iter__(self) -> Iterator[Knob]:
        return iter(self.knobs)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Knob:
        """The knob of that name.

        Raises:
            UnknownKnobError: there is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownKnobError(
                f"no knob named {name!r} in this space of {len(self.knobs)} knobs",
                remedy="only catalogued knobs are writable",
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        """The knobs' names, in order."""
        return tuple(knob.name for knob in self.knobs)

    @property
    def width(self) -> int:
        """Length of an encoded configuration."""
        return sum(knob.width for knob in self.knobs)

    @property
    def fingerprint(self) -> str:
        """Digest of all that the encoding depends on; checkpoints are bound to it."""
        parts = [
            [k.name, k.kind, _float(k.low), _float(k.high), k.scale, k.unit, list(k.choices)]
            for k in self.knobs
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def shape_fingerprint(self) -> str:
        """Digest of names, kinds, scales and choices, whatever the bounds.

        Bounds follow the machine's memory and cores, so two servers with the same knobs differ
        in :attr:`fingerprint` and agree in this: knowledge relative to the bounds carries over.
        """
        parts = [[k.name, k.kind, k.scale, k.unit, list(k.choices)] for k in self.knobs]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def default_config(self) -> KnobConfig:
        """Every knob at its default; the middle of the range where it has none."""
        return KnobConfig(
            {
                k.name: k.default if k.default is not None else k.decode(np.zeros(k.width))
                for k in self.knobs
            }
        )

    def subset(self, names: Sequence[str]) -> KnobSpace:
        """The space of only these knobs, in the order given."""
        return KnobSpace([self[name] for name in names])

    def validate(self, config: Mapping[str, object]) -> KnobConfig:
        """Check names and values; return them typed.

        Raises:
            UnknownKnobError, KnobBoundsError: the first offence, by name and value.
        """
        return KnobConfig({name: self[name].validate(value) for name, value in config.items()})

    def encode(self, config: Mapping[str, object]) -> FloatArray:
        """Encode a configuration, shape ``(width,)``; absent knobs count as default."""
        defaults = self.default_config()
        return np.concatenate([k.encode(config.get(k.name, defaults[k.name])) for k in self.knobs])

    def decode(self, vector: FloatArray) -> KnobConfig:
        """Decode a vector of shape ``(width,)``; coordinates are clipped to [-1, 1].

        Raises:
            ValueError: the vector's shape does not fit, or it holds what is no number.
        """
        if vector.shape != (self.width,):
            raise ValueError(f"expected a vector of shape ({self.width},), got {vector.shape}")
        if not np.all(np.isfinite(vector)):
            raise ValueError("a vector to decode must be finite, this one is not finite")
        values: dict[str, KnobValue] = {}
        start = 0
        for knob in self.knobs:
            values[knob.name] = knob.decode(vector[start : start + knob.width])
            start += knob.width
        return KnobConfig(values)


def _shown(value: object) -> str:
    """A value for a message: whoever sent it does not decide how long the message gets."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # repr of an int beyond Python's digit limit, a deep list
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _float(number: float | None) -> float | None:
    return None if number is None else float(number)
