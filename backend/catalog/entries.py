"""Entries of postgresql.auto.conf compared by what they mean, not by how they are spelt.

``64MB`` and ``65536`` are the same ``work_mem``; ``1.12346`` is what the server shows for
``1.123456789``: pg_settings prints real settings with six significant digits.
https://www.postgresql.org/docs/current/config-setting.html
"""

from __future__ import annotations

import math

from backend.catalog.knobs import native_number
from backend.domain.knobs import Knob, KnobValue
from backend.errors import KnobBoundsError

_REAL_TOLERANCE = 1e-5
_TRUE = ("on", "true", "yes", "1")
_FALSE = ("off", "false", "no", "0")


def entry_text(value: KnobValue) -> str:
    """Write a value as ALTER SYSTEM leaves it in the file."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return repr(value) if isinstance(value, float) else str(value)


def entry_value(knob: Knob | None, text: str) -> KnobValue:
    """Read an entry in the knob's native unit; the text itself where it cannot be told.

    Bounds do not matter here: a human may have passed them.
    """
    if knob is None:
        return text
    if knob.kind == "boolean":
        word = text.strip().lower()
        for words, value in ((_TRUE, True), (_FALSE, False)):
            # The server takes any unambiguous beginning: t, tr, of, ...
            if word and any(w.startswith(word) for w in words) and word != "o":
                return value
        return text
    if knob.kind == "categorical":
        return text.strip().lower()
    try:
        number = native_number(knob, text)
    except KnobBoundsError:
        return text
    return int(number) if knob.kind == "integer" else number


def same_value(left: KnobValue | None, right: KnobValue | None) -> bool:
    """Whether two native values are the same setting; reals to the digits that servers show."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if isinstance(left, int) and isinstance(right, int):
            return left == right
        return math.isclose(left, right, rel_tol=_REAL_TOLERANCE, abs_tol=1e-12)
    return left == right


def same_entry(knob: Knob | None, left: str | None, right: str | None) -> bool:
    """Whether two entries (None: no entry) mean the same."""
    if left is None or right is None or left == right:
        return left == right
    return same_value(entry_value(knob, left), entry_value(knob, right))


def writable_entry(knob: Knob | None, text: str | None) -> KnobValue | None:
    """Return what to hand to the target so that it writes this entry again, spelling included."""
    if text is None:
        return None
    value = entry_value(knob, text)
    return value if entry_text(value) == text else text
