"""Hours of the week: a moment is inside where the clock on the wall of that place says so."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.hours import WEEKDAYS, Hours, Span, are_open, next_change

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)  # type: ignore[arg-type]


def hours(*texts: str) -> Hours:
    return Hours.parse(texts)


def test_without_spans_it_is_always_open() -> None:
    assert Hours().is_open(utc(2026, 11, 22))
    assert next_change((Hours(),), utc(2026, 11, 22)) is None


@pytest.mark.parametrize(
    ("moment", "inside"),
    [
        (utc(2026, 11, 23, 0, 0), True),  # Monday, 01:00 in Berlin
        (utc(2026, 11, 22, 23, 59), False),
        (utc(2026, 11, 23, 3, 59), True),
        (utc(2026, 11, 23, 4, 0), False),  # the end is excluded
        (utc(2026, 11, 28, 1, 0), False),  # Saturday
        (utc(2026, 7, 6, 23, 0), True),  # in summer it begins at 23:00 UTC
        (utc(2026, 7, 6, 22, 59), False),
    ],
)
def test_nights_of_working_days(moment: datetime, inside: bool) -> None:
    assert hours("Mon-Fri 01:00-05:00 Europe/Berlin").is_open(moment) is inside


def test_a_night_over_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    night = hours("Fri 22:00-02:00")
    assert night.is_open(utc(2026, 11, 27, 22, 0))
    assert night.is_open(utc(2026, 11, 28, 1, 59))
    assert not night.is_open(utc(2026, 11, 27, 1, 0))


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("Mon 01:00-02:00", {0}),
        ("Sat,sun 01:00-02:00", {5, 6}),
        ("Fri-Mon 01:00-02:00", {4, 5, 6, 0}),
        ("Mon,Wed-Thu 01:00-02:00", {0, 2, 3}),
        ("daily 01:00-02:00", set(range(7))),
        ("1:00-2:00", set(range(7))),
    ],
)
def test_days_of_the_week(text: str, days: set[int]) -> None:
    assert Span.parse(text).days == days


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not like"),
        ("whenever", "is not like"),
        ("Mon 01:00", "is not like"),
        ("Moonday 01:00-02:00", "no day"),
        ("Mon--Fri 01:00-02:00", "no day"),
        ("Mon 25:00-26:00", "no time 25:00"),
        ("Mon 01:60-02:00", "no time 01:60"),
        ("Mon 24:01-02:00", "no time 24:01"),
        ("Mon 02:00-02:00", "at once"),
        ("Mon 24:00-02:00", "at once"),
        ("Mon 01:00-02:00 Mars/Olympus", "no time zone Mars/Olympus"),
        ("Mon 01:00-02:00 ../../etc/passwd", "is not like"),
        ("Mon 01:00-02:00 " + "x" * 5000, "is not like"),
    ],
)
def test_what_is_no_span_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Span.parse(text)


def test_the_hour_that_comes_twice_counts_twice() -> None:
    night = hours("daily 02:00-03:00 Europe/Berlin")  # clocks go back from 03:00 to 02:00
    assert [night.is_open(utc(2026, 10, 25, hour, 30)) for hour in (-0, 1, 2)] == [
        True,
        True,
        False,
    ]
    assert next_change((night,), utc(2026, 10, 25, 0, 30)) == utc(2026, 10, 25, 2, 0)


def test_the_hour_that_is_left_out_does_not_come() -> None:
    night = hours("daily 02:00-03:00 Europe/Berlin")  # clocks go forward from 02:00 to 03:00
    assert next_change((night,), utc(2026, 3, 28, 12, 0)) == utc(2026, 3, 30, 0, 0)
    longer = hours("daily 02:30-04:00 Europe/Berlin")
    assert next_change((longer,), utc(2026, 3, 28, 12, 0)) == utc(2026, 3, 29, 1, 0)
    assert next_change((longer,), utc(2026, 3, 29, 1, 0)) == utc(2026, 3, 29, 2, 0)


def test_a_weekly_hour_that_is_left_out_comes_a_week_later() -> None:
    weekly = hours("Sun 02:10-02:50 Europe/Berlin")
    assert next_change((weekly,), utc(2026, 3, 22, 12, 0)) == utc(2026, 4, 5, 0, 10)


def test_hours_together_are_open_where_all_of_them_are() -> None:
    together = (hours("Mon-Fri 01:00-05:00"), hours("daily 04:00-09:00"), Hours())
    assert not are_open(together, utc(2026, 11, 23, 2))
    assert next_change(together, utc(2026, 11, 23, 2)) == utc(2026, 11, 23, 4)
    assert next_change(together, utc(2026, 11, 23, 4, 30)) == utc(2026, 11, 23, 5)
    apart = (hours("Mon 01:00-02:00"), hours("Tue 01:00-02:00"))
    assert next_change(apart, utc(2026, 11, 23)) is None


BEGIN, END = datetime(2020, 1, 1), datetime(2030, 1, 1)  # noqa: DTZ001  (hypothesis adds the zone)
MOMENTS = st.datetimes(BEGIN, END, timezones=st.just(timezone.utc))
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]
)
TIMES = st.integers(0, 24 * 60 - 1)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    begin, end = draw(st.tuples(TIMES, TIMES).filter(lambda pair: pair[0] != pair[1]))
    days = draw(st.frozensets(st.integers(0, 6), min_size=1))
    return Span(days, begin, end, draw(ZONES))


@given(spans(), MOMENTS)
def test_a_moment_is_inside_iff_the_wall_clock_is(span: Span, moment: datetime) -> None:
    """In minutes of a week that begins on Monday: nothing of how it is worked out."""
    local = moment.astimezone(ZoneInfo(span.zone))
    day_min, week_min = 24 * 60, 7 * 24 * 60
    shown = local.weekday() * day_min + local.hour * 60 + local.minute
    lasts = (span.end_min - span.begin_min) % day_min
    begun = [day * day_min + span.begin_min for day in span.days]
    inside = any((shown - begin) % week_min < lasts for begin in begun)
    assert Hours((span,)).is_open(moment) is inside


@given(st.lists(spans(), min_size=1, max_size=3), MOMENTS)
def test_nothing_changes_before_the_next_change(some: list[Span], moment: datetime) -> None:
    together = tuple(Hours((span,)) for span in some)
    now, change = are_open(together, moment), next_change(together, moment)
    end = change or moment + timedelta(days=14)
    if change is not None:
        assert change > moment
        assert are_open(together, change) is not now
    probe = moment
    while probe < end:
        assert are_open(together, probe) is now
        probe += 37 * MINUTE
    assert are_open(together, end - MINUTE) is now or end - MINUTE < moment


@given(spans())
def test_a_span_is_what_its_text_says(span: Span) -> None:
    days = ",".join(WEEKDAYS[day] for day in span.days)
    begin, end = (f"{m // 60:02}:{m % 60:02}" for m in (span.begin_min, span.end_min))
    assert Span.parse(f"{days} {begin}-{end} {span.zone}") == span
