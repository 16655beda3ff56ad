"""Values for people: units, percentages, durations, times in the viewer's zone. All pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from backend.domain.knobs import KnobValue
from backend.domain.quantities import parse_quantity, unit_size

NONE = "–"
BYTE_UNITS: Mapping[str, int] = {"TB": 1024**4, "GB": 1024**3, "MB": 1024**2, "kB": 1024}


def number(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, thin spaces between thousands."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 6)}f}".replace(",", "\u202f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    """A number with its unit; a dash where there is no value."""
    return NONE if value is None else f"{number(value, digits)}\u00a0{unit}".rstrip("\u00a0")


def bytes_text(value: float | None, per_s: bool = False) -> str:
    """Bytes with the unit in which they read best."""
    if value is None:
        return NONE
    suffix = "/s" if per_s else ""
    for unit, size in BYTE_UNITS.items():
        if abs(value) >= size:
            return f"{number(value / size)}\u00a0{unit}{suffix}"
    return f"{number(value)}\u00a0B{suffix}"


def ms_text(value: float | None) -> str:
    """Milliseconds with the unit in which they read best."""
    if value is None:
        return NONE
    if abs(value) >= 60_000:
        return duration_text(value / 1000)
    if abs(value) >= 1000:
        return f"{number(value / 1000)}\u00a0s"
    if 0 < abs(value) < 1:
        return f"{number(value * 1000)}\u00a0µs"
    return f"{number(value)}\u00a0ms"


def duration_text(seconds: float | None) -> str:
    """Seconds as ``1 h 02 min``, ``3 min 05 s`` or ``4.2 s``."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{number(seconds, 2)}\u00a0s"
    total = round(seconds)
    for size, unit, part, small in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if total >= size:
            rest = total % size // part
            tail = f" {rest:02d}\u00a0{small}" if rest else ""
            return f"{total // size}\u00a0{unit}{tail}"
    return f"{total}\u00a0s"


def percent(share: float | None, *, signed: bool = False, digits: int = 1) -> str:
    """A share as a percentage with a real minus sign."""
    if share is None or not math.isfinite(share):
        return NONE
    value = 100 * share
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return f"{text}\u00a0%"
    sign = "\u2212" if value < 0 else "+" if signed else ""
    return f"{sign}{text}\u00a0%"


def confidence(share: float) -> str:
    """The confidence of an interval, never rounded up to certainty: ``95 %``, ``99.95 %``."""
    return f"{100 * share:.4g}\u00a0%" if share < 0.9999 else "over 99.99\u00a0%"


def knob_value(value: KnobValue | None, unit: str | None, *, native: bool = False) -> str:
    """A knob's value for people: ``4 MB`` for 4096 kB; with ``native`` what it is exactly."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return value
    exact = _exact_knob_value(value, unit)
    if not unit or value < 0:
        return exact
    try:
        dimension, size = unit_size(unit)
    except ValueError:
        return exact
    amount = float(value) * size
    text = bytes_text(amount) if dimension == "bytes" else ms_text(1000 * amount)
    return f"{text} ({exact})" if native and text != exact else text


def _exact_knob_value(value: int | float, unit: str | None, *, every_digit: bool = False) -> str:
    plain = str(value) if every_digit or isinstance(value, int) else f"{value:g}"
    if not unit or value < 0:
        return plain
    return f"{plain}\u00a0×\u00a0{unit}" if unit[0].isdigit() else f"{plain}\u00a0{unit}"


def knob_change(
    before: KnobValue | None, after: KnobValue | None, unit: str | None, none: str = NONE
) -> tuple[str, str]:
    """Two values of a knob for people, exact where they would read alike; ``none`` for None."""
    texts = [none if v is None else knob_value(v, unit) for v in (before, after)]
    if texts[0] == texts[1] and before != after:
        texts = [
            _exact_knob_value(v, unit, every_digit=True) if isinstance(v, (int, float)) else text
            for v, text in zip((before, after), texts, strict=True)
        ]
    return texts[0], texts[1]


def parse_knob_text(text: object, unit: str | None) -> object:
    """What a person typed, as a native number: ``64MB`` for a knob in kB is 65536.

    Text without a unit is taken to be native; text that is no quantity comes back unchanged, for
    the knob's own check to refuse.
    """
    if not isinstance(text, str):
        return text
    try:
        amount = parse_quantity(text, unit)
    except ValueError:
        return text.strip()
    return int(amount) if math.isfinite(amount) and amount == int(amount) else amount


@dataclass(frozen=True)
class Viewer:
    """What the browser told about its reader.

    Args:
        zone_name: IANA name of the time zone.
        zone: the zone itself.
        dark: whether the dark theme shows.
        narrow: whether the page is a phone's.
    """

    zone_name: str = "UTC"
    zone: tzinfo = timezone.utc
    dark: bool = False
    narrow: bool = False

    @classmethod
    def from_browser(cls, data: object) -> Viewer:
        """Read what the page's script sent; anything odd falls back to UTC and light."""
        if not isinstance(data, Mapping):
            return cls()
        name = data.get("zone")
        name = name if isinstance(name, str) and re.fullmatch(r"[\w+\-/]{1,60}", name) else "UTC"
        try:
            zone: tzinfo = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            zone = timezone(timedelta(minutes=_offset(data)))
        return cls(name, zone, data.get("theme") == "dark", bool(data.get("narrow")))

    def local(self, at: datetime) -> datetime:
        """The moment on the viewer's clock."""
        return at.astimezone(self.zone)

    def time(self, at: datetime | None, *, now: datetime | None = None) -> str:
        """``14:03:22`` today, ``21 Nov 14:03`` on other days, in the viewer's zone."""
        if at is None:
            return NONE
        local = self.local(at)
        today = self.local(now or datetime.now(timezone.utc)).date()
        return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%d %b %H:%M}"

    def moment(self, at: datetime) -> str:
        """``22 Nov 2026 14:03:22 UTC+01:00``: the moment in full, in the viewer's zone."""
        offset = f"{self.local(at):%z}"
        return f"{self.local(at):%d %b %Y %H:%M:%S} UTC{offset[:3]}:{offset[3:5]}"

    def plot_time(self, at: datetime) -> str:
        """The moment as the plots take it: local, without an offset (they ignore offsets)."""
        return self.local(at).replace(tzinfo=None).isoformat(timespec="milliseconds")

    def zone_label(self, at: datetime | None = None) -> str:
        """``Europe/Berlin (UTC+01:00)``."""
        offset = f"{self.local(at or datetime.now(timezone.utc)):%z}"
        return f"{self.zone_name} (UTC{offset[:3]}:{offset[3:5]})"


def _offset(data: Mapping[str, Any]) -> int:
    offset = data.get("offset_min")
    return int(offset) if isinstance(offset, (int, float)) and abs(offset) <= 1080 else 0
