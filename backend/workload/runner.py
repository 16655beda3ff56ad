"""The workload as a process: settings in, client intervals out, until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy.engine import URL

from backend.domain.records import ClientIntervalRecord
from backend.errors import WorkloadError
from backend.settings.workload import WorkloadSection
from backend.steering.client.plugin import DEFAULT_SHARE
from backend.steering.places import SteeringPlaces
from backend.workload.generator import ClientInterval, WorkloadGenerator, WorkloadStats
from backend.workload.mixes import mix_named
from backend.workload.schedule import Arrival, ArrivalSchedule
from backend.workload.shape import DEMO_SCALE, StoreShape
from backend.workload.shifted import ShiftedSchedule

APPLICATION_NAME = "autopilot_demo"


@dataclass(frozen=True)
class Shift:
    """Clients turn to the mix named ``mix``, at its own rate, between two real seconds."""

    mix: str
    from_s: float
    until_s: float


@dataclass(frozen=True)
class WorkloadSettings:
    """What to offer.

    ``queries_per_hour`` is the mean per simulated hour over a day; None takes the mix's rate.
    ``query_distribution`` replaces the weights of classes in the mix; ``parameter_ranges``
    narrows what is asked for (:data:`backend.workload.scope.PARAMETER_RANGES`). Statements go
    through the plug-in ``query_steering`` where ``steering`` names the folder that it shares with
    the autopilot; ``default_share`` of a steered class keeps running the default plan.
    """

    mix: str = "mixed"
    queries_per_hour: float | None = None
    seed: int = 0
    time_scale: float = 1.0
    scale: float = DEMO_SCALE
    max_concurrency: int = 8
    statement_timeout_s: float = 30.0
    interval_s: float = 5.0
    application_name: str = APPLICATION_NAME
    query_distribution: Mapping[str, float] = field(default_factory=dict)
    parameter_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    steering: SteeringPlaces | None = None
    default_share: float = DEFAULT_SHARE
    shift: Shift | None = None

    @classmethod
    def of(cls, section: WorkloadSection, time_scale: float) -> WorkloadSettings:
        """What the product's settings ask for, at so many simulated seconds a real second."""
        return cls(
            mix=section.name,
            queries_per_hour=section.queries_per_hour,
            seed=section.seed,
            time_scale=time_scale,
            scale=section.data_scale_factor,
            max_concurrency=section.max_concurrency,
            statement_timeout_s=section.statement_timeout,
            query_distribution=section.query_distribution,
            parameter_ranges=section.parameter_ranges,
        )

    def schedule(self) -> ArrivalSchedule:
        """Return the frozen arrivals of these settings.

        Raises:
            WorkloadError: an unknown mix, class or range, or a value out of bounds.
        """
        return ArrivalSchedule(
            mix_named(self.mix).with_weights(self.query_distribution),
            self.queries_per_hour,
            self.seed,
            self.time_scale,
            shape=StoreShape.at_scale(self.scale),
            parameter_ranges=self.parameter_ranges,
        )

    def arrivals(self) -> Iterable[Arrival]:
        """Return what is offered: the frozen arrivals, those of a ``shift`` in their midst.

        Raises:
            WorkloadError: see :meth:`schedule`.
        """
        usual, shift = self.schedule(), self.shift
        if shift is None:
            return usual
        turned = replace(
            self, mix=shift.mix, queries_per_hour=None, query_distribution={}, shift=None
        )
        return ShiftedSchedule(usual, turned.schedule(), shift.from_s, shift.until_s)


def run_workload(
    url: URL,
    settings: WorkloadSettings,
    stop_event: threading.Event,
    on_interval: Callable[[ClientInterval], None] | None = None,
) -> WorkloadStats:
    """Offer the workload until ``stop_event`` is set; return the totals.

    Args:
        url: the database that holds the demo store at ``settings.scale``.
        settings: what to offer.
        stop_event: ends the run within about ten seconds, statements in flight included.
        on_interval: called in this thread every ``interval_s`` and once at the end.

    Raises:
        WorkloadError: bad settings, or the schedule failed.
    """
    generator = WorkloadGenerator(
        url,
        settings.arrivals(),
        max_concurrency=settings.max_concurrency,
        statement_timeout_s=settings.statement_timeout_s,
        application_name=settings.application_name,
        steering=settings.steering,
        default_share=settings.default_share,
    )
    generator.start()
    try:
        while not stop_event.wait(settings.interval_s):
            if generator.failure is not None:
                raise WorkloadError("the workload stopped by itself") from generator.failure
            if on_interval is not None:
                on_interval(generator.drain_interval())
    finally:
        generator.stop()
    if on_interval is not None:
        on_interval(generator.drain_interval())
    return generator.stats()


def interval_records(interval: ClientInterval) -> list[ClientIntervalRecord]:
    """Return an interval as the store's records, one per class and one (``*``) for all.

    Dropped arrivals are those offered that neither completed nor failed.
    """
    return [
        ClientIntervalRecord(
            started_at=interval.started_at,
            ended_at=interval.ended_at,
            class_name=entry.class_name,
            offered=entry.offered,
            completed=entry.completed,
            errors=entry.errors,
            timeouts=entry.timeouts,
            mean_ms=entry.mean_ms,
            p50_ms=entry.p50_ms,
            p95_ms=entry.p95_ms,
            p99_ms=entry.p99_ms,
            service_mean_ms=entry.service_mean_ms,
        )
        for entry in interval.classes
    ]
