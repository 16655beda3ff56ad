"""Numbers with units, as PostgreSQL and people write them: ``64MB``, ``1.5 min``, ``8kB``.

Units and their meaning: https://www.postgresql.org/docs/current/config-setting.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_BYTES = {"B": 1.0, "kB": 1024.0, "MB": 1024.0**2, "GB": 1024.0**3, "TB": 1024.0**4}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(
    r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE
)
_UNIT = re.compile(r"(\d*)([A-Za-z]+)")


def unit_size(unit: str) -> tuple[str, float]:
    """Split a unit into its dimension (``bytes`` or ``seconds``) and its size in that.

    ``8kB`` is ``("bytes", 8192.0)``.

    Raises:
        ValueError: no such unit.
    """
    match = _UNIT.fullmatch(unit)
    if match is not None:
        factor = float(match.group(1) or 1)
        for dimension, sizes in (("bytes", _BYTES), ("seconds", _SECONDS)):
            for name, size in sizes.items():
                if name.lower() == match.group(2).lower():
                    return dimension, factor * size
    raise ValueError(f"no such unit: {unit!r}")


def parse_quantity(text: str, unit: str | None) -> float:
    """Read a number, with or without a unit of its own, and return it in ``unit``.

    A bare number already is in ``unit``.

    Raises:
        ValueError: not a number, an unknown unit, or one of another dimension.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit")
    number, written = float(match.group(1)), match.group(2)
    if not written:
        return number
    if unit is None:
        raise ValueError(f"{text!r} has a unit where none belongs")
    dimension, size = unit_size(written)
    wanted, wanted_size = unit_size(unit)
    if dimension != wanted:
        raise ValueError(f"{text!r} is in {dimension}, not in {wanted} ({unit})")
    return number * size / wanted_size


def format_quantity(value: float, unit: str | None) -> str:
    """Write a number in the largest unit that keeps it short: 16384 in ``8kB`` is ``128 MB``."""
    if unit is None:
        return f"{value:.6g}"
    try:
        dimension, size = unit_size(unit)
    except ValueError:
        return f"{value:.6g} {unit}"
    sizes: Sequence[tuple[str, float]] = list(
        (_BYTES if dimension == "bytes" else _SECONDS).items()
    )
    total = value * size
    name, step = next(((n, s) for n, s in reversed(sizes) if abs(total) >= s), sizes[0])
    return f"{total / step:.4g} {name}"
