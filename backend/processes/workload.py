"""The demo workload's process."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.errors import AutopilotError
from backend.processes.acts import ClientActs
from backend.protocols import Store
from backend.run_options import RunOptions
from backend.servers import embedded_server
from backend.steering.places import SteeringPlaces
from backend.workload.generator import ClientInterval
from backend.workload.runner import WorkloadSettings, interval_records, run_workload

log = logging.getLogger(__name__)

INTERVAL_S = 2.0


def workload(settings: Settings, options: RunOptions, store: Store, stop: threading.Event) -> int:
    """Offer the demo's statements and record what the clients saw."""

    def record(interval: ClientInterval) -> None:
        try:
            store.add_client_intervals(interval_records(interval))
        except AutopilotError as error:
            # A gap in the record is better than a gap in the load, in which nothing can be proven.
            log.warning("what the clients saw was not recorded: %s", error.message)

    url = embedded_server(settings).dsn()
    wanted = WorkloadSettings.of(settings.workload, options.time_scale)
    acts = ClientActs(options, url, wanted.mix, wanted.scale, store, SystemClock(), stop)
    acts.start()
    run_workload(
        url,
        replace(
            wanted,
            interval_s=INTERVAL_S,
            steering=SteeringPlaces(settings.paths.steering_dir),
            default_share=settings.steering.default_share,
            shift=acts.shift,
        ),
        stop,
        on_interval=record,
    )
    return 0
