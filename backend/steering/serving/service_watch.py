"""Remembers the timings that count of each class, and finds hint sets that no longer pay."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from backend.domain.service_latency import hourly
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.steering.serving.paying import Withdrawal, judge, level, since_verified

CHECK_AGAIN_EVERY = timedelta(days=1)
"""A class is sent to be verified again, without a proof, so often at the most."""


class ServiceWatch:
    """Judges the served classes by all their timings since they were verified.

    Args:
        min_gain: smallest relative gain that is worth steering, in (0, 1).
        timings: of an earlier process.
    """

    def __init__(self, min_gain: float, timings: Iterable[ServiceTimingRecord] = ()) -> None:
        self._min_gain = min_gain
        self._timings: dict[ClassKey, list[ServiceTimingRecord]] = _by_class(timings)
        self._checked_again: dict[ClassKey, datetime] = {}
        self._counts_from: dict[ClassKey, tuple[HintEvidence, datetime]] = {}

    def judge(
        self,
        classes: Iterable[SteeredClassRecord],
        timings: Iterable[ServiceTimingRecord],
        now: datetime,
    ) -> Iterator[tuple[SteeredClassRecord, HintEvidence, Withdrawal]]:
        """Which hint sets must go.

        Pinned classes are a human's to judge.

        Args:
            classes: all that are known.
            timings: new ones.
            now: the present moment.
        """
        new = _by_class(timings)
        proven = [
            (record, self._as_dated(record.key, record.evidence, now))
            for record in classes
            if record.evidence is not None
        ]
        # What does not count any more goes before the rest is merged: an hour may hold both.
        self._timings = {
            record.key: hourly(
                since_verified(
                    [*self._timings.get(record.key, ()), *new.get(record.key, ())], evidence, now
                )
            )
            for record, evidence in proven
        }
        served = [
            (record, evidence)
            for record, evidence in proven
            if record.mode is SteeringMode.AUTO and record.state is SteeringState.VERIFIED
        ]
        levels = {
            record.key: found
            for record, evidence in served
            if (found := level(evidence, self._timings[record.key])) is not None
        }
        for record, evidence in served:
            if record.key not in new:
                continue
            withdrawal = judge(
                evidence,
                self._timings[record.key],
                min_gain=self._min_gain,
                load=_load(levels, record.key),
            )
            if (
                withdrawal is not None
                and self._may(withdrawal, record.key, now)
                and record.evidence is not None
            ):
                yield record, record.evidence, withdrawal

    def _as_dated(self, key: ClassKey, evidence: HintEvidence, now: datetime) -> HintEvidence:
        """The evidence, dated at the moment from which timings count.

        A clock that was ahead while it was verified is set right one day: what is measured from
        then on counts, and not only once that moment has come again.
        """
        seen, begin = self._counts_from.get(key, (evidence, evidence.verified_at))
        if seen != evidence:
            begin = evidence.verified_at
        begin = min(begin, now)
        self._counts_from[key] = evidence, begin
        return replace(evidence, verified_at=begin)

    def _may(self, withdrawal: Withdrawal, key: ClassKey, now: datetime) -> bool:
        if not withdrawal.check_again:
            return True
        last = self._checked_again.get(key)
        if last is not None and timedelta(0) <= now - last < CHECK_AGAIN_EVERY:
            return False
        self._checked_again[key] = now
        return True


def _by_class(
    timings: Iterable[ServiceTimingRecord],
) -> dict[ClassKey, list[ServiceTimingRecord]]:
    found: dict[ClassKey, list[ServiceTimingRecord]] = {}
    for timing in timings:
        found.setdefault(timing.key, []).append(timing)
    return found


def _load(levels: Mapping[ClassKey, float], key: ClassKey) -> float:
    """How much slower the other classes are than when they were verified: their median."""
    others: Sequence[float] = [found for other, found in levels.items() if other != key]
    return statistics.median(others) if others else 1.0
