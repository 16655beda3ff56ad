"""PostgreSQL as a target: observe it, read and write its settings.

The dialect of PostgreSQL lives here, in the modules beside this one, in backend/db_connector.py,
in backend/catalog/postgresql/ and in the embedded server: nowhere else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timezone
from typing import Any

from psycopg2 import sql

from backend.db_connector import TUNER_APPLICATION, DatabaseConnector, Parameters
from backend.domain.knobs import KnobValue
from backend.domain.metrics import MetricsSnapshot, QueryKey
from backend.domain.server import KnobReading, ServerInfo
from backend.errors import (
    EmbeddedServerError,
    KnobBoundsError,
    PrivilegeError,
    ServerConnectionError,
    ServerError,
    UnsupportedServerError,
)
from backend.host_metrics import HostSampler
from backend.targets import postgresql_privileges as privileges
from backend.targets.postgresql_checkup import Item, check_up
from backend.targets.postgresql_identity import SameServer
from backend.targets.postgresql_lock import TunerLock
from backend.targets.postgresql_metrics import MetricReader
from backend.targets.postgresql_probe import probe
from backend.targets.postgresql_statements import StatementReadings, StatementStatistics

_RESTART_DEADLINE_S = 90.0
_RETRY_STATISTICS_S = 60.0
# Sources of pg_settings that win over postgresql.auto.conf.
_OVERRIDING_SOURCES = {
    "command line": "the server's command line",
    "environment variable": "an environment variable of the server",
    "global": "a setting of all databases",
    "database": "a setting of this database (ALTER DATABASE ... SET)",
    "user": "a setting of our role (ALTER ROLE ... SET)",
    "database user": "a setting of our role in this database",
    "client": "our session",
    "session": "our session",
    "interactive": "our session",
}

_CLOCKS = """
SELECT clock_timestamp() AS taken_at, pg_postmaster_start_time() AS started_at,
       pg_conf_load_time() AS loaded_at
"""
_SETTINGS = """
SELECT name, setting, vartype, source, pending_restart, enumvals, {may_alter} AS may_alter
  FROM pg_settings WHERE name = ANY(%s)
"""
_MAY_ALTER = "has_parameter_privilege(name, 'ALTER SYSTEM')"
_MAY_ALTER_BEFORE_15 = "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
_MAY_READ_FILES = """
SELECT has_table_privilege('pg_file_settings', 'SELECT')
   AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE') AS granted
"""
# In the order in which the server reads them: the last line wins.
_FILE_LINES = """
SELECT f.name, f.setting, f.sourcefile LIKE '%%postgresql.auto.conf' AS automatic
  FROM pg_file_settings AS f WHERE f.name = ANY(%s) ORDER BY f.seqno
"""
_FILE_ERRORS = """
SELECT sourcefile, sourceline, name, error FROM pg_file_settings WHERE error IS NOT NULL
 ORDER BY seqno
"""
# Settings of this database for all roles, of single roles here, and of single roles everywhere.
_ROLE_SETTINGS = """
SELECT s.entry, r.rolname AS role, d.datname AS database
  FROM (SELECT setdatabase, setrole, unnest(setconfig) AS entry FROM pg_db_role_setting) AS s
  LEFT JOIN pg_roles AS r ON r.oid = s.setrole
  LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
 WHERE s.setdatabase = 0 OR d.datname = current_database()
"""
_END_SESSIONS = """
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) AS ended
  FROM pg_stat_activity AS a
 WHERE a.application_name = %s AND a.usename = current_user
   AND a.pid <> pg_backend_pid() AND a.pid <> ALL(%s)
