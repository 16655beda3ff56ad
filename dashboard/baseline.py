"""The baseline of the run, remembered: after an hour it is older than the newest windows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.domain.modes import Phase
from backend.domain.records import ClientIntervalRecord, StatusRecord, WindowRecord
from backend.protocols import TelemetryReader

MOST_RECORDS = 100_000
"""More windows or intervals than a run leaves in the store; they are read once."""


@dataclass(frozen=True)
class Baseline:
    """The windows of the baseline and the clients' intervals from its first to its last."""

    windows: Sequence[WindowRecord] = ()
    intervals: Sequence[ClientIntervalRecord] = ()

    def before(
        self, windows: Sequence[WindowRecord], intervals: Sequence[ClientIntervalRecord]
    ) -> tuple[list[WindowRecord], list[ClientIntervalRecord]]:
        """Put what the newest records no longer hold of the baseline in front of them."""
        return (
            [w for w in self.windows if not windows or w.ended_at <= windows[0].started_at]
            + list(windows),
            [i for i in self.intervals if not intervals or i.ended_at <= intervals[0].started_at]
            + list(intervals),
        )


class BaselineMemory:
    """Reads a run's baseline once, when it is over.

    Args:
        reader: the store itself; what is read here must not fill the pages' cache.
    """

    def __init__(self, reader: TelemetryReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._run: datetime | None = None
        self._known = Baseline()

    def recall(self, status: StatusRecord | None) -> Baseline:
        """The baseline of the present run; empty as long as it goes on, or where there is none."""
        if (
            status is None
            or status.started_at is None
            or status.phase in (Phase.STARTING, Phase.BASELINE)
        ):
            return Baseline()
        with self._lock:
            if status.started_at != self._run:
                self._known = self._read(status.started_at)
                self._run = status.started_at
            return self._known

    def _read(self, began: datetime) -> Baseline:
        rows = self._reader.windows(since=began, limit=MOST_RECORDS)
        windows = [w for w in rows if w.phase is Phase.BASELINE]
        if not windows:
            return Baseline()
        first, last = windows[0].started_at, windows[-1].ended_at
        intervals = self._reader.client_intervals(since=first, limit=MOST_RECORDS)
        return Baseline(windows, [i for i in intervals if i.ended_at <= last])
