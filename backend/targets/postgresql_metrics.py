"""Reading the catalogued metrics from a PostgreSQL server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from backend.catalog.metrics import MetricsCatalogue, SourcePlan, postgresql_metrics
from backend.db_connector import DatabaseConnector
from backend.errors import ServerConnectionError, ServerError

_LOG = logging.getLogger(__name__)
# A source that fails (a missing privilege, a dropped view) is tried again after this long.
_RETRY_S = 60.0


@dataclass
class Readings:
    """What one round of reading gave; ``reset_at`` is the newest reset of any source."""

    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)
    reset_at: datetime | None = None


class MetricReader:
    """Runs one small statement a source; a source that fails leaves the others alone.

    Args:
        connector: the connection to the tuned database.
        names: the metrics to read; None for all that the version offers.
        monotonic_s: the clock for sources that are read only now and then.
        catalogue: where the metrics are described.
    """

    def __init__(
        self,
        connector: DatabaseConnector,
        names: Iterable[str] | None,
        monotonic_s: Callable[[], float],
        catalogue: MetricsCatalogue | None = None,
    ) -> None:
        self._connector = connector
        self._names = None if names is None else tuple(names)
        self._monotonic_s = monotonic_s
        self._catalogue = catalogue if catalogue is not None else postgresql_metrics()
        self._planned_for = 0
        self._plans: tuple[SourcePlan, ...] = ()
        self._due_at_s: dict[str, float] = {}
        self._kept: dict[str, dict[str, float]] = {}
        self.failures: dict[str, str] = {}

    def read(self) -> Readings:
        """Read every source that is due; gauges of the others keep their last value.

        Raises:
            ServerConnectionError: the connection was lost.
        """
        version = self._connector.server_version
        if version != self._planned_for:  # first use, or the server was upgraded
            self._plans = tuple(self._catalogue.plan(version, self._names))
            self._planned_for = version
            self._due_at_s.clear()
            self._kept.clear()
        readings = Readings()
        for plan in self._plans:
            self._read_source(plan, readings)
        return readings

    def _read_source(self, plan: SourcePlan, readings: Readings) -> None:
        name = plan.source.name
        now_s = self._monotonic_s()
        if now_s < self._due_at_s.get(name, now_s):
            readings.gauges.update(self._kept.get(name, {}))
            return
        try:
            _, rows = self._connector.fetch_tuples(plan.statement)
        except ServerConnectionError:
            raise
        except ServerError as error:
            if name not in self.failures:
                _LOG.warning("metrics of source %s are not available: %s", name, error.message)
            self.failures[name] = error.message
            self._due_at_s[name] = now_s + _RETRY_S
            self._kept.pop(name, None)
            return
        self.failures.pop(name, None)
        if not rows:
            return
        gauges: dict[str, float] = {}
        for metric, kind, value in zip(plan.names, plan.kinds, rows[0], strict=False):
            if value is None:
                continue
            if kind == "counter":
                readings.counters[metric] = value
            else:
                gauges[metric] = value
        readings.gauges.update(gauges)
        if plan.has_reset and (reset_at := rows[0][-1]) is not None:
            readings.reset_at = max(readings.reset_at or reset_at, reset_at)
        if plan.source.every_s > 0:
            self._kept[name] = gauges
            self._due_at_s[name] = now_s + plan.source.every_s
