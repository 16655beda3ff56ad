"""A PostgreSQL server looked at item by item: what it offers, what is missing, what would help.

Nothing is changed. An item that cannot be looked at is told as such; none of them is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backend.db_connector import (
    NEWEST_VERSION,
    OLDEST_VERSION,
    DatabaseConnector,
    quoted_identifier,
)
from backend.domain.server import ServerInfo
from backend.errors import AutopilotError
from backend.targets import postgresql_privileges as privileges

SESSIONS_NEEDED = 5
"""Three of the tuner, two of the watchdog."""
FINE, MISSING, HINT = "fine", "missing", "hint"

_SESSION = """
SELECT current_user AS role, current_database() AS database, r.rolsuper AS superuser,
       r.rolconnlimit AS connection_limit, host(inet_server_addr()) AS server_address,
       (SELECT s.version || ', ' || s.cipher FROM pg_stat_ssl AS s
         WHERE s.pid = pg_backend_pid() AND s.ssl) AS tls,
       pg_is_in_recovery() AS in_recovery,
       current_setting('allow_alter_system', true) AS allow_alter_system,
       pg_has_role('pg_read_all_stats', 'USAGE') AS read_all_stats,
       pg_has_role('pg_read_all_settings', 'USAGE') AS read_all_settings,
       ARRAY(SELECT m.rolname::text FROM pg_roles AS m WHERE m.rolname IN
             ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin')) AS managed_roles
  FROM pg_roles AS r WHERE r.rolname = current_user
"""
_STATEMENTS = """
SELECT a.default_version AS available,
       (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = a.name) AS created
  FROM pg_available_extensions AS a WHERE a.name = 'pg_stat_statements'
"""
_STATEMENT_SETTINGS = """
SELECT current_setting('pg_stat_statements.track', true) AS track,
       current_setting('pg_stat_statements.track_planning', true) AS track_planning,
       current_setting('pg_stat_statements.max', true) AS most,
       current_setting('compute_query_id') AS query_id,
       current_setting('track_io_timing') AS io_timing
"""
MANAGED = {
    "rds_superuser": ("Amazon RDS or Aurora", "the instance's parameter group"),
    "cloudsqlsuperuser": ("Google Cloud SQL", "the instance's database flags"),
    "azure_pg_admin": ("Azure Database for PostgreSQL", "the server's parameters"),
}
"""Roles that only these services have; the service, and what stands for postgresql.conf there."""


@dataclass(frozen=True)
class Item:
    """One thing that was looked at.

    Args:
        name: what it is.
        state: :data:`FINE`, :data:`MISSING` or :data:`HINT` (works without).
        found: what was found.
        consequence: what is not possible without it; "" where nothing is lost.
        remedy: what helps; "" where nothing needs to.
    """

    name: str
    state: str
    found: str
    consequence: str = ""
    remedy: str = ""


def check_up(
    connector: DatabaseConnector, info: ServerInfo, writable: Mapping[str, bool]
) -> list[Item]:
    """Look at everything.

    Args:
        connector: to the tuned database.
        info: as the target describes it.
        writable: the knobs that would be tried, and whether our role may set each.

    Raises:
        ServerConnectionError: the server was lost.
    """
    session = connector.fetch(_SESSION)[0]
    return [
        *_connection(session),
        _version(info),
        *_roles(session, info),
        _lock(connector),
        *_statistics(connector, info),
        *_writing(session, info, writable),
    ]


def _connection(session: Mapping[str, Any]) -> Iterator[Item]:
    address = session["server_address"]
    if session["tls"]:
        yield Item("encryption", FINE, session["tls"])
    elif address is None or address.startswith("127.") or address == "::1":
        yield Item("encryption", FINE, "none; the connection does not leave this machine")
    else:
        yield Item(
            "encryption",
            HINT,
            "none",
            "statements and results can be read on the way",
            "set sslmode=verify-full and sslrootcert (PGSSLMODE, PGSSLROOTCERT)",
        )
    limit = session["connection_limit"]
    if 0 <= limit < SESSIONS_NEEDED:
        yield Item(
            "connections",
            MISSING,
            f"the role's CONNECTION LIMIT is {limit}",
            f"tuner and watchdog need {SESSIONS_NEEDED}",
            f"ALTER ROLE {quoted_identifier(session['role'])} CONNECTION LIMIT {SESSIONS_NEEDED};",
        )


def _version(info: ServerInfo) -> Item:
    if info.version // 10000 <= NEWEST_VERSION:
        return Item("version", FINE, info.version_text)
    return Item(
        "version",
        MISSING,
        info.version_text,
        "nothing is changed on it",
        f"known here are {OLDEST_VERSION} to {NEWEST_VERSION}: use a newer autopilot",
    )


def _roles(session: Mapping[str, Any], info: ServerInfo) -> Iterator[Item]:
    role = session["role"]
    if info.can("restart"):
        yield Item("role", FINE, f"{role}, of a server of our own")
    elif session["superuser"]:
        yield Item("role", HINT, f"{role} is a superuser", "", "less is enough: run.py grants")
    else:
        yield Item("role", FINE, f"{role}, no superuser")
    for privilege, what in (
        ("read_all_stats", "other roles' statements and sessions are hidden from us"),
        ("read_all_settings", "some settings are hidden from us"),
    ):
        if session[privilege]:
            yield Item(f"pg_{privilege}", FINE, "granted")
        else:
            yield Item(f"pg_{privilege}", MISSING, "not granted", what, privileges.monitor(role))


def _lock(connector: DatabaseConnector) -> Item:
    place = connector.in_database(privileges.LOCK_DATABASE)
    try:
        place.fetch("SELECT 1")
    except AutopilotError as error:
        return Item(
            "one-tuner lock", MISSING, error.message, "the tuner does not start", error.remedy or ""
        )
    finally:
        place.close()
    return Item("one-tuner lock", FINE, f"database {privileges.LOCK_DATABASE} lets us in")


def _statistics(connector: DatabaseConnector, info: ServerInfo) -> Iterator[Item]:
    name = "pg_stat_statements"
    rows = connector.fetch(_STATEMENTS)
    settings = connector.fetch(_STATEMENT_SETTINGS)[0]
    lost = "nothing can be compared: only observe is possible"
    reason = info.missing.get("statement_statistics")
    if reason is None:
        yield Item(name, FINE, f"version {rows[0]['created']}, loaded" if rows else "loaded")
    elif not rows:
        yield Item(
            name,
            MISSING,
            "not installed on the server's machine",
            lost,
            f"install PostgreSQL's contrib modules (on Debian: part of postgresql-"
            f"{info.version // 10000}); then {reason}",
        )
    elif rows[0]["created"] is None:
        yield Item(name, MISSING, "not created in this database", lost, reason)
    else:
        yield Item(name, MISSING, f"version {rows[0]['created']}, of no use", lost, reason)
    if reason is None and settings["track_planning"] == "off":
        yield Item(
            f"{name}.track_planning",
            HINT,
            "off",
            "time spent planning is not seen",
            "ALTER SYSTEM SET pg_stat_statements.track_planning = on; SELECT pg_reload_conf(); "
            "(it costs where many sessions run the same statements)",
        )
    if reason is None and int(settings["most"] or 5000) < 1000:
        yield Item(
            f"{name}.max",
            HINT,
            settings["most"],
            "statements fall out between two looks, and windows are lost",
            "ALTER SYSTEM SET pg_stat_statements.max = 5000; then restart the server",
        )
    if settings["io_timing"] == "on":
        yield Item("track_io_timing", FINE, "on")
    else:
        yield Item(
            "track_io_timing",
            HINT,
            "off",
            "time spent reading and writing is not seen",
            info.missing.get("io_timing", ""),
        )


def _writing(
    session: Mapping[str, Any], info: ServerInfo, writable: Mapping[str, bool]
) -> Iterator[Item]:
    role, lost = session["role"], "no mode beyond advise"
    if session["in_recovery"]:
        remedy = info.missing.get("alter_system", "")
        yield Item("primary", MISSING, "this is a stand-by", lost, remedy)
    else:
        yield Item("primary", FINE, "yes")
    for managed in session["managed_roles"]:
        service, place = MANAGED[managed]
        yield Item(
            "managed server",
            HINT,
            f"role {managed} exists: {service}, it seems",
            "such services often refuse ALTER SYSTEM",
            f"take the text of mode advise to {place}",
        )
    if session["allow_alter_system"] is not None:
        yield _switched(session["allow_alter_system"] == "on", lost)
    for capability, name in (
        ("file_settings", "pg_file_settings"),
        ("reload", "pg_reload_conf()"),
    ):
        if info.can(capability):
            yield Item(name, FINE, "granted")
        else:
            yield Item(name, MISSING, "not granted", lost, info.missing.get(capability, ""))
    yield _parameters(role, session["superuser"], info, writable, lost)


def _switched(allowed: bool, lost: str) -> Item:
    if allowed:
        return Item("allow_alter_system", FINE, "on")
    return Item(
        "allow_alter_system",
        MISSING,
        "off",
        lost,
        "settings are managed elsewhere, so take the text of mode advise there; or set "
        "allow_alter_system = on in postgresql.conf and reload",
    )


def _parameters(
    role: str, superuser: bool, info: ServerInfo, writable: Mapping[str, bool], lost: str
) -> Item:
    name = "ALTER SYSTEM"
    refused = [knob for knob, may in writable.items() if not may]
    if not refused:
        return Item(name, FINE, f"all {len(writable)} knobs that would be tried")
    if info.version < privileges.FIRST_WITH_PARAMETER_GRANTS and not superuser:
        return Item(name, MISSING, "before version 15 the superuser's alone", lost,
                    "use mode advise, or PostgreSQL 15 or newer")  # fmt: skip
    remedy = privileges.alter_system(role, refused)
    if len(refused) == len(writable):
        return Item(name, MISSING, "granted for none of the knobs", lost, remedy)
    found = f"granted for {len(writable) - len(refused)} of {len(writable)} knobs"
    return Item(name, HINT, found, f"not tried: {', '.join(refused)}", remedy)
