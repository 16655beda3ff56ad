"""The demo workload's process."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence

from backend.config import Settings
from backend.domain.records import ClientIntervalRecord
from backend.errors import WorkloadError
from backend.servers import embedded_server
from backend.protocols import Store
from backend.run_options import RunOptions
from backend.workload.generator import ClientInterval, WorkloadGenerator
from backend.workload.mixes import MIXES, Mix
from backend.workload.schedule import ArrivalSchedule
from backend.workload.shape import StoreShape

CLIENT_INTERVAL_S = 2.0


def workload(settings: Settings, options: RunOptions, store: Store, stop: threading.Event) -> int:
    """Offer the demo's statements and record what the clients saw."""
    generator = WorkloadGenerator(
        embedded_server(settings).dsn(),
        arrival_schedule(settings, options.time_scale),
        max_concurrency=settings.workload.max_concurrency,
        statement_timeout_s=settings.workload.statement_timeout,
    )
    generator.start()
    try:
        while not stop.wait(CLIENT_INTERVAL_S):
            store.add_client_intervals(client_records(generator.drain_interval()))
    finally:
        generator.stop()
    return 0


def arrival_schedule(settings: Settings, time_scale: float) -> ArrivalSchedule:
    """The frozen arrivals of these settings.

    Raises:
        WorkloadError: a statement class or a rate is refused.
    """
    section = settings.workload
    return ArrivalSchedule(
        chosen_mix(section.name, section.query_distribution),
        section.queries_per_hour,
        section.seed,
        time_scale,
        shape=StoreShape.at_scale(section.data_scale_factor),
    )


def chosen_mix(name: str, weights: Mapping[str, float]) -> Mix:
    """The named mix, with the weights that the settings replace."""
    mix = MIXES[name]
    unknown = sorted(set(weights) - set(mix.day))
    if unknown:
        raise WorkloadError(
            f"workload.query_distribution names {', '.join(unknown)}, unknown in mix {name}",
            remedy=f"the classes are {', '.join(mix.day)}",
        )
    return dataclasses.replace(mix, day={**mix.day, **weights}) if weights else mix


def client_records(interval: ClientInterval) -> Sequence[ClientIntervalRecord]:
    """The generator's interval as the store holds it."""
    return [
        ClientIntervalRecord(
            started_at=interval.started_at,
            ended_at=interval.ended_at,
            class_name=found.class_name,
            offered=found.offered,
            completed=found.completed,
            errors=found.errors + found.dropped,
            timeouts=found.timeouts,
            mean_ms=found.mean_ms,
            p50_ms=found.p50_ms,
            p95_ms=found.p95_ms,
            p99_ms=found.p99_ms,
            service_mean_ms=found.service_mean_ms,
        )
        for found in interval.classes
    ]