"""


class PostgresTarget:
    """A PostgreSQL server, version 14 to 18 (a newer one is only observed).

    Args:
        connector: connection to the database that is tuned.
        restarter: restarts the server and returns when that is done; None: restarts are not
            allowed.
        metric_names: the metrics to read; None for all that the server's version offers.
        monotonic_s: the clock for metrics that are read only now and then.
    """

    def __init__(
        self,
        connector: DatabaseConnector,
        *,
        restarter: Callable[[], None] | None = None,
        metric_names: Iterable[str] | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connector = connector
        self._restarter = restarter
        locking = connector.in_database(privileges.LOCK_DATABASE)
        self._lock = TunerLock(locking)
        self._monotonic_s = monotonic_s
        # Snapshots have a session of their own: knobs that are being tried (jit_above_cost = 0)
        # would otherwise compile our little statements, and settings that prevent that must not
        # show up where knobs are read.
        self._observer = connector.sibling(jit="off", max_parallel_workers_per_gather="0")
        SameServer(connector, self._observer, locking)
        self._metrics = MetricReader(self._observer, metric_names, monotonic_s)
        self._statements = StatementStatistics(self._observer)
        self._statistics_due_s = -math.inf
        self._reads_files = False

    # -- observing ----------------------------------------------------------------------------

    def describe(self) -> ServerInfo:
        """Identity, version and capabilities, probed now.

        A remote host's memory and cores are unknown, and given as 0.

        Raises:
            ServerConnectionError: the server cannot be reached.
            UnsupportedServerError: it is older than version 14.
        """
        info, _, _ = probe(
            self._connector, self._statements, can_restart=self._restarter is not None
        )
        return info

    def check_up(self, info: ServerInfo, knobs: Sequence[str]) -> list[Item]:
        """What the server offers and what is missing, item by item; see postgresql_checkup.

        Args:
            info: what :meth:`describe` just answered.
            knobs: the knobs that would be tried.
        """
        readings = self.read_knobs(knobs)
        writable = {name: readings[name].may_alter for name in knobs if name in readings}
        return check_up(self._connector, info, writable)

    def host_sampler(self) -> HostSampler | None:
        """A sampler of the machine under the server; None where the server is elsewhere."""
        _, postmaster, data_directory = probe(
            self._connector, self._statements, can_restart=self._restarter is not None
        )
        if postmaster is None:
            return None
        return HostSampler(self._postmaster_pid, data_directory, self._monotonic_s)

    def snapshot(self) -> MetricsSnapshot:
        """Read all metrics once."""
        # The first statement also makes our session load a configuration that was reloaded.
        clocks = self._observer.fetch(_CLOCKS)[0]
        statements = self._read_statements()
        readings = self._metrics.read()
        resets = [t for t in (statements.reset_at, readings.reset_at) if t is not None]
        return MetricsSnapshot(
            taken_at=clocks["taken_at"].astimezone(timezone.utc),
            server_started_at=clocks["started_at"].astimezone(timezone.utc),
            config_loaded_at=clocks["loaded_at"].astimezone(timezone.utc),
            statistics_reset_at=max(resets).astimezone(timezone.utc) if resets else None,
            counters=readings.counters,
            gauges=readings.gauges,
            queries=statements.queries,
            evicted_queries=statements.evicted,
        )

    def query_texts(self, keys: Sequence[QueryKey]) -> Mapping[QueryKey, str]:
        """Normalised texts of query classes; those that are no query classes are left out."""
        return self._statements.texts(keys)

    @property
    def metric_failures(self) -> Mapping[str, str]:
        """Sources of metrics that cannot be read at present, with the server's reason."""
        return dict(self._metrics.failures)

    # -- settings -----------------------------------------------------------------------------

    def read_knobs(self, names: Sequence[str]) -> Mapping[str, KnobReading]:
        """Effective values (native units), sources and entries; unknown names are left out.

        ``entry`` needs the capability ``file_settings``; without it, it is None.
        """
        wanted = list(names)
        by_parameter = self._connector.server_version >= privileges.FIRST_WITH_PARAMETER_GRANTS
        may_alter = _MAY_ALTER if by_parameter else _MAY_ALTER_BEFORE_15
        rows = self._connector.fetch(_SETTINGS.format(may_alter=may_alter), (wanted,))
        lines = self._file_lines(wanted)
        entries = {line["name"]: line["setting"] for line in lines or () if line["automatic"]}
        in_files = None if lines is None else {line["name"] for line in lines}
        overrides = self._role_settings()
        return {
            row["name"]: KnobReading(
                name=row["name"],
                value=_native(row["setting"], row["vartype"]),
                source=row["source"],
                pending_restart=_is_pending(row, in_files),
                entry=entries.get(row["name"]),
                override=_OVERRIDING_SOURCES.get(row["source"]) or overrides.get(row["name"]),
                may_alter=row["may_alter"],
                choices=tuple(row["enumvals"] or ()),
            )
            for row in rows
        }

    def config_file_errors(self) -> list[str]:
        """What the server finds wrong in its configuration files, one line each.

        Raises:
            PrivilegeError: our role may not read pg_file_settings.
        """
        return [
            f"{row['sourcefile']}:{row['sourceline']}: {row['name'] or ''} {row['error']}"
            for row in self._fetch_of_files(_FILE_ERRORS)
        ]

    def write_entries(self, entries: Mapping[str, KnobValue | None]) -> None:
        """Persist values with ALTER SYSTEM, one statement a knob; None removes the entry.

        The server cannot do several at once: when one is refused, those before it are written.
        https://www.postgresql.org/docs/current/sql-altersystem.html

        Raises:
            PrivilegeError: our role may not set one of them; the remedy is the SQL that grants it.
            KnobBoundsError: a value is not finite.
            RefusedValueError: the server does not take a value.
            ServerError: it refused for another reason.
        """
        for name, value in entries.items():
            try:
                self._connector.execute(_alter_system(name, value))
            except PrivilegeError as error:
                granting = privileges.alter_system(self._connector.url.username or "", [name])
                raise PrivilegeError(
                    f"{name} cannot be set: {error.message}",
                    remedy=f"{granting} (version 15 on; before, a superuser is needed)",
                ) from None
            except ServerConnectionError:
                raise
            except ServerError as error:
                told = f"{name} = {value!r} was refused: {error.message}"
                raise type(error)(told, remedy=error.remedy) from None

    def reload(self) -> None:
        """Tell the server to read its configuration again.

        It does so a moment later: poll :meth:`read_knobs`, whose every statement makes our
        session take over what has been loaded.
        """
        if not self._connector.fetch("SELECT pg_reload_conf() AS sent")[0]["sent"]:
            raise ServerError("the server could not be told to reload its configuration")

    def restart(self) -> None:
        """Restart the server and wait until it answers."""
        if self._restarter is None:
            raise UnsupportedServerError(
                f"{self._connector.address} may not be restarted from here",
                remedy="restart it yourself, or leave knobs that need a restart alone",
            )
        self._connector.close()
        self._observer.close()
        self._lock.release()
        self._restarter()
        deadline_s = time.monotonic() + _RESTART_DEADLINE_S
        while True:
            try:
                self._connector.fetch("SELECT 1")
                return
            except ServerConnectionError as error:
                if time.monotonic() > deadline_s:
                    raise EmbeddedServerError(
                        f"the server did not answer within {_RESTART_DEADLINE_S:.0f} s after its "
                        f"restart: {error.message}",
                        remedy="look at the server's log",
                    ) from None
                time.sleep(0.1)

    # -- sessions -----------------------------------------------------------------------------

    def end_tuner_sessions(self) -> int:
        """End all other sessions of a tuner under our role, in all databases; how many."""
        own = [self._lock.session_pid or 0]
        if self._observer.is_connected:
            own.append(self._observer.backend_pid)
        return int(self._connector.fetch(_END_SESSIONS, (TUNER_APPLICATION, own))[0]["ended"])

    def hold_tuner_lock(self) -> bool:
        """Take, or verify that we still hold, the one-tuner lock; False: another has it.

        Raises:
            OtherServerError: it would be another server's.
        """
        return self._lock.hold()

    def close(self) -> None:
        """Release the lock and all connections. Idempotent."""
        self._lock.release()
        self._observer.close()
        self._connector.close()

    # -- inside -------------------------------------------------------------------------------

    def _postmaster_pid(self) -> int | None:
        try:
            return probe(
                self._connector, self._statements, can_restart=self._restarter is not None
            )[1]
        except ServerError:
            return None

    def _read_statements(self) -> StatementReadings:
        now_s = self._monotonic_s()
        if not self._statements.available and now_s >= self._statistics_due_s:
            self._statements.why_missing()
            self._statistics_due_s = now_s + _RETRY_STATISTICS_S
        return self._statements.read()

    def _file_lines(self, names: list[str]) -> list[dict[str, Any]] | None:
        """The lines of all configuration files about these names; None if we may not see them."""
        try:
            return self._fetch_of_files(_FILE_LINES, (names,))
        except PrivilegeError:
            return None

    def _fetch_of_files(self, statement: str, params: Parameters = None) -> list[dict[str, Any]]:
        """Read pg_file_settings; without the privilege the statement is not even sent.

        A role that only observes has none, and each refusal would be an error in the server's log.

        Raises:
            PrivilegeError: our role may not read it.
        """
        if not self._reads_files:
            self._reads_files = self._connector.fetch(_MAY_READ_FILES)[0]["granted"]
        if not self._reads_files:
            raise PrivilegeError(
                "pg_file_settings may not be read",
                remedy=privileges.read_entries(self._connector.url.username or ""),
            )
        try:
            return self._connector.fetch(statement, params)
        except PrivilegeError:  # revoked since
            self._reads_files = False
            raise

    def _role_settings(self) -> dict[str, str]:
        overrides: dict[str, str] = {}
        for row in self._connector.fetch(_ROLE_SETTINGS):
            name = row["entry"].partition("=")[0]
            whose = f"role {row['role']}" if row["role"] else "all roles"
            where = f" in database {row['database']}" if row["database"] else ""
            overrides[name] = f"a setting of {whose}{where}"
        return overrides


