"""Looks at a server for a while, through sessions that only read, and gathers what was seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from backend.advice.facts import Facts
from backend.advice.observation import Observation, Watch
from backend.advice.statements import MOST
from backend.catalog.knobs import load_catalog
from backend.config import Settings
from backend.data_collector import DataCollector
from backend.db_connector import DatabaseConnector
from backend.domain.server import HostFacts
from backend.errors import AutopilotError, PrivilegeError, ServerError
from backend.servers import embedded_server
from backend.targets import postgresql_lookup as lookup
from backend.targets.postgresql import PostgresTarget

APPLICATION = "autopilot_advice"
MOST_SNAPSHOTS = 360
"""However long it takes; a long observation looks less often."""
LEAST_SNAPSHOTS = 4
_GIB = 1024**3

Progress = Callable[[str, float], None]
"""Takes what is going on, and how much of it is done, in [0, 1]."""


@dataclass(frozen=True)
class StatedMachine:
    """What the user says of the server's machine; None: nothing."""

    memory_gib: float | None = None
    cores: float | None = None

    def over(self, host: HostFacts) -> HostFacts:
        """The machine as seen, with what was stated in its place."""
        if self.memory_gib is not None:
            host = replace(host, memory_bytes=round(self.memory_gib * _GIB))
        return host if self.cores is None else replace(host, cpu_count=self.cores)

    @property
    def told(self) -> tuple[str, ...]:
        """What was stated, for people."""
        memory = () if self.memory_gib is None else (f"{self.memory_gib:g} GiB of memory",)
        return (*memory, *(() if self.cores is None else (f"{self.cores:g} cores",)))


class Visit:
    """Sessions on the server of the settings, which only read.

    Use as a context manager. ``default_transaction_read_only`` does not keep a session from ALTER
    SYSTEM; that none is sent is this code's own promise, and tested.

    Args:
        settings: which server, and how often to look.
        stated: what the user says of its machine.

    Raises:
        AutopilotError: the embedded server does not run: there is nothing to look at.
    """

    def __init__(self, settings: Settings, stated: StatedMachine) -> None:
        if settings.is_embedded:
            server = embedded_server(settings)
            if not server.is_running():
                raise AutopilotError(
                    "the embedded server does not run, so there is nothing to look at",
                    remedy="start python run.py first, or name your own server with --dsn",
                )
            url = server.dsn()
        else:
            url = settings.foreign_url()
        self._stated = stated
        self._interval_s = settings.telemetry.collection_interval
        self.connector = DatabaseConnector(
            url,
            application_name=APPLICATION,
            connect_timeout_s=settings.database.connection_timeout,
            session_settings={"default_transaction_read_only": "on"},
        )
        self._target = PostgresTarget(self.connector)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self._target.close()

    def observe(self, minutes: float, on_progress: Progress, stop: threading.Event) -> Facts:
        """Gather all that advice needs, and watch the server.

        Args:
            minutes: how long; what was seen counts where ``stop`` is set earlier.
            on_progress: is told now and then.
            stop: ends the watching.

        Raises:
            ServerConnectionError: the server cannot be reached.
            AutopilotError: nothing was seen that counts.
        """
        on_progress("connecting", 0.0)
        info = self._target.describe()
        host = self._stated.over(info.host)
        catalog = load_catalog(info.version, host)
        # Read first: should the server be lost meanwhile, what was seen can still be told.
        readings = self._target.read_knobs(catalog.names)
        rights = lookup.rights(self.connector, catalog.names)
        file_errors = self._file_errors()
        collector = DataCollector(self._target, self._target.host_sampler())
        # The metrics have a session of their own; a second idle one would be counted with others.
        self.connector.close()
        seen = watch(collector, 60 * minutes, self._interval_s, on_progress=on_progress, stop=stop)
        on_progress("reading tables and statements", 1.0)
        facts = Facts(
            info=info,
            host=host,
            catalog=catalog,
            readings=readings,
            rights=rights,
            observation=seen,
            stated=self._stated.told,
            file_errors=file_errors,
            unseen={f"metrics of {n}": why for n, why in self._target.metric_failures.items()},
        )
        try:
            return self._with_names(facts)
        except ServerError as error:
            unseen = {**facts.unseen, "tables and texts of statements": error.message}
            return replace(facts, unseen=unseen)

    def _with_names(self, facts: Facts) -> Facts:
        queries = facts.observation.queries
        heaviest = sorted(queries, key=lambda key: -queries[key].exec_time_ms)[:MOST]
        return replace(
            facts,
            tables=lookup.tables(self.connector),
            roles=lookup.role_names(self.connector, {key.userid for key in queries}),
            texts=self._target.query_texts(heaviest),
        )

    def _file_errors(self) -> tuple[str, ...]:
        try:
            return tuple(self._target.config_file_errors())
        except PrivilegeError:
            return ()  # told as a missing capability


def watch(
    collector: DataCollector,
    seconds: float,
    interval_s: float,
    *,
    on_progress: Progress,
    stop: threading.Event,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Observation:
    """Take snapshots until the time is over or ``stop`` is set.

    Args:
        collector: what to take them from. A snapshot that fails is noted as a gap.
        seconds: how long; ``interval_s`` between two snapshots, as far as that gives a sensible
            number of them.
        on_progress: is told with each.
        stop: ends it; one last snapshot is taken.
        monotonic_s: the clock.

    Raises:
        AutopilotError: no two snapshots could be compared.
    """
    step_s = min(max(interval_s, seconds / MOST_SNAPSHOTS), seconds / LEAST_SNAPSHOTS)
    seen = Watch()
    begun_s = monotonic_s()
    while True:
        last = stop.is_set() or monotonic_s() - begun_s >= seconds
        try:
            seen.add(collector.collect())
        except ServerError as error:
            seen.miss(error.message)
        passed_s = monotonic_s() - begun_s
        on_progress("observing", min(passed_s / seconds, 1.0))
        if last:
            break
        stop.wait(max(min(step_s, seconds - passed_s), 0.0))
    observation = seen.observation()
    if observation is None:
        reasons = "; ".join(seen.gaps) or "it ended at once"
        raise AutopilotError(
            f"nothing was seen that counts: {reasons}", remedy="let it observe for longer"
        )
    return observation
