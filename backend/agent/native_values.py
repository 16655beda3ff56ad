"""From the actor's coordinates back to values that people can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue


class NativeValues:
    """Remembers which coordinate stood for which native value.

    A coordinate that was not moved gives back exactly the value that it came from, special ones
    included (``KnobSpace.decode`` alone would turn -1 into the nearest bound, and 1.1 into
    1.0999999). New coordinates are rounded to three significant digits.
    """

    def __init__(self, space: KnobSpace) -> None:
        self._space = space
        self._columns = np.cumsum([0, *(knob.width for knob in space)])[:-1]
        self._known: dict[str, dict[float, KnobValue]] = {
            knob.name: {} for knob in space if knob.kind in ("integer", "real")
        }

    def remember(self, config: Mapping[str, KnobValue]) -> None:
        """Take note of a configuration's values; the first one of a coordinate stays."""
        for name, known in self._known.items():
            coordinate = float(self._space[name].encode(config[name])[0])
            known.setdefault(round(coordinate, 6), config[name])

    def decode(self, vector: NDArray[np.float64]) -> KnobConfig:
        """Decode a vector of shape ``(space.width,)``."""
        values = dict(self._space.decode(vector))
        for column, knob in zip(self._columns, self._space, strict=True):
            if knob.name in self._known:
                known = self._known[knob.name].get(round(float(vector[column]), 6))
                values[knob.name] = _rounded(knob, values[knob.name]) if known is None else known
        return KnobConfig(values)

    def pairs(self) -> Mapping[str, Sequence[tuple[float, KnobValue]]]:
        """All that :meth:`restore` needs."""
        return {name: list(known.items()) for name, known in self._known.items()}

    def restore(self, pairs: Mapping[str, Sequence[tuple[float, KnobValue]]]) -> None:
        """Continue from what :meth:`pairs` gave.

        Raises:
            KeyError, ValueError, KnobBoundsError: it does not fit the space.
        """
        for name in self._known:
            knob = self._space[name]
            self._known[name] = {float(x): knob.validate(value) for x, value in pairs[name]}


def _rounded(knob: Knob, value: KnobValue) -> KnobValue:
    """Three significant digits, unless that leaves the bounds."""
    low, high = knob.bounds
    rounded = float(f"{float(value):.3g}")
    return knob.validate(rounded) if low <= rounded <= high else value
