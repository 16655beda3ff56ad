"""The SQL that grants our role what it needs, and no more; every place that names it asks here.

https://www.postgresql.org/docs/current/predefined-roles.html and sql-grant.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from backend.db_connector import quoted_identifier
from backend.domain.modes import Mode

FIRST_WITH_PARAMETER_GRANTS = 150000
"""Before this version ALTER SYSTEM is the superuser's alone."""
LOCK_DATABASE = "postgres"
"""Where the one-tuner lock is held."""
PARAMETERS_A_LINE = 4
EXPLORER_TEMP_FILE_LIMIT = "2GB"
"""Of temporary files for each process of a session: a plan on trial may not fill the disk."""


@dataclass(frozen=True)
class Grant:
    """One statement, and what it is for."""

    purpose: str
    statement: str


def monitor(role: str) -> str:
    """Statistics and settings of everybody."""
    return f"GRANT pg_monitor TO {quoted_identifier(role)};"


def read_entries(role: str) -> str:
    """The entries of postgresql.auto.conf, without which no change could be undone."""
    name = quoted_identifier(role)
    return (
        f"GRANT SELECT ON pg_catalog.pg_file_settings TO {name}; "
        f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_file_settings() TO {name};"
    )


def reload(role: str) -> str:
    """Have the server read its configuration again."""
    return f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO {quoted_identifier(role)};"


def alter_system(role: str, knobs: Sequence[str]) -> str:
    """Set these knobs, and only these, in postgresql.auto.conf (version 15 on)."""
    names = ", ".join(".".join(_parameter(part) for part in name.split(".")) for name in knobs)
    return f"GRANT ALTER SYSTEM ON PARAMETER {names} TO {quoted_identifier(role)};"


def database_name(database: str | None) -> str:
    """A database as a script for psql names it; None: the one that psql is connected to."""
    return ':"DBNAME"' if database is None else quoted_identifier(database)


def may_change_settings(mode: Mode) -> bool:
    """Whether the mode writes to the server."""
    return mode in (Mode.APPROVE, Mode.AUTO)


def grants(
    mode: Mode, role: str, database: str | None, version: int, knobs: Sequence[str]
) -> Iterator[Grant]:
    """What the role needs for a mode, statement by statement, for psql.

    Args:
        mode: how far the tuner may go.
        role: who the tuner connects as.
        database: the tuned database; None: the one that psql is connected to.
        version: the server's, such as 170010.
        knobs: the settings that may be tried.
    """
    name = quoted_identifier(role)
    places = {
        database_name(LOCK_DATABASE): "hold the lock that lets one tuner act on a server",
        database_name(database): "connect to the tuned database",
    }
    for place, purpose in places.items():
        yield Grant(purpose, f"GRANT CONNECT ON DATABASE {place} TO {name};")
    yield Grant("read statistics and settings of all roles", monitor(role))
    if not may_change_settings(mode) or version < FIRST_WITH_PARAMETER_GRANTS:
        return
    yield Grant(
        "see the entries of postgresql.auto.conf, so that a change can be undone",
        read_entries(role),
    )
    yield Grant("have the configuration read again", reload(role))
    for start in range(0, len(knobs), PARAMETERS_A_LINE):
        purpose = "set these knobs and no others" if start == 0 else ""
        yield Grant(purpose, alter_system(role, knobs[start : start + PARAMETERS_A_LINE]))


def explorer_grants(role: str, version: int) -> Iterator[str]:
    """What the role needs under which statements are tried: it reads every table, writes nothing.

    Its temporary files are bounded, and from version 15 on it may keep what it runs out of
    pg_stat_statements.
    """
    name = quoted_identifier(role)
    yield f"ALTER ROLE {name} SET default_transaction_read_only = on;"
    yield f"ALTER ROLE {name} SET temp_file_limit = '{EXPLORER_TEMP_FILE_LIMIT}';"
    yield f"GRANT pg_read_all_data TO {name};"
    if version >= FIRST_WITH_PARAMETER_GRANTS:
        yield f"GRANT SET ON PARAMETER pg_stat_statements.track TO {name};"


def _parameter(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else quoted_identifier(name)
