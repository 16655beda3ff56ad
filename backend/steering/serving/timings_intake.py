"""What plug-ins reported of steered classes: taken from their spool, checked, counted once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from backend.domain.service_latency import LAST_BUCKET, merged
from backend.domain.steering import ClassKey, ServiceTimingRecord
from backend.steering.client import ClassTimings, Report, bucket_start_s, take_spool

_REPORTS_REMEMBERED = 20_000
_ROUNDING = 1e-6


class TimingsIntake:
    """Gathers reports until they are recorded.

    Applications write the spool, so nothing in it is taken on trust: what belongs to no hint set
    that stands, or cannot be, is left out.

    Args:
        spool: the file.
        is_known: whether a hint set's name belongs to a class.
    """

    def __init__(self, spool: Path, is_known: Callable[[ClassKey, str], bool]) -> None:
        self._spool, self._is_known = spool, is_known
        self._gathered: dict[tuple[ClassKey, str, str], list[ClassTimings]] = {}
        self._counted: OrderedDict[tuple[str, int], None] = OrderedDict()

    def take(self) -> int:
        """Take what lies in the spool.

        Returns:
            How many lines were no reports, or held timings that cannot be.

        Raises:
            OSError: the spool cannot be read or taken away.
        """
        reports, broken = take_spool(self._spool)
        for report in reports:
            if self._is_new(report):
                broken += not self._gather(report.classes)
        return broken

    def _is_new(self, report: Report) -> bool:
        """Whether it was not counted yet, as far as is remembered."""
        name = (report.writer, report.sequence)
        if name in self._counted:
            return False
        self._counted[name] = None
        if len(self._counted) > _REPORTS_REMEMBERED:
            self._counted.popitem(last=False)
        return True

    def _gather(self, classes: Iterable[ClassTimings]) -> bool:
        """Gather what belongs here; False where something cannot be."""
        possible = True
        for timings in classes:
            key = ClassKey(timings.fingerprint, timings.search_path)
            if not _can_be(timings):
                possible = False
            elif self._is_known(key, timings.hint_set):
                group = (key, timings.hint_set, timings.arm)
                self._gathered.setdefault(group, []).append(timings)
        return possible

    def records(self, started_at: datetime, ended_at: datetime) -> list[ServiceTimingRecord]:
        """What was gathered, one record a class, hint set and arm."""
        return [
            merged([_record(key, timings, started_at, ended_at) for timings in gathered])
            for (key, _, _), gathered in sorted(self._gathered.items())
        ]

    def forget(self) -> None:
        """What was gathered is recorded."""
        self._gathered.clear()


def _can_be(timings: ClassTimings) -> bool:
    if any(not 0 <= bucket <= LAST_BUCKET for bucket in timings.buckets):
        return False
    if sum(timings.buckets.values()) != timings.executions:
        return False
    shortest = sum(bucket_start_s(b) * n for b, n in timings.buckets.items() if b > 0)
    longest = sum(bucket_start_s(b + 1) * n for b, n in timings.buckets.items())
    return shortest * (1 - _ROUNDING) <= timings.total_s <= longest * (1 + _ROUNDING)


def _record(
    key: ClassKey, timings: ClassTimings, started_at: datetime, ended_at: datetime
) -> ServiceTimingRecord:
    return ServiceTimingRecord(
        started_at=started_at,
        ended_at=ended_at,
        key=key,
        hint_set=timings.hint_set,
        arm=timings.arm,
        executions=timings.executions,
        total_s=timings.total_s,
        cancelled=timings.cancelled,
        failed=timings.failed,
        buckets=dict(timings.buckets),
    )
