"""A reader that asks the store once a tick, however many pages and blocks want the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from backend.domain.experiment_plans import ExperimentPlanRecord, PromotionRecord
from backend.domain.policies import (
    EvolutionRecord,
    GenomeRecord,
    PolicyUpdateRecord,
    PolicyVersionRecord,
)
from backend.domain.records import (
    ChangeRecord,
    ClientIntervalRecord,
    CommandRecord,
    EventRecord,
    FreezeRecord,
    KnobStatusRecord,
    LearningRecord,
    QueryClassRecord,
    StatusRecord,
    TrialRecord,
    WindowRecord,
)
from backend.domain.steering import (
    PlanRunRecord,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringStatusRecord,
)
from backend.errors import AutopilotError, StoreError
from backend.protocols import TelemetryReader

T = TypeVar("T")


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    read_at_s: float = float("-inf")
    stamp: object = None
    value: Any = None


class CachedReader:
    """A TelemetryReader whose answers live ``ttl_s`` seconds; one thread reads, others wait.

    Every failure of the store arrives as StoreError, so that pages have one thing to catch.
    """

    MAX_ENTRIES = 200
    STAMPED_TTL_S = 30.0

    def __init__(
        self, reader: TelemetryReader, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[tuple[Any, ...], _Entry] = {}

    def _get(self, key: tuple[Any, ...], read: Callable[[], T], stamp: object = None) -> T:
        """The answer to ``key``: kept for the time to live, or while its ``stamp`` is the same."""
        with self._lock:
            if key not in self._entries and len(self._entries) >= self.MAX_ENTRIES:
                self._entries.clear()
            entry = self._entries.setdefault(key, _Entry())
        with entry.lock:
            fresh = self._clock() - entry.read_at_s < (
                self._ttl_s if stamp is None else self.STAMPED_TTL_S
            )
            if not (fresh and entry.stamp == stamp):
                try:
                    entry.value = read()
                except AutopilotError:
                    raise
                except Exception as error:
                    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                    raise StoreError(f"the store could not be read: {reason}") from error
                entry.read_at_s, entry.stamp = self._clock(), stamp
            return entry.value  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Read afresh next time (after a command was submitted)."""
        with self._lock:
            self._entries.clear()

    def status(self) -> StatusRecord | None:
        """See TelemetryReader."""
        return self._get(("status",), self._reader.status)

    def windows(
        self, *, since: datetime | None = None, limit: int = 500, trial_id: int | None = None
    ) -> Sequence[WindowRecord]:
        """See TelemetryReader."""
        return self._get(
            ("windows", since, limit, trial_id),
            lambda: self._reader.windows(since=since, limit=limit, trial_id=trial_id),
            self._newest_window() if limit > 1 else None,
        )

    def _newest_window(self) -> object:
        # Windows are written once and never changed: the long list is the same until a new one
        # is there, and asking for the newest is cheap.
        newest = self.windows(limit=1)
        return (newest[-1].id, newest[-1].ended_at) if newest else None

    def query_windows(
        self, *, since: datetime | None = None, limit: int = 500
    ) -> Sequence[WindowRecord]:
        """See TelemetryReader."""
        return self._get(
            ("query_windows", since, limit),
            lambda: self._reader.query_windows(since=since, limit=limit),
            self._newest_window(),
        )

    def query_classes(self) -> Mapping[str, QueryClassRecord]:
        """See TelemetryReader."""
        return self._get(("query_classes",), self._reader.query_classes)

    def client_intervals(
        self, *, since: datetime | None = None, class_name: str | None = "*", limit: int = 2000
    ) -> Sequence[ClientIntervalRecord]:
        """See TelemetryReader."""
        return self._get(
            ("client_intervals", since, class_name, limit),
            lambda: self._reader.client_intervals(since=since, class_name=class_name, limit=limit),
        )

    def trials(self, *, limit: int = 200) -> Sequence[TrialRecord]:
        """See TelemetryReader."""
        return self._get(("trials", limit), lambda: self._reader.trials(limit=limit))

    def trial(self, trial_id: int) -> TrialRecord | None:
        """See TelemetryReader."""
        return self._get(("trial", trial_id), lambda: self._reader.trial(trial_id))

    def changes(self, *, limit: int = 500) -> Sequence[ChangeRecord]:
        """See TelemetryReader."""
        return self._get(("changes", limit), lambda: self._reader.changes(limit=limit))

    def policy_versions(self, *, limit: int = 200) -> Sequence[PolicyVersionRecord]:
        """See TelemetryReader."""
        return self._get(
            ("versions", limit),
            lambda: self._reader.policy_versions(limit=limit),
            self._newest_id(self.policy_versions) if limit > 1 else None,
        )

    def policy_updates(self, *, limit: int = 200) -> Sequence[PolicyUpdateRecord]:
        """See TelemetryReader."""
        return self._get(
            ("updates", limit),
            lambda: self._reader.policy_updates(limit=limit),
            self._newest_id(self.policy_updates) if limit > 1 else None,
        )

    def genomes(
        self, *, study: str | None = None, deployed: bool = False, limit: int = 1000
    ) -> Sequence[GenomeRecord]:
        """See TelemetryReader."""
        return self._get(
            ("genomes", study, deployed, limit),
            lambda: self._reader.genomes(study=study, deployed=deployed, limit=limit),
            self._newest_id(self.genomes) if limit > 1 else None,
        )

    def evolution(self) -> EvolutionRecord | None:
        """See TelemetryReader."""
        return self._get(("evolution",), self._reader.evolution)

    def _newest_id(self, read: Callable[..., Sequence[Any]]) -> object:
        # These too are written once; of the versions the newest is the one that is deployed.
        newest = read(limit=1)
        return newest[-1].id if newest else None

    def events(self, *, level: str | None = None, limit: int = 200) -> Sequence[EventRecord]:
        """See TelemetryReader."""
        return self._get(
            ("events", level, limit), lambda: self._reader.events(level=level, limit=limit)
        )

    def learning(self, *, agent: str = "knob", limit: int = 1000) -> Sequence[LearningRecord]:
        """See TelemetryReader."""
        return self._get(
            ("learning", agent, limit), lambda: self._reader.learning(agent=agent, limit=limit)
        )

    def knob_statuses(self) -> Sequence[KnobStatusRecord]:
        """See TelemetryReader."""
        return self._get(("knob_statuses",), self._reader.knob_statuses)

    def commands(self, *, limit: int = 100) -> Sequence[CommandRecord]:
        """See TelemetryReader."""
        return self._get(("commands", limit), lambda: self._reader.commands(limit=limit))

    def experiment_plans(self, *, limit: int = 50) -> Sequence[ExperimentPlanRecord]:
        """See ControlReader."""
        return self._get(
            ("experiment_plans", limit), lambda: self._reader.experiment_plans(limit=limit)
        )

    def promotions(self, *, limit: int = 50) -> Sequence[PromotionRecord]:
        """See ControlReader."""
        return self._get(("promotions", limit), lambda: self._reader.promotions(limit=limit))

    def freeze(self) -> FreezeRecord | None:
        """See ControlReader."""
        return self._get(("freeze",), self._reader.freeze)

    def steered_classes(self) -> Sequence[SteeredClassRecord]:
        """See SteeringReader."""
        return self._get(("steered_classes",), self._reader.steered_classes)

    def plan_runs(
        self, *, fingerprint: str | None = None, limit: int = 10_000
    ) -> Sequence[PlanRunRecord]:
        """See SteeringReader."""
        return self._get(
            ("plan_runs", fingerprint, limit),
            lambda: self._reader.plan_runs(fingerprint=fingerprint, limit=limit),
        )

    def service_timings(
        self, *, since: datetime | None = None, limit: int = 10_000
    ) -> Sequence[ServiceTimingRecord]:
        """See SteeringReader."""
        return self._get(
            ("service_timings", since, limit),
            lambda: self._reader.service_timings(since=since, limit=limit),
        )

    def steering_status(self) -> SteeringStatusRecord | None:
        """See SteeringReader."""
        return self._get(("steering_status",), self._reader.steering_status)
