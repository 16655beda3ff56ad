"""The server of the benchmark: fresh data, settings written and read back, and what is looked for.

Nothing of the product's tuner runs here; the tuners under test have no other way to the server
than :meth:`LiveServer.apply`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from backend.adjustment.readback import Goal, Readback
from backend.catalog.entries import entry_text, same_value
from backend.catalog.knobs import KnobCatalog, load_catalog
from backend.catalog.never import never_reason
from backend.components import tunable_space
from backend.config import Settings
from backend.data_collector import DataCollector
from backend.domain.clock import SystemClock
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.server import HostFacts, ServerInfo
from backend.errors import AdjustmentError, LockNotAvailableError, MemoryBudgetError
from backend.memory_budget import MemoryBudget
from backend.servers import embedded_server, postgres_target
from backend.targets.postgresql import PostgresTarget
from backend.workload.connection import connect
from benchmarks.harness.server import Say, fresh_copy
from benchmarks.live.workloads import LiveWorkload

RUN_DATABASE = "live_run"
"""The copy of the template that a method works on; made anew for each."""
READ_BACK_TIMEOUT_S = 10.0
POLL_S = 0.02

_FROM_AUTO_CONF = "SELECT count(*) FROM pg_settings WHERE sourcefile LIKE '%postgresql.auto.conf'"
_PENDING = "SELECT count(*) FROM pg_settings WHERE pending_restart"
_ALL = "SELECT name, setting FROM pg_settings"
_CHOICES = "SELECT name, enumvals FROM pg_settings WHERE enumvals IS NOT NULL"


class LiveServer:
    """The embedded server with a workload's data, from its start to its stop.

    Args:
        settings: data folder, whether restarts are allowed, the memory limit.
        workload: the data to load.
        say: tells people what goes on.
    """

    def __init__(self, settings: Settings, workload: LiveWorkload, say: Say) -> None:
        self.workload = workload
        self.clock = SystemClock()
        database = settings.database.model_copy(update={"dbname": RUN_DATABASE})
        self._settings = settings.model_copy(update={"database": database})
        self._say = say
        self.server = embedded_server(self._settings)
        self.forget()
        self._target: PostgresTarget | None = None
        self.entries: dict[str, KnobValue] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[LiveServer]:
        """Start the server, load the template if need be, read what is known beforehand; stop it.

        However it ends, the server's settings are its defaults again, and it is stopped.
        """
        try:
            self.server.ensure_started()
            self._open_target()
            self.reset()
            self.workload.load(self.server, self._say)
            self.fresh()
            yield self
        finally:
            try:
                self._close_target()
                if self.server.is_running():
                    with contextlib.suppress(Exception):
                        self.reset()
            finally:
                self.server.stop()

    # -- what is known beforehand ---------------------------------------------------------------

    def _learn(self) -> None:
        """Read the machine, the catalogue, the defaults and the space; settings are at default."""
        self.info: ServerInfo = self.target.describe()
        self.catalog: KnobCatalog = load_catalog(self.info.version, self.info.host)
        present = self.target.read_knobs(self.catalog.names)
        self.standing = KnobConfig({name: reading.value for name, reading in present.items()})
        space = tunable_space(self.catalog, self._settings, self.info, present)
        # The server's own defaults: what a tuner takes for the default is what stands.
        self.space = KnobSpace([replace(k, default=self.standing[k.name]) for k in space])
        self.defaults = self.space.default_config()
        self.budget = MemoryBudget(
            self.info.host,
            clients=self.workload.clients,
            memory_limit_gb=self._settings.safety.memory_limit_gb,
            present=lambda: self.standing,
        )
        self._guarded = self._guarded_settings()

    @property
    def target(self) -> PostgresTarget:
        """The product's way to the server."""
        if self._target is None:
            raise AdjustmentError("the server is not open", remedy="call fresh() first")
        return self._target

    @property
    def host(self) -> HostFacts:
        """The machine under the server."""
        return self.info.host

    def collector(self) -> DataCollector:
        """Takes snapshots of the server and the machine."""
        return DataCollector(self.target, self.target.host_sampler())

    def choices(self) -> Mapping[str, tuple[str, ...]]:
        """What this server, as it was built, offers for its categorical settings."""
        return {name: tuple(values) for name, values in self._rows(_CHOICES)}

    # -- data and defaults ----------------------------------------------------------------------

    def fresh(self) -> None:
        """Settings at their defaults, and the data as loaded: the same start for every method.

        Raises:
            LockNotAvailableError: a tuner is at work on this server.
        """
        self._close_target()
        self.reset()
        fresh_copy(self.server, self.workload.template, RUN_DATABASE)
        with closing(self._connect(RUN_DATABASE)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_statements_reset()")
        self._open_target()
        self.forget()
        self._learn()

    def forget(self) -> None:
        """Begin anew to count what was found over the budget or changed among the guarded."""
        self.violations: list[str] = []
        self.durability: list[str] = []

    def reset(self) -> None:
        """Take every entry of ALTER SYSTEM back; restart where that alone activates it.

        Raises:
            AdjustmentError: a setting did not come back to its default.
        """
        self._execute("ALTER SYSTEM RESET ALL")
        self._execute("SELECT pg_reload_conf()")
        deadline_s = time.monotonic() + READ_BACK_TIMEOUT_S
        # Entries that wait for a restart keep their value, and their source, until then.
        while self._number(_FROM_AUTO_CONF) > 0 and self._number(_PENDING) == 0:
            if time.monotonic() > deadline_s:
                raise AdjustmentError(
                    f"settings did not come back to their defaults in {READ_BACK_TIMEOUT_S:g} s"
                )
            time.sleep(POLL_S)
        if self._number(_PENDING) > 0:
            self._restart()
        self.entries = {}

    def recover(self) -> None:
        """After a crash or a refused change: the server runs, with its defaults."""
        self.server.start_or_recover()
        deadline_s = time.monotonic() + READ_BACK_TIMEOUT_S * 6
        while True:
            try:
                self.reset()
                self.target.read_knobs(self.space.names)  # opens the lost connection again
                self.target.hold_tuner_lock()
                return
            except Exception:
                # A server that crashed takes a while to recover; what lasts is told.
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(1)

    # -- settings -------------------------------------------------------------------------------

    def apply(self, changes: Mapping[str, KnobValue]) -> bool:
        """Make these values, and the defaults for all else, effective; returns after reading back.

        Args:
            changes: what differs from the defaults, native values.

        Returns:
            Whether the server was restarted for it.

        Raises:
            ServerError: the server refused a value or was lost.
            AdjustmentError: what was read back is not what was written.
        """
        wanted = {n: v for n, v in changes.items() if not same_value(v, self.standing.get(n))}
        entries: dict[str, KnobValue | None] = {
            name: wanted.get(name)
            for name in sorted({*wanted, *self.entries})
            if name not in wanted or not same_value(wanted[name], self.entries.get(name))
        }
        if not entries:
            return False
        self.entries = {**self.entries, **{n: v for n, v in entries.items() if v is not None}}
        self.target.write_entries(entries)
        restart = any(self.catalog.knob(name).knob.context == "restart" for name in entries)
        if restart:
            self._restart()
        else:
            self.target.reload()
        goals = [
            Goal(name, None if value is None else entry_text(value),
                 self.standing[name] if value is None else value)
            for name, value in entries.items()
        ]  # fmt: skip
        readback = Readback(self.target, self._knob, self.clock, self.clock.sleep)
        unmet = readback.wait_for(goals, READ_BACK_TIMEOUT_S)
        if unmet:
            raise AdjustmentError("; ".join(unmet.values()))
        self.entries = dict(wanted)
        self._look(wanted)
        return restart

    def settle_s(self, changes: Mapping[str, KnobValue]) -> float:
        """How long after a switch of these knobs nothing is measured, as the product does it.

        The product's own pause or that of the slowest knob it would try; a fixed rule's slower
        knobs (checkpoints) get no more than that.
        """
        level1 = self._settings.level1
        slow = [self.catalog.knob(name).knob.settle_s for name in changes]
        return max([level1.settle_s, *(min(s, level1.max_settle_s) for s in slow)])

    def _knob(self, name: str) -> Any:
        return self.catalog.knob(name).knob

    def _look(self, wanted: Mapping[str, KnobValue]) -> None:
        """Look on the server itself whether the budget and the never-list were kept."""
        readings = self.target.read_knobs(self.catalog.names)
        try:
            self.budget.check({name: reading.value for name, reading in readings.items()})
        except MemoryBudgetError as error:
            self.violations.append(f"{dict(wanted)}: {error.message}")
        for name, value in self._guarded_settings().items():
            before = self._guarded.get(name)
            if value != before:
                self.durability.append(f"{name} was {before!r} and became {value!r}")

    def _guarded_settings(self) -> dict[str, str]:
        # The port is chosen anew where a restart finds it taken.
        rows = self._rows(_ALL)
        return {name: value for name, value in rows if never_reason(name) and name != "port"}

    # -- inside ---------------------------------------------------------------------------------

    def _restart(self) -> None:
        if self._target is not None:
            self._target.restart()
            self._target.hold_tuner_lock()
        else:
            self.server.restart()

    def _open_target(self) -> None:
        self._target = postgres_target(self._settings)
        if not self._target.hold_tuner_lock():
            raise LockNotAvailableError(
                f"another tuner acts on the server in {self.server.home}",
                remedy="stop it, or choose a data folder of its own: --data-dir",
            )

    def _close_target(self) -> None:
        if self._target is not None:
            self._target.close()
            self._target = None

    def _connect(self, dbname: str) -> Any:
        return connect(
            self.server.dsn(dbname), application_name="knob_live", statement_timeout_s=300
        )

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(self._connect("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _number(self, statement: str) -> int:
        return int(self._rows(statement)[0][0])

    def _execute(self, statement: str) -> None:
        with closing(self._connect("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
