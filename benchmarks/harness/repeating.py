"""Arrivals that come again: common random numbers for everything that is compared.

What a statement costs depends on its parameters, on some so much that the dearest few of a window
decide its mean. Where every window holds the same statements, that is no difference between two
windows any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, takewhile

from backend.errors import WorkloadError
from backend.workload.schedule import Arrival


class Repeated:
    """The arrivals of a schedule's first ``period_s`` seconds, again and again, without end.

    Any stretch of that length holds the same statements, wherever it begins.

    Args:
        arrivals: in the order of time, without end.
        period_s: real seconds, above 0.

    Raises:
        WorkloadError: nothing arrives in that time.
    """

    def __init__(self, arrivals: Iterable[Arrival], period_s: float) -> None:
        self._period_s = period_s
        self._first = list(takewhile(lambda arrival: arrival.offset_s < period_s, arrivals))
        if not self._first:
            raise WorkloadError(
                f"no statement arrives in the {period_s:g} s that are to be repeated",
                remedy="a longer --window or a higher --rate",
            )

    def __iter__(self) -> Iterator[Arrival]:
        """Yield arrivals in time order, without end."""
        for turn in count():
            for arrival in self._first:
                yield replace(arrival, offset_s=turn * self._period_s + arrival.offset_s)
