"""Raw readings of a server and the rates between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, order=True)
class QueryKey:
    """Identity of a query class, as pg_stat_statements keys its entries.

    https://www.postgresql.org/docs/current/pgstatstatements.html
    """

    userid: int
    dbid: int
    queryid: int
    toplevel: bool = True

    def __str__(self) -> str:
        return f"{self.userid}.{self.dbid}.{self.queryid}.{'t' if self.toplevel else 'n'}"

    @classmethod
    def parse(cls, text: str) -> QueryKey:
        """Read back what ``str()`` wrote.

        Raises:
            ValueError: the text is not a query key.
        """
        userid, dbid, queryid, toplevel = text.split(".")
        return cls(int(userid), int(dbid), int(queryid), toplevel == "t")


@dataclass(frozen=True)
class QueryCounters:
    """Cumulative counters of one query class since its statistics were reset."""

    calls: int
    exec_time_ms: float
    rows: int = 0
    shared_blocks_hit: int = 0
    shared_blocks_read: int = 0
    temp_blocks_written: int = 0
    wal_bytes: float = 0.0
    plans: int = 0


@dataclass(frozen=True)
class QueryWindow:
    """One query class over one window."""

    key: QueryKey
    calls: int
    exec_time_ms: float
    rows: int = 0
    shared_blocks_hit: int = 0
    shared_blocks_read: int = 0
    temp_blocks_written: int = 0
    wal_bytes: float = 0.0

    @property
    def mean_ms(self) -> float:
        """Mean execution time in ms (a mean: pg_stat_statements gives no percentiles)."""
        return self.exec_time_ms / self.calls if self.calls else 0.0


@dataclass(frozen=True)
class MetricsSnapshot:
    """Raw readings at one moment.

    ``counters`` only grow (until a reset), ``gauges`` are levels; names and units are those of
    ``backend/catalog/postgresql/metrics.yaml``. ``taken_at`` is the server's clock, UTC.
    ``statistics_reset_at``, ``server_started_at`` and ``config_loaded_at`` tell whether a window
    may be formed with another snapshot.
    """

    taken_at: datetime
    server_started_at: datetime
    config_loaded_at: datetime
    statistics_reset_at: datetime | None
    counters: Mapping[str, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    queries: Mapping[QueryKey, QueryCounters] = field(default_factory=dict)
    evicted_queries: int = 0


@dataclass(frozen=True)
class MetricsWindow:
    """The rates between two snapshots.

    ``rates`` are the counters' growth per second, ``gauges`` the levels (mean of both ends).
    """

    started_at: datetime
    ended_at: datetime
    duration_s: float
    rates: Mapping[str, float]
    gauges: Mapping[str, float]
    queries: Mapping[QueryKey, QueryWindow]

    @property
    def calls(self) -> int:
        """Executions of all query classes in the window."""
        return sum(q.calls for q in self.queries.values())

    @property
    def exec_time_ms(self) -> float:
        """Execution time of all query classes in the window, in ms."""
        return sum(q.exec_time_ms for q in self.queries.values())

    @property
    def mean_ms(self) -> float | None:
        """Mean execution time over all statements in ms; None where none ran."""
        return self.exec_time_ms / self.calls if self.calls else None
