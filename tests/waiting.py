"""Waiting for a condition, with an end: for tests of what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from backend.domain.knobs import KnobValue
from backend.protocols import TargetDatabase

T = TypeVar("T")


def eventually(
    look: Callable[[], T | None], what: str, timeout_s: float = 30.0, poll_s: float = 0.05
) -> T:
    """Look again and again until ``look`` returns something true; returns that.

    Raises:
        AssertionError: it did not within ``timeout_s``.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(poll_s)


def set_and_wait(target: TargetDatabase, name: str, value: KnobValue) -> None:
    """Write an entry, activate it and wait until it is in effect."""
    target.write_entries({name: value})
    target.reload()
    eventually(lambda: target.read_knobs([name])[name].value == value, f"{name} = {value}")
