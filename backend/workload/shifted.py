"""Arrivals of clients who turn to other work for a while."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile, takewhile

from backend.workload.schedule import Arrival, ArrivalSchedule


@dataclass(frozen=True)
class ShiftedSchedule:
    """One schedule, and another one in its place from ``from_s`` to ``until_s`` (real seconds).

    Both are frozen by their seeds, and so is the whole: what is not offered is left out, never
    moved.
    """

    usual: ArrivalSchedule
    other: ArrivalSchedule
    from_s: float
    until_s: float

    def __iter__(self) -> Iterator[Arrival]:
        """Yield arrivals in time order, without end."""
        outside = (a for a in self.usual if not self.from_s <= a.offset_s < self.until_s)
        later = dropwhile(lambda a: a.offset_s < self.from_s, self.other)
        inside = takewhile(lambda a: a.offset_s < self.until_s, later)
        return heapq.merge(outside, inside, key=lambda arrival: arrival.offset_s)
