"""Numbers in words: the same everywhere a report is read. Plain text, no mark-up."""

from __future__ import annotations

import math
from datetime import datetime

from backend.domain.knobs import KnobValue
from backend.domain.quantities import format_quantity

NOTHING = "–"
"""Stands where nothing was measured."""


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to so many significant digits, without an exponent."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def milliseconds(value: float | None) -> str:
    """Return a latency, as ``12.3 ms``."""
    text = number(value)
    return text if text == NOTHING else f"{text} ms"


def percent(share: float | None, *, signed: bool = False) -> str:
    """Return a share of 1 as per cent, as ``12.3 %``."""
    if share is None or not math.isfinite(share):
        return NOTHING
    return f"{share * 100:{'+' if signed else ''}.1f} %"


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Return an interval of shares, as ``10.1 % to 14.2 %``; empty where there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{percent(low, signed=signed)} to {percent(high, signed=signed)}"


def moment(at: datetime | None) -> str:
    """Return a time to the second, in UTC."""
    return NOTHING if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float | None) -> str:
    """Return a duration in two units at most."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    whole = round(seconds)
    for size, big, small_size, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {big}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def knob_text(value: KnobValue | None, unit: str | None) -> str:
    """Return a knob's native value as people write it: 16384 of ``8kB`` is ``128 MB``."""
    if value is None:
        return "no entry"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str) or unit is None or value <= 0:
        return str(value)  # Zero and below mean something special in most units: off, automatic.
    return format_quantity(value, unit)
