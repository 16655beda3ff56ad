"""What advice needs to know of a server beside its metrics: rights, tables, names of roles.

Nothing is written, and no row of a user's table is read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from backend.db_connector import DatabaseConnector
from backend.targets.postgresql_checkup import MANAGED
from backend.targets.postgresql_privileges import FIRST_WITH_PARAMETER_GRANTS

AWS_RDS, GOOGLE_CLOUD_SQL, AZURE = (
    MANAGED[role][0] for role in ("rds_superuser", "cloudsqlsuperuser", "azure_pg_admin")
)
_MOST_TABLES = 50

_STANDING = """
SELECT current_user AS role, current_database() AS database, pg_is_in_recovery() AS in_recovery,
       coalesce(current_setting('allow_alter_system', true), 'on') = 'off' AS alter_system_off,
       (SELECT min(s.rolname::text) FROM pg_roles AS s WHERE s.rolname = ANY(%s)) AS service_role
"""
_SETTABLE = """
SELECT s.name FROM pg_settings AS s
 WHERE s.name = ANY(%s) AND (s.context = 'user' OR {superuser_settings})
"""
_GRANTED = "has_parameter_privilege(s.name, 'SET')"
_SUPERUSER = "(SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user)"
_TABLES = """
SELECT t.schemaname AS schema, t.relname AS name, t.n_live_tup AS live_rows,
       t.n_dead_tup AS dead_rows, t.n_mod_since_analyze AS modified_rows,
       greatest(t.last_vacuum, t.last_autovacuum) AS vacuumed_at,
       greatest(t.last_analyze, t.last_autoanalyze) AS analyzed_at
  FROM pg_stat_user_tables AS t
 ORDER BY (t.n_live_tup > 0 AND t.last_analyze IS NULL AND t.last_autoanalyze IS NULL) DESC,
          greatest(t.n_dead_tup, t.n_mod_since_analyze) DESC
 LIMIT %s
"""
_ROLES = "SELECT r.oid::int8 AS id, r.rolname AS name FROM pg_roles AS r WHERE r.oid = ANY(%s)"


@dataclass(frozen=True)
class Rights:
    """What our role may set, and who runs the server.

    Args:
        role, database: where we are, and as whom.
        in_recovery: a stand-by.
        managed_by: the service that runs it (:data:`AWS_RDS`, ...); empty where none shows.
        alter_system_off: the server's files say ``allow_alter_system = off``.
        set_value: the knobs that our role may set for a session, a role or a database.
    """

    role: str
    database: str
    in_recovery: bool = False
    managed_by: str = ""
    alter_system_off: bool = False
    set_value: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TableState:
    """A table that autovacuum may be behind with. Rows are the server's estimates."""

    schema: str
    name: str
    live_rows: int
    dead_rows: int
    modified_rows: int
    vacuumed_at: datetime | None = None
    analyzed_at: datetime | None = None

    @property
    def dead_share(self) -> float:
        """Dead rows of all its rows."""
        rows = self.live_rows + self.dead_rows
        return self.dead_rows / rows if rows else 0.0


def rights(connector: DatabaseConnector, knobs: Sequence[str]) -> Rights:
    """What our role may do with these settings.

    Managed services are told by the role that they make; one that makes none is not known.

    Raises:
        ServerError: the server cannot be asked.
    """
    row = connector.fetch(_STANDING, (list(MANAGED),))[0]
    by_parameter = connector.server_version >= FIRST_WITH_PARAMETER_GRANTS
    settable = _SETTABLE.format(superuser_settings=_GRANTED if by_parameter else _SUPERUSER)
    return Rights(
        role=row["role"],
        database=row["database"],
        in_recovery=row["in_recovery"],
        managed_by=MANAGED.get(row["service_role"] or "", ("", ""))[0],
        alter_system_off=row["alter_system_off"],
        set_value=frozenset(s["name"] for s in connector.fetch(settable, (list(knobs),))),
    )


def tables(connector: DatabaseConnector) -> tuple[TableState, ...]:
    """The tables never analysed, and those with the most dead or changed rows.

    Raises:
        ServerError: the server cannot be asked.
    """
    return tuple(TableState(**row) for row in connector.fetch(_TABLES, (_MOST_TABLES,)))


def role_names(connector: DatabaseConnector, ids: Collection[int]) -> Mapping[int, str]:
    """The names of roles; those that are gone are left out.

    Raises:
        ServerError: the server cannot be asked.
    """
    return {row["id"]: row["name"] for row in connector.fetch(_ROLES, (sorted(ids),))}
