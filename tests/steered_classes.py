"""Query classes, what was proven for them, how they did in service, and a store in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from backend.domain.records import EventRecord, QueryClassRecord
from backend.domain.steering import (
    ClassKey,
    HintEvidence,
    ServiceTimingRecord,
    SteeredClassRecord,
)
from backend.errors import StoreError
from backend.steering.client import ClassTimings
from backend.steering.client.timings import bucket_of

START = datetime(2026, 1, 5, 8, tzinfo=timezone.utc)
KEY = ClassKey("0123456789abcdef", '"$user", public')
OTHER_KEY = ClassKey("fedcba9876543210", '"$user", public')
HINT_SET = "no_nestloop"


def evidence(**others: Any) -> HintEvidence:
    """A hint set that halved the time."""
    arguments: dict[str, Any] = {
        "hint_set": HINT_SET,
        "settings": {"enable_nestloop": "off"},
        "under": {"enable_nestloop": "on"},
        "functions": ("count",),
        "statements": 3,
        "pairs": 12,
        "effect": -0.5,
        "ci_low": -0.6,
        "ci_high": -0.4,
        "confidence": 0.995,
        "default_ms": 20.0,
        "steered_ms": 10.0,
        "default_plan": "Nested Loop",
        "steered_plan": "Hash Join",
        "verified_at": START,
    }
    return HintEvidence(**{**arguments, **others})


def histogram(times_s: Iterable[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for time_s in times_s:
        bucket = bucket_of(time_s)
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def timing(
    arm: str, times_s: Sequence[float], began: datetime = START, **others: Any
) -> ServiceTimingRecord:
    """A minute of one arm."""
    arguments: dict[str, Any] = {
        "started_at": began,
        "ended_at": began + timedelta(minutes=1),
        "key": KEY,
        "hint_set": HINT_SET,
        "arm": arm,
        "executions": len(times_s),
        "total_s": float(sum(times_s)),
        "buckets": histogram(times_s),
    }
    return ServiceTimingRecord(**{**arguments, **others})


def class_timings(arm: str, times_s: Sequence[float], **others: Any) -> ClassTimings:
    """The same, as a plug-in reports it."""
    arguments: dict[str, Any] = {
        "fingerprint": KEY.fingerprint,
        "search_path": KEY.search_path,
        "hint_set": HINT_SET,
        "arm": arm,
        "executions": len(times_s),
        "total_s": float(sum(times_s)),
        "buckets": histogram(times_s),
    }
    return ClassTimings(**{**arguments, **others})


class MemoryStore:
    """The part of a store that steering needs; fails while ``broken``."""

    def __init__(self) -> None:
        self.classes: dict[ClassKey, SteeredClassRecord] = {}
        self.timings: list[ServiceTimingRecord] = []
        self.events: list[EventRecord] = []
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise StoreError("the store is locked")

    def steered_classes(self) -> Sequence[SteeredClassRecord]:
        return [self.classes[key] for key in sorted(self.classes)]

    def save_steered_classes(self, classes: Sequence[SteeredClassRecord]) -> None:
        self._check()
        self.classes.update({record.key: record for record in classes})

    def delete_steered_classes(self, keys: Sequence[ClassKey]) -> None:
        self._check()
        for key in keys:
            self.classes.pop(key, None)

    def add_service_timings(self, timings: Sequence[ServiceTimingRecord]) -> None:
        self._check()
        self.timings.extend(timings)

    def service_timings(
        self, *, since: datetime | None = None, limit: int = 10_000
    ) -> Sequence[ServiceTimingRecord]:
        found = [t for t in self.timings if since is None or t.ended_at >= since]
        return found[-limit:]

    def query_classes(self) -> Mapping[str, QueryClassRecord]:
        return {}

    def add_event(self, event: EventRecord) -> int:
        self._check()
        self.events.append(event)
        return len(self.events)

    def told(self) -> list[tuple[str, str]]:
        """Level and kind of each event."""
        return [(event.level, event.kind) for event in self.events]


def counted(timings: Iterable[ServiceTimingRecord]) -> Mapping[str, int]:
    """Executions by arm."""
    found: dict[str, int] = {}
    for record in timings:
        found[record.arm] = found.get(record.arm, 0) + record.executions
    return found
