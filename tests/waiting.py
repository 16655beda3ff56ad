"""Waiting: for a condition, with an end, and on a clock that is turned by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from backend.domain.clock import ManualClock
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


class Passing(threading.Event):
    """Time passes on the clock whenever somebody waits."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.sleep(timeout or 0.0)
        return self.is_set()
