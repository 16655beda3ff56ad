"""Values for people."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from dashboard import format as fmt
from dashboard.format import Viewer

NBSP = "\u00a0"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4096, "kB", f"4{NBSP}MB"),
        (16384, "8kB", f"128{NBSP}MB"),
        (1536, "kB", f"1.5{NBSP}MB"),
        (300, "s", f"5{NBSP}min"),
        (200, "ms", f"200{NBSP}ms"),
        (-1, "8kB", "-1"),
        (0, "kB", f"0{NBSP}B"),
        (1.1, None, "1.1"),
        (True, None, "on"),
        ("zstd", None, "zstd"),
        (None, "kB", fmt.NONE),
    ],
)
def test_knob_values_are_written_in_the_unit_that_reads_best(value, unit, text):
    assert fmt.knob_value(value, unit) == text


def test_a_native_value_says_what_it_is_exactly():
    assert fmt.knob_value(16384, "8kB", native=True) == f"128{NBSP}MB (16384{NBSP}×{NBSP}8kB)"


@pytest.mark.parametrize(
    ("before", "after", "unit", "texts"),
    [
        (65536, 131072, "kB", (f"64{NBSP}MB", f"128{NBSP}MB")),
        (65536, 65538, "kB", (f"65536{NBSP}kB", f"65538{NBSP}kB")),
        (16384, 16385, "8kB", (f"16384{NBSP}×{NBSP}8kB", f"16385{NBSP}×{NBSP}8kB")),
        (0.1, 0.1000000001, None, ("0.1", "0.1000000001")),
        (None, 4096, "kB", ("unset", f"4{NBSP}MB")),
        (4096, 4096, "kB", (f"4{NBSP}MB", f"4{NBSP}MB")),
        (-1, 512, "8kB", ("-1", f"4{NBSP}MB")),
    ],
)
def test_two_values_that_differ_never_read_alike(before, after, unit, texts):
    assert fmt.knob_change(before, after, unit, none="unset") == texts


@pytest.mark.parametrize(
    ("text", "unit", "native"),
    [
        ("64MB", "kB", 65536),
        ("64 mb", "kB", 65536),
        ("128MB", "8kB", 16384),
        ("5min", "s", 300),
        ("1.5", None, 1.5),
        ("4096", "kB", 4096),
        ("5min", "kB", "5min"),
        ("lots", "kB", "lots"),
        ("1e400", "kB", float("inf")),
    ],
)
def test_typed_quantities_become_native_values(text, unit, native):
    assert fmt.parse_knob_text(text, unit) == native


@pytest.mark.parametrize(
    ("share", "signed", "text"),
    [
        (-0.274, True, f"\u221227.4{NBSP}%"),
        (0.05, True, f"+5.0{NBSP}%"),
        (0.0001, True, f"0.0{NBSP}%"),
        (0.05, False, f"5.0{NBSP}%"),
        (None, True, fmt.NONE),
        (float("nan"), True, fmt.NONE),
    ],
)
def test_percentages(share, signed, text):
    assert fmt.percent(share, signed=signed) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.25, f"4.2{NBSP}s"),
        (300, f"5{NBSP}min"),
        (3725, f"1{NBSP}h 02{NBSP}min"),
        (90_000, f"1{NBSP}d 01{NBSP}h"),
        (None, fmt.NONE),
    ],
)
def test_durations(seconds, text):
    assert fmt.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.4, f"400{NBSP}µs"), (12.34, f"12.3{NBSP}ms"), (2500, f"2.5{NBSP}s")]
)
def test_milliseconds(value, text):
    assert fmt.ms_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12345.6, "12\u202f346"),
        (0.0123, "0.0123"),
        (6e-6, "6.00e-06"),
        (float("inf"), fmt.NONE),
        (-2.5, "-2.5"),
    ],
)
def test_numbers(value, text):
    assert fmt.number(value) == text


def test_times_are_in_the_viewers_zone():
    viewer = Viewer.from_browser({"zone": "Europe/Berlin", "theme": "dark", "narrow": True})
    at = datetime(2026, 1, 5, 12, 0, tzinfo=timezone.utc)
    assert viewer.time(at, now=at) == "13:00:00"
    assert viewer.time(at, now=datetime(2026, 1, 7, tzinfo=timezone.utc)) == "05 Jan 13:00"
    assert viewer.plot_time(at) == "2026-01-05T13:00:00.000"
    assert viewer.zone_label(at) == "Europe/Berlin (UTC+01:00)"
    assert viewer.dark
    assert viewer.narrow


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {"zone": "../../etc/passwd"},
        {"zone": 7},
        {"zone": "No/Where"},
        {"zone": "No/Where", "offset_min": "soon"},
        {"zone": "No/Where", "offset_min": 1e9},
    ],
)
def test_an_odd_browser_falls_back_to_utc(data):
    viewer = Viewer.from_browser(data)
    at = datetime(2026, 1, 5, 12, 0, tzinfo=timezone.utc)
    assert viewer.time(at, now=at) == "12:00:00"


def test_an_unknown_zone_uses_the_browsers_offset():
    viewer = Viewer.from_browser({"zone": "No/Where", "offset_min": 330})
    at = datetime(2026, 1, 5, 12, 0, tzinfo=timezone.utc)
    assert viewer.time(at, now=at) == "17:30:00"


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.95, "95"), (0.995, "99.5"), (0.9995, "99.95"), (0.99997, "over 99.99"), (0.9, "90")],
)
def test_an_interval_is_never_certain(share: float, shown: str) -> None:
    assert fmt.confidence(share) == f"{shown}\u00a0%"
