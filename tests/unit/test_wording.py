"""Values, numbers and durations as people write them."""

from __future__ import annotations

import math

import pytest

from backend.telemetry import wording


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (16384, "8kB", "128 MB"), (4096, "kB", "4 MB"), (1536, "MB", "1.5 GB"), (100, "B", "100 B"),
        (-1, "8kB", "-1"), (0, "kB", "0"), (300, "s", "5 min"), (1500, "ms", "1.5 s"),
        (0.5, "ms", "500 us"), (True, None, "on"), (False, "kB", "off"), (1.1, None, "1.1"),
        ("lz4", None, "lz4"), (None, "kB", "no entry"), (7, "files", "7 files"),
    ],
)  # fmt: skip
def test_knob_values_as_people_write_them(value: object, unit: str | None, text: str) -> None:
    assert wording.knob_text(value, unit) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1.00"), (0.7261, "0.726"), (12345.6, "12,346"), (0.000123, "0.000123"),
        (-2.5, "-2.50"), (None, "–"), (math.nan, "–"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7200, "2 h"), (90000, "1 d 1 h"), (None, "–")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text
