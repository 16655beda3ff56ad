"""How long steered and default executions took at the client, in small histograms.

Bucket i holds times of at least 2^(i/8) and less than 2^((i+1)/8) microseconds, so a quantile read
from it is at most 9 % off; bucket 0 holds all that is shorter.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from .table import SteeringEntry

BUCKETS_PER_OCTAVE = 8
MAX_WAITING = 65_536
"""Executions between two reports; of more than that, the oldest are forgotten."""

Outcome = Literal["done", "cancelled", "failed"]


def bucket_of(seconds: float) -> int:
    """The bucket of a time."""
    return max(0, math.floor(BUCKETS_PER_OCTAVE * math.log2(max(seconds, 1e-9) * 1e6)))


def bucket_start_s(bucket: int) -> float:
    """The shortest time of a bucket (but 0), in seconds."""
    return float(2 ** (bucket / BUCKETS_PER_OCTAVE) * 1e-6)


@dataclass(frozen=True)
class ClassTimings:
    """What one class did under one arm since the last report.

    Args:
        fingerprint, search_path, hint_set: of the entry that the class has in the table.
        arm: ``steered``: its settings were sent with the statement (and used, unless the session
            had others than the entry says); ``default``: the statement alone.
        executions: those that ended well.
        total_s: their times together, in seconds, from handing the statement to the driver
            until its rows were at the client.
        cancelled: those that ran into a time-out or were cancelled.
        failed: those that ended with another error.
        buckets: bucket -> executions.
    """

    fingerprint: str
    search_path: str
    hint_set: str
    arm: Literal["default", "steered"]
    executions: int = 0
    total_s: float = 0.0
    cancelled: int = 0
    failed: int = 0
    buckets: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))


class Recorder:
    """Collects executions; adding takes no lock, so no statement ever waits for a report."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[SteeringEntry, bool, Outcome, float]] = deque(maxlen=MAX_WAITING)

    def add(self, entry: SteeringEntry, steered: bool, outcome: Outcome, seconds: float) -> None:
        """Note one execution."""
        self._waiting.append((entry, steered, outcome, seconds))

    def take(self) -> list[ClassTimings]:
        """What was noted since the last call."""
        sums: dict[tuple[str, str, str, bool], _Sums] = {}
        with contextlib.suppress(IndexError):  # it is empty, or another thread takes too
            while True:
                entry, steered, outcome, seconds = self._waiting.popleft()
                key = (entry.fingerprint, entry.search_path, entry.hint_set, steered)
                sums.setdefault(key, _Sums()).add(outcome, seconds)
        return [
            ClassTimings(
                *key[:3],
                arm="steered" if key[3] else "default",
                executions=found.executions,
                total_s=found.total_s,
                cancelled=found.cancelled,
                failed=found.failed,
                buckets=MappingProxyType(found.buckets),
            )
            for key, found in sums.items()
        ]


@dataclass
class _Sums:
    executions: int = 0
    total_s: float = 0.0
    cancelled: int = 0
    failed: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, outcome: Outcome, seconds: float) -> None:
        if outcome == "cancelled":
            self.cancelled += 1
        elif outcome == "failed":
            self.failed += 1
        else:
            self.executions += 1
            self.total_s += seconds
            bucket = bucket_of(seconds)
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
