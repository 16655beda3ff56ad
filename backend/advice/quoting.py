"""Names and values as SQL, configuration files and shells take them, without surprises.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
"""

from __future__ import annotations

from backend.catalog.entries import entry_text
from backend.db_connector import quoted_identifier
from backend.domain.knobs import Knob, KnobValue
from backend.domain.quantities import unit_size

_UNITS = {
    "bytes": (("TB", 1024.0**4), ("GB", 1024.0**3), ("MB", 1024.0**2), ("kB", 1024.0)),
    "seconds": (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)),
}


def sql_identifier(name: str) -> str:
    """A name quoted for SQL, in one line of printable characters.

    What does not print is escaped (``U&"..."``): such a name must not steer a terminal.
    """
    if name.isprintable():
        return quoted_identifier(name)
    escaped = name.replace("\\", "\\\\").replace('"', '""')
    return 'U&"' + "".join(c if c.isprintable() else f"\\+{ord(c):06x}" for c in escaped) + '"'


def exact_text(knob: Knob, value: KnobValue) -> str:
    """A value as people write it, and no other value: 16384 of ``8kB`` is ``128MB``.

    Numbers that no unit holds whole stay in the knob's own unit, without it.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0 or knob.unit is None:
        return entry_text(value)
    dimension, unit = unit_size(knob.unit)
    for name, step in _UNITS[dimension]:
        amount = round(value * unit / step)
        if amount >= 1 and abs(amount * step - value * unit) < 1e-9 * value * unit:
            return f"{amount}{name}"
    return entry_text(value)


def sql_value(knob: Knob, value: KnobValue) -> str:
    """The same as a constant of SQL or of postgresql.conf."""
    return "'" + exact_text(knob, value).replace("'", "''") + "'"
