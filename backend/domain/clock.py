"""Clocks: the machine's, and one that tests turn by hand. Both are a ``protocols.Clock``."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone


class SystemClock:
    """The machine's own time."""

    def monotonic_s(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return datetime.now(timezone.utc)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class ManualClock:
    """Time that passes only when it is told to.

    Args:
        start: the first ``now()``, aware.
    """

    def __init__(self, start: datetime = datetime(2024, 1, 1, tzinfo=timezone.utc)) -> None:
        self._start = start
        self._elapsed_s = 0.0

    def monotonic_s(self) -> float:
        """Seconds that have passed since the clock was made."""
        return self._elapsed_s

    def now(self) -> datetime:
        """The present moment, aware, in UTC."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def sleep(self, seconds: float) -> None:
        """Let the time pass that somebody waits."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ValueError: time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back by {-seconds} s")
        self._elapsed_s += seconds
