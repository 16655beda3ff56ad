"""A simulated database server with a known best answer: a target without a server.

It behaves like a server where the loop meets one: persisted entries become effective on reload
or restart, statistics are cumulative and reset now and then, the load swings, latencies are
noisy, others change settings meanwhile, and faults can be injected at any step. Time passes
only with the injected clock, so thousands of windows fit into a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np

from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsSnapshot, QueryCounters, QueryKey
from backend.domain.server import HostFacts, KnobReading, ServerInfo
from backend.errors import EmbeddedServerError, ServerConnectionError, UnsupportedServerError
from backend.protocols import Clock
from backend.targets.simulated_faults import Faults
from backend.targets.simulated_load import (
    NO_NOISE,
    Checkpoints,
    LoadScript,
    Noise,
    Swings,
    Traffic,
)
from backend.targets.simulated_model import ResponseModel

__all__ = ["Checkpoints", "LoadScript", "Noise", "ResponseModel", "SimulatedDatabase", "Swings"]

_MEMORY_BYTES = 24 * 1024**3
_ROWS = 10_000_000
_ROW_BYTES = 120


class SimulatedDatabase:
    """A ``protocols.TargetDatabase`` made of formulas.

    Args:
        model: the response; None for the default one.
        clock: time; the default one is turned with ``target.clock.advance(seconds)``.
        load: how the load moves.
        noise: of the measurements; None for none at all.
        checkpoints: that slow everything now and then; None for none.
        seed: of noise and arrivals.
        restart_allowed: whether ``restart()`` works.
        error_rate: share of transactions that roll back.
        refuses_to_start: configurations with which the server does not start.

    Attributes:
        overrides: knob name → what wins over our entry there (an operator's role setting, say),
            with the value that then holds.
        other_tuners: sessions of other tuners on this server.
        lock_held_elsewhere: whether another tuner has the lock.
    """

    def __init__(
        self,
        model: ResponseModel | None = None,
        clock: Clock | None = None,
        *,
        load: LoadScript | None = None,
        noise: Noise | None = None,
        checkpoints: Checkpoints | None = None,
        seed: int = 0,
        restart_allowed: bool = True,
        error_rate: float = 0.001,
        refuses_to_start: Callable[[KnobConfig], bool] = lambda config: False,
    ) -> None:
        self.model = model or ResponseModel()
        self.clock = clock or ManualClock()
        self.space = self.model.space
        self.overrides: dict[str, tuple[str, KnobValue]] = {}
        self.other_tuners = 0
        self.lock_held_elsewhere = False
        self._traffic = Traffic(
            self.model, load or LoadScript(), noise or NO_NOISE, seed, checkpoints
        )
        self._checkpoints = checkpoints
        self._restart_allowed, self._error_rate = restart_allowed, error_rate
        self._refuses_to_start = refuses_to_start
        self._faults = Faults(self.clock)
        self._entries: dict[str, KnobValue] = {}
        self._effective = self.space.default_config()
        self._down = self._closed = False
        self._rows = float(_ROWS)
        self.keys = tuple(
            QueryKey(10, 16384, 1000 + number) for number in range(len(self.model.classes))
        )
        self._writes = np.array([c.writes for c in self.model.classes])
        self._began_at = self._started_at = self._loaded_at = self.clock.now()
        self._reset_at: datetime | None = self._began_at
        self._simulated_s = 0.0
        self._clear_statistics()

    # -- what tests know and tuners do not -----------------------------------------------------

    @property
    def best_config(self) -> KnobConfig:
        """The best configuration there is."""
        return self.model.best_config

    def index_of(self, config: Mapping[str, KnobValue], load: float = 1.0) -> float:
        """The exact, noise-free latency index of a configuration (1: the default one)."""
        return self.model.index_of(config, load)

    @property
    def effective_config(self) -> KnobConfig:
        """What really holds on the server now."""
        return self._effective

    def inject(
        self, operation: str, error: Exception | None = None, *, after: int = 0, hang_s: float = 0
    ) -> None:
        """Make a later operation fail once.

        Args:
            operation: ``describe``, ``snapshot``, ``read_knobs``, ``write_entry`` (once a
                knob), ``reload`` or ``restart``.
            error: raised before the operation does anything; None with ``hang_s`` only hangs.
            after: how many more times it works first.
            hang_s: the clock advances so far before anything else happens (manual clock only).
        """
        self._faults.inject(operation, error, after, hang_s)

    def foreign_change(self, name: str, value: KnobValue | None) -> None:
        """Somebody else persists a value (None: removes the entry) and reloads."""
        self._simulate()
        self._set_entry(name, value)
        self._activate(restarting=False)

    def drift(self, model: ResponseModel | None = None, *, data_growth: float = 1.0) -> None:
        """From now on the server answers by another model, and holds so many times the data.

        Args:
            model: of the same knobs and query classes; None keeps the present one.
            data_growth: factor of the size and the rows.

        Raises:
            ValueError: the model has other knobs or classes.
        """
        self._simulate()
        if model is not None:
            if model.space.names != self.space.names or model.classes != self.model.classes:
                raise ValueError("what drifts is the response, not the knobs or the query classes")
            self.model = model
            self._traffic.answer_by(model)
        self._rows *= data_growth

    def crash(self) -> None:
        """The server dies and comes back: statistics are lost, entries are not."""
        self._simulate()
        self._clear_statistics()
        self._reset_at = self.clock.now()
        self.inject("snapshot", ServerConnectionError("the server closed the connection"))
        self._start()

    def reset_statistics(self) -> None:
        """Somebody calls pg_stat_reset and pg_stat_statements_reset."""
        self._simulate()
        self._clear_statistics()
        self._reset_at = self.clock.now()

    # -- protocols.TargetDatabase -------------------------------------------------------------

    def describe(self) -> ServerInfo:
        """Identity and capabilities; see ``protocols.TargetDatabase``."""
        self._enter("describe")
        return ServerInfo(
            server_id="simulated",
            kind="simulated",
            version=170000,
            version_text="simulated database",
            address="simulated",
            started_at=self._started_at,
            host=HostFacts(_MEMORY_BYTES, self.model.cores, free_disk_bytes=10**11),
            capabilities={
                "alter_system": True,
                "reload": True,
                "restart": self._restart_allowed,
                "statement_statistics": True,
                "read_all_stats": True,
                "terminate": True,
            },
            missing={} if self._restart_allowed else {"restart": "restarts are not allowed"},
        )

    def snapshot(self) -> MetricsSnapshot:
        """All metrics, under the names of the PostgreSQL catalogue."""
        self._enter("snapshot")
        queries = {
            key: QueryCounters(
                calls=int(self._calls[i]),
                exec_time_ms=float(self._time_ms[i]),
                rows=int(self._calls[i]),
                shared_blocks_hit=int(20 * self._calls[i]),
                plans=int(self._calls[i]),
            )
            for i, key in enumerate(self.keys)
            if self._calls[i] > 0
        }
        return MetricsSnapshot(
            taken_at=self.clock.now(),
            server_started_at=self._started_at,
            config_loaded_at=self._loaded_at,
            statistics_reset_at=self._reset_at,
            counters=dict(self._counters),
            gauges=dict(self._gauges),
            queries=queries,
        )

    def query_texts(self, keys: Sequence[QueryKey]) -> Mapping[QueryKey, str]:
        """Texts of the model's classes."""
        texts = dict(zip(self.keys, (c.text for c in self.model.classes), strict=True))
        return {key: texts[key] for key in keys if key in texts}

    def read_knobs(self, names: Sequence[str]) -> Mapping[str, KnobReading]:
        """Effective values and entries; unknown names are left out."""
        self._enter("read_knobs")
        readings: dict[str, KnobReading] = {}
        for name in names:
            if name not in self.space:
                continue
            entry = self._entries.get(name)
            override = self.overrides.get(name)
            wanted = entry if entry is not None else self.space.default_config()[name]
            waits = self.space[name].context == "restart" and wanted != self._effective[name]
            readings[name] = KnobReading(
                name=name,
                value=override[1] if override else self._effective[name],
                source=override[0]
                if override
                else ("default" if entry is None else "configuration file"),
                pending_restart=waits,
                entry=None if entry is None else _entry_text(entry),
                override=override[0] if override else None,
            )
        return readings

    def write_entries(self, entries: Mapping[str, KnobValue | None]) -> None:
        """Persist values knob by knob, as ALTER SYSTEM does; an error leaves the earlier ones.

        Raises:
            UnknownKnobError, KnobBoundsError: the server refuses an entry.
        """
        for name, value in entries.items():
            self._enter("write_entry")
            self._set_entry(name, value)

    def reload(self) -> None:
        """Make entries effective, those of restart knobs excepted."""
        self._enter("reload")
        self._activate(restarting=False)

    def restart(self) -> None:
        """Restart; makes all entries effective.

        Raises:
            UnsupportedServerError: not allowed here.
            EmbeddedServerError: it does not start with this configuration.
        """
        if not self._restart_allowed:
            raise UnsupportedServerError(
                "this simulated server may not be restarted", remedy="allow restarts"
            )
        self._down = False
        self._enter("restart")
        self._start()
        if self._down:
            raise EmbeddedServerError(
                "the simulated server does not start with its configuration",
                remedy="remove the entries that were added last, then restart",
            )

    def end_tuner_sessions(self) -> int:
        """End the other tuners' sessions."""
        ended, self.other_tuners = self.other_tuners, 0
        return ended

    def hold_tuner_lock(self) -> bool:
        """Whether the lock is ours."""
        self._enter("hold_tuner_lock")
        return not self.lock_held_elsewhere

    def close(self) -> None:
        """Nothing is reachable over this target any more."""
        self._closed = True

    def reopen(self) -> None:
        """A new tuner connects."""
        self._closed = False

    # -- inside -------------------------------------------------------------------------------

    def _enter(self, operation: str) -> None:
        """Faults and time come before every operation."""
        self._faults.meet(operation)
        if self._closed or self._down:
            raise ServerConnectionError(
                "the simulated server cannot be reached: it is "
                + ("closed" if self._closed else "down")
            )
        self._simulate()

    def _set_entry(self, name: str, value: KnobValue | None) -> None:
        knob = self.space[name]
        if value is None:
            self._entries.pop(name, None)
        else:
            self._entries[name] = knob.validate(value)

    def _activate(self, *, restarting: bool) -> None:
        wanted = self.space.default_config().replace(self._entries)
        if not restarting:
            fixed = [knob.name for knob in self.space if knob.context == "restart"]
            wanted = wanted.replace({name: self._effective[name] for name in fixed})
        self._effective = wanted
        self._loaded_at = self.clock.now()

    def _start(self) -> None:
        self._activate(restarting=True)
        self._started_at = self.clock.now()
        self._down = self._refuses_to_start(self._effective)

    def _clear_statistics(self) -> None:
        self._calls = np.zeros(len(self.keys))
        self._time_ms = np.zeros(len(self.keys))
        self._counters: dict[str, float] = {}
        self._gauges = self._levels(utilisation=0.0, active=0.0)

    def _simulate(self) -> None:
        """Let the clients work from where we stand to the clock's present moment."""
        now_s = (self.clock.now() - self._began_at) / timedelta(seconds=1)
        from_s, self._simulated_s = self._simulated_s, max(self._simulated_s, now_s)
        if now_s <= from_s or self._down:
            return
        overridden = {name: value for name, (_, value) in self.overrides.items()}
        actual = self._effective.replace(overridden) if overridden else self._effective
        work = self._traffic.work(actual, from_s, now_s)
        self._calls += work.calls
        self._time_ms += work.time_ms
        calls = float(work.calls.sum())
        writes = float(work.calls[self._writes].sum())
        slow = float(self.model.log_factors(actual).mean())
        active_ms = float(work.time_ms.sum())
        growth = {
            "xact_commit": calls * (1.0 - self._error_rate),
            "xact_rollback": calls * self._error_rate,
            "blocks_hit": 20.0 * calls,
            "blocks_read": 20.0 * calls * slow / (10.0 + slow),
            "tup_returned": 50.0 * calls * (1.0 + slow),
            "tup_inserted": writes,
            "temp_files": 0.01 * calls * slow,
            "temp_bytes": 1e5 * calls * slow,
            "wal_bytes": 300.0 * writes,
            "wal_syncs": writes,
            "active_time_ms": active_ms,
            "host_busy_s": work.utilisation * (now_s - from_s) * self.model.cores,
            "checkpoints_timed": float(
                self._checkpoints.begun(from_s, now_s) if self._checkpoints else 0
            ),
        }
        for name, amount in growth.items():
            self._counters[name] = self._counters.get(name, 0.0) + amount
        self._gauges = self._levels(work.utilisation, active_ms / 1000.0 / (now_s - from_s))

    def _levels(self, utilisation: float, active: float) -> dict[str, float]:
        return {
            "connections_total": 10.0,
            "connections_active": active,
            "connections_idle": max(0.0, 10.0 - active),
            "connections_waiting": active * utilisation,
            "connections_max": 100.0,
            "host_cpu_count": self.model.cores,
            "host_cpu_percent": 100.0 * utilisation,
            "host_memory_bytes": float(_MEMORY_BYTES),
            "host_memory_percent": 40.0,
            "live_tuples": self._rows,
            "database_size_bytes": _ROW_BYTES * self._rows,
        }


def _entry_text(value: KnobValue) -> str:
    """A value as postgresql.auto.conf spells it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
