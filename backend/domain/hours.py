"""Hours of the week in which something may happen: ``Mon-Fri 01:00-05:00 Europe/Berlin``.

What counts is what a clock on the wall of that place shows. So where clocks go back, an hour of
theirs comes twice and counts twice; where they go forward, what lies in the hour that is left out
does not come that day.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
EVERY_DAY = "daily"
_SPAN = re.compile(
    r"(?:(?P<days>[A-Za-z,-]+) +)?"
    r"(?P<begin>\d{1,2}:\d{2})-(?P<end>\d{1,2}:\d{2})"
    r"(?: +(?P<zone>[A-Za-z0-9_+/-]{1,60}))?"
)
_DAY_MIN = 24 * 60
_AHEAD = timedelta(days=15)
"""So far is looked for the next change: a week, and one more where clocks left hours out."""


@dataclass(frozen=True)
class Span:
    """Some hours of some weekdays.

    Args:
        days: of the week on which it begins, 0 for Monday.
        begin_min, end_min: minutes of the day, the end excluded; an end that is not behind the
            beginning is on the next day.
        zone: IANA name of the time zone.
    """

    days: frozenset[int]
    begin_min: int
    end_min: int
    zone: str

    @classmethod
    def parse(cls, text: str) -> Span:
        """Read ``[days] HH:MM-HH:MM [zone]``; without days every day, without a zone UTC.

        Raises:
            ValueError: it is none; the message says why.
        """
        shown = f"{text!r:.80}"
        match = _SPAN.fullmatch(text.strip()) if len(text) <= 200 else None
        if match is None:
            raise ValueError(f"{shown} is not like 'Mon-Fri 01:00-05:00 Europe/Berlin'")
        begin, end = (_minute(match[part], shown) for part in ("begin", "end"))
        if begin in (end, _DAY_MIN):
            raise ValueError(f"{shown} begins and ends at once; a whole day is 00:00-24:00")
        zone = match["zone"] or "UTC"
        try:
            ZoneInfo(zone)
        except Exception:  # missing, malformed, a folder: each in its own way
            raise ValueError(
                f"{shown}: there is no time zone {zone} on this machine (names are like "
                "Europe/Berlin; they come with the package tzdata)"
            ) from None
        return cls(_days(match["days"] or EVERY_DAY, shown), begin, end, zone)

    def is_open(self, moment: datetime) -> bool:
        """Whether a clock on the wall shows one of these hours then; ``moment`` is aware."""
        local = moment.astimezone(ZoneInfo(self.zone))
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.begin_min < self.end_min:
            return day in self.days and self.begin_min <= minute < self.end_min
        begun_today = day in self.days and minute >= self.begin_min
        return begun_today or ((day - 1) % 7 in self.days and minute < self.end_min)

    def turns(self, since: datetime) -> Iterator[datetime]:
        """Moments of the next days at which it may open or close, in no order."""
        zone = ZoneInfo(self.zone)
        midnight = since.astimezone(zone).replace(
            hour=0, minute=0, second=0, microsecond=0, tzinfo=None
        )
        for day in range(-1, _AHEAD.days + 1):
            for minute in (self.begin_min, self.end_min):
                wall = midnight + timedelta(days=day, minutes=minute)
                for fold in (0, 1):
                    yield wall.replace(tzinfo=zone, fold=fold).astimezone(timezone.utc)
        yield from _clock_changes(zone, since)


@dataclass(frozen=True)
class Hours:
    """Some spans of hours, of which one is enough; none at all: always."""

    spans: tuple[Span, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Hours:
        """Read each; raises ValueError as :meth:`Span.parse` does."""
        return cls(tuple(Span.parse(text) for text in texts))

    def is_open(self, moment: datetime) -> bool:
        """Whether ``moment`` (aware) lies in one of them."""
        return not self.spans or any(span.is_open(moment) for span in self.spans)


def are_open(together: tuple[Hours, ...], moment: datetime) -> bool:
    """Whether ``moment`` lies in all of these hours."""
    return all(hours.is_open(moment) for hours in together)


def next_change(together: tuple[Hours, ...], moment: datetime) -> datetime | None:
    """When all of these hours next open together, or close; None: not within two weeks."""
    return _next_change(together, moment.replace(second=0, microsecond=0))


@functools.lru_cache(maxsize=256)
def _next_change(together: tuple[Hours, ...], minute: datetime) -> datetime | None:
    # Hours begin and end with a minute, so all of a minute has the same answer.
    now = are_open(together, minute)
    turns = {turn for hours in together for span in hours.spans for turn in span.turns(minute)}
    later = (turn for turn in sorted(turns) if turn > minute)
    return next((turn for turn in later if are_open(together, turn) is not now), None)


def _minute(text: str, shown: str) -> int:
    hour, minute = (int(part) for part in text.split(":"))
    total = 60 * hour + minute
    if minute > 59 or total > _DAY_MIN:
        raise ValueError(f"{shown}: there is no time {text}; from 00:00 to 24:00")
    return total


def _days(text: str, shown: str) -> frozenset[int]:
    if text.lower() == EVERY_DAY:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin = _day(first, shown)
        end = _day(last, shown) if last else begin
        found |= {day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0))}
    return frozenset(found)


def _day(text: str, shown: str) -> int:
    try:
        return WEEKDAYS.index(text.capitalize())
    except ValueError:
        raise ValueError(
            f"{shown}: {text!r} is no day; {', '.join(WEEKDAYS)} or {EVERY_DAY}"
        ) from None


def _clock_changes(zone: ZoneInfo, since: datetime) -> Iterator[datetime]:
    """When clocks of the zone go forward or back in the next days."""
    hour, end = since.astimezone(timezone.utc), since + _AHEAD
    step = timedelta(hours=6)
    while hour < end:
        if _offset(zone, hour) != _offset(zone, hour + step):
            before, after = hour, hour + step
            while after - before > timedelta(minutes=1):
                middle = (before + (after - before) / 2).replace(second=0, microsecond=0)
                if _offset(zone, middle) == _offset(zone, before):
                    before = middle
                else:
                    after = middle
            yield after
        hour += step


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()