def _is_pending(row: Mapping[str, Any], in_files: Collection[str] | None) -> bool:
    """Whether a restart would change the value.

    The server keeps its mark when an entry that waited for a restart is removed again from every
    file while the default is in force; there is nothing left to wait for then.
    """
    stale = in_files is not None and row["source"] == "default" and row["name"] not in in_files
    return bool(row["pending_restart"]) and not stale


def _native(setting: str, vartype: str) -> KnobValue:
    """A setting of pg_settings as a Python value, in the native unit."""
    if vartype == "bool":
        return setting == "on"
    if vartype == "integer":
        return int(setting)
    if vartype == "real":
        return float(setting)
    return setting


def _alter_system(name: str, value: KnobValue | None) -> sql.Composed:
    # A name with a dot (an extension's) is two identifiers.
    quoted = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
    if value is None:
        return sql.SQL("ALTER SYSTEM RESET {}").format(quoted)
    if isinstance(value, bool):
        literal: sql.Composable = sql.SQL("on" if value else "off")
    elif isinstance(value, float) and not math.isfinite(value):
        raise KnobBoundsError(f"{name} = {value!r} is not a finite number")
    else:
        literal = sql.Literal(value)
    return sql.SQL("ALTER SYSTEM SET {} = {}").format(quoted, literal)
