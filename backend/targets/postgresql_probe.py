"""What a PostgreSQL server is, and what it lets our role do: probed, never assumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from backend.catalog.knobs import load_catalog
from backend.db_connector import NEWEST_VERSION, DatabaseConnector, quoted_identifier
from backend.domain.server import HostFacts, ServerInfo
from backend.errors import ServerConnectionError, ServerError
from backend.host_metrics import find_postmaster, host_facts
from backend.targets import postgresql_privileges as privileges
from backend.targets.postgresql_identity import identity_of, system_identifier
from backend.targets.postgresql_statements import StatementStatistics

_SERVER = """
SELECT current_setting('server_version') AS version_text,
       pg_postmaster_start_time() AS started_at,
       pg_is_in_recovery() AS in_recovery,
       pg_backend_pid() AS pid,
       current_user AS role,
       r.rolsuper AS superuser,
       current_setting('allow_alter_system', true) AS allow_alter_system,
       current_setting('track_io_timing') AS track_io_timing,
       has_function_privilege('pg_reload_conf()', 'EXECUTE') AS reload,
       has_table_privilege('pg_file_settings', 'SELECT')
         AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE') AS file_settings,
       pg_has_role('pg_read_all_stats', 'USAGE') AS read_all_stats
  FROM pg_roles AS r WHERE r.rolname = current_user
"""
# Version 15 on: ALTER SYSTEM can be granted for single settings.
_GRANTED_PARAMETERS = """
SELECT count(*) AS granted FROM pg_settings AS s
 WHERE s.name = ANY(%s) AND has_parameter_privilege(s.name, 'ALTER SYSTEM')
"""


def probe(
    connector: DatabaseConnector, statements: StatementStatistics, *, can_restart: bool
) -> tuple[ServerInfo, int | None, str | None]:
    """The server's description; the pid of its first process and its data folder if it is local.

    Raises:
        ServerConnectionError: the server cannot be reached.
        UnsupportedServerError: it is older than version 14.
    """
    version = connector.server_version
    row = connector.fetch(_SERVER)[0]
    missing = _missing(connector, row, version)
    if not can_restart:
        missing["restart"] = (
            "this server may not be restarted from here (only the embedded one is): "
            "knobs that need a restart are left alone"
        )
    reason = statements.why_missing()
    if reason is not None:
        missing["statement_statistics"] = reason
    names = (
        "alter_system",
        "reload",
        "restart",
        "statement_statistics",
        "read_all_stats",
        "file_settings",
        "io_timing",
    )
    data_directory = _data_directory(connector)
    postmaster = find_postmaster(connector.url.host, row["pid"], row["started_at"])
    host = (
        host_facts(postmaster, data_directory)
        if postmaster is not None
        else HostFacts(memory_bytes=0, cpu_count=0.0, is_local=False)
    )
    info = ServerInfo(
        server_id=_server_id(connector),
        kind="postgresql",
        version=version,
        version_text=f"PostgreSQL {row['version_text']}",
        address=connector.address,
        started_at=row["started_at"],
        host=host,
        capabilities={name: name not in missing for name in names},
        missing=missing,
        identity=identity_of(connector),
    )
    return info, postmaster, data_directory if postmaster is not None else None


def _missing(connector: DatabaseConnector, row: Mapping[str, Any], version: int) -> dict[str, str]:
    """For each capability that we lack: the reason and the SQL that grants it."""
    role = row["role"]
    missing: dict[str, str] = {}
    if version // 10000 > NEWEST_VERSION:
        missing["alter_system"] = (
            f"PostgreSQL {version // 10000} is newer than {NEWEST_VERSION}, the newest version "
            "that is known here: nothing is changed on it"
        )
    elif row["in_recovery"]:
        missing["alter_system"] = (
            "this is a stand-by: nothing is changed on it; connect to the primary to tune"
        )
    elif row["allow_alter_system"] == "off":
        missing["alter_system"] = (
            "the server's configuration file has allow_alter_system = off: whoever manages it "
            "wants changes made there"
        )
    elif not row["superuser"] and version < privileges.FIRST_WITH_PARAMETER_GRANTS:
        missing["alter_system"] = (
            "only a superuser may use ALTER SYSTEM before version 15; make changes yourself "
            f"(mode advise), or ALTER ROLE {quoted_identifier(role)} SUPERUSER;"
        )
    elif not row["superuser"] and not _may_alter_any_knob(connector, version):
        missing["alter_system"] = (
            f"{privileges.alter_system(role, ['work_mem'])} -- one for each knob: run.py grants"
        )
    if not row["reload"]:
        missing["reload"] = privileges.reload(role)
    if not row["file_settings"]:
        missing["file_settings"] = privileges.read_entries(role)
    to_undo = [missing[name] for name in ("file_settings", "reload") if name in missing]
    if to_undo:
        missing.setdefault(
            "alter_system",
            f"{' '.join(to_undo)} -- without sight of postgresql.auto.conf, or the right to have "
            "it read again, no change could be undone",
        )
    if not row["read_all_stats"]:
        missing["read_all_stats"] = privileges.monitor(role)
    if row["track_io_timing"] != "on":
        missing["io_timing"] = (
            "ALTER SYSTEM SET track_io_timing = on; SELECT pg_reload_conf(); "
            "(try pg_test_timing on the server first)"
        )
    return missing


def _may_alter_any_knob(connector: DatabaseConnector, version: int) -> bool:
    catalog = load_catalog(version, HostFacts(memory_bytes=0, cpu_count=0.0))
    return bool(connector.fetch(_GRANTED_PARAMETERS, (list(catalog.names),))[0]["granted"])


def _server_id(connector: DatabaseConnector) -> str:
    hidden = hashlib.sha256(connector.address.encode()).hexdigest()[:19]
    return system_identifier(connector) or hidden


def _data_directory(connector: DatabaseConnector) -> str | None:
    try:
        return str(connector.fetch("SELECT current_setting('data_directory') AS d")[0]["d"])
    except ServerConnectionError:
        raise
    except ServerError:  # shown to pg_read_all_settings alone
        return None
