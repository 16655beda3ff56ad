"""Query steering in numbers: how many classes stand where, and what it does in service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from backend.domain.service_latency import ClassService, service_latency
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringState,
    SteeringStatusRecord,
)
from backend.protocols import SteeringReader

LIVES_S = 20.0
MOST_RECORDS = 10_000
SHORTEST_S = 300.0
"""A rate an hour is told of no shorter time."""


EXPLORED = (SteeringState.VERIFIED, SteeringState.WITHDRAWN, SteeringState.DEFAULT_BEST)


@dataclass(frozen=True)
class ClassCounts:
    """How many query classes are known, explored to the end, steered now, withdrawn."""

    known: int
    explored: int
    steered: int
    withdrawn: int


def class_counts(
    classes: Sequence[SteeredClassRecord], status: SteeringStatusRecord | None
) -> ClassCounts:
    """Count the classes; how many are steered now, the status knows best: it may be none."""
    return ClassCounts(
        known=len(classes),
        explored=sum(r.state in EXPLORED for r in classes),
        steered=status.served if status is not None else 0,
        withdrawn=sum(r.state is SteeringState.WITHDRAWN for r in classes),
    )


@dataclass(frozen=True)
class SavedTime:
    """Seconds that clients waited less, an hour: the estimate, and what is proven at least.

    Both are means over the last ``lasted_s``.
    """

    estimate_s: float
    at_least_s: float
    lasted_s: float


@dataclass(frozen=True)
class InService:
    """What applications saw of each class since its hint set was verified."""

    classes: Mapping[ClassKey, ClassService] = field(default_factory=dict)

    @property
    def saved(self) -> SavedTime | None:
        """Over all classes that both plans ran of often enough; None where nothing is proven.

        The steered time divided by its ratio to the default plan is what it would have been. The
        bounds of all classes hold together, so their sum bounds the whole.
        """
        known = [(s, s.ratio) for s in self.classes.values() if s.ratio is not None]
        if not known:
            return None
        lasted_s = (
            max(s.ended_at for s, _ratio in known) - min(s.began_at for s, _ratio in known)
        ).total_seconds()
        if lasted_s < SHORTEST_S:
            return None

        def saved_s(service: ClassService, change: float) -> float:
            steered_s = service.steered.executions * (service.steered.mean_ms or 0.0) / 1000
            return steered_s * (1 / (1 + change) - 1) * 3600 / lasted_s

        at_least_s = sum(saved_s(service, ratio.high) for service, ratio in known)
        if at_least_s <= 0:
            return None
        estimate_s = sum(saved_s(service, ratio.effect) for service, ratio in known)
        return SavedTime(estimate_s, at_least_s, lasted_s)


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class ServiceMemory:
    """Reads the timings and computes with them, at most once in ``LIVES_S``.

    Args:
        reader: the store itself; what is read here must not fill the pages' cache.
        clock: monotonic seconds.
        now: the moment, aware.
    """

    def __init__(
        self,
        reader: SteeringReader,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._reader, self._clock, self._now = reader, clock, now
        self._lock = threading.Lock()
        self._count_from: dict[ClassKey, tuple[HintEvidence, datetime]] = {}
        self._read_at_s = float("-inf")
        self._known = InService()

    def recall(self) -> InService:
        """What is known.

        Raises:
            StoreError: the store could not be read.
        """
        with self._lock:
            if self._clock() - self._read_at_s >= LIVES_S:
                self._known = InService(service_latency(self._timings()))
                self._read_at_s = self._clock()
            return self._known

    def _timings(self) -> Iterator[ServiceTimingRecord]:
        """The newest ones, of each class those under the hint set that stands, as it stands."""
        now = self._now()
        self._count_from = {
            r.key: (r.evidence, self._begin(r.key, r.evidence, now))
            for r in self._reader.steered_classes()
            if r.evidence is not None
        }
        for timing in self._reader.service_timings(limit=MOST_RECORDS):
            evidence, begin = self._count_from.get(timing.key, (None, now))
            if (
                evidence is not None
                and timing.hint_set == evidence.hint_set
                and timing.started_at >= begin
            ):
                yield timing

    def _begin(self, key: ClassKey, evidence: HintEvidence, now: datetime) -> datetime:
        """From when on timings count: since it was verified, if that is not yet to come.

        Where the clock was set back since, what is measured from then on counts all the same: the
        tuner judges by that, too.
        """
        seen, begin = self._count_from.get(key, (evidence, evidence.verified_at))
        return min(begin if seen == evidence else evidence.verified_at, now)
