"""Query classes from pg_stat_statements: the application's statements, without our own.

Ours are told by the tag in their text, and those on trial by the role of the explorer too.

https://www.postgresql.org/docs/current/pgstatstatements.html
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg2 import sql

from backend.db_connector import EXPLORER_ROLE, DatabaseConnector, is_tagged
from backend.domain.metrics import QueryCounters, QueryKey
from backend.errors import ServerConnectionError, ServerError

_LOG = logging.getLogger(__name__)
# Statements that are work of the application. Transaction control, SET, maintenance and DDL are
# no query classes: they cost nothing in pg_stat_statements' own account, or do not recur.
_PLANNED = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE"})
_UTILITY = frozenset({"FETCH", "COPY", "CALL", "DO", "EXECUTE", "REFRESH"})
_NOISE = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/|\()+", re.DOTALL)
_KEYWORD = re.compile(r"[A-Za-z]+")
# Utility statements are stored as they were written, literals and all; so are others that were
# under way when their entry was evicted or the statistics were reset.
# Anybody who may send statements can write these texts: each branch matches whatever follows it, to
# the end if need be, so that no text takes more than linear time.
_LITERAL = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
      |(?P<name>"[^"]*(?:"|\Z))
      |(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)
      |\b[eE]'(?:[^'\\]|''|\\.?)*(?:'|\Z)
      |'(?:[^']|'')*(?:'|\Z)""",
    re.DOTALL | re.VERBOSE,
)
_QUOTED = re.compile(r"'[^']*'")
_NUMBER = re.compile(r"(?<![\w.$\"])\d[\d.]*(?:[eE][+-]?\d+)?(?!\w)")
_PARAMETER = re.compile(r"\$\d")
_MAX_TEXT = 20_000

_EXTENSION = """
SELECT n.nspname AS schema, e.extversion AS version
  FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
 WHERE e.extname = 'pg_stat_statements'
"""
_INFO = "SELECT dealloc, stats_reset FROM {schema}.pg_stat_statements_info"
# toplevel alone: with track = all, nested statements would be counted twice.
_COUNTERS = """
SELECT s.userid::int8, s.dbid::int8, s.queryid, s.calls, s.total_exec_time, s.rows,
       s.shared_blks_hit, s.shared_blks_read, s.temp_blks_written, s.wal_bytes::float8, s.plans
  FROM {schema}.pg_stat_statements(false) AS s
 WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND s.toplevel AND s.queryid IS NOT NULL
   AND s.userid NOT IN (SELECT oid FROM pg_roles WHERE rolname = {explorer})
"""
_TEXTS = """
SELECT s.userid::int8, s.dbid::int8, s.queryid, left(s.query, {length}) AS query
  FROM {schema}.pg_stat_statements(true) AS s
 WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND s.toplevel AND s.queryid = ANY(%s)
"""
GRANT_PRELOAD = (
    "set shared_preload_libraries = 'pg_stat_statements' (keep what it holds already), restart "
    "the server, then CREATE EXTENSION pg_stat_statements;"
)


@dataclass
class StatementReadings:
    """Counters of the application's query classes, and what tells whether they are whole."""

    queries: dict[QueryKey, QueryCounters] = field(default_factory=dict)
    evicted: int = 0
    reset_at: datetime | None = None


def classify(text: str) -> str | None:
    """The text to show for a statement that is a query class, else None.

    Our own statements and those that are no work of the application give None. Literals that
    a text still carries are replaced by ``$``; in one without any parameter numbers, too.
    """
    if is_tagged(text):
        return None
    noise = _NOISE.match(text)
    match = _KEYWORD.match(text, noise.end() if noise else 0)
    keyword = match.group().upper() if match else ""
    if keyword not in _PLANNED and keyword not in _UTILITY:
        return None
    shown = _LITERAL.sub(_without_literal, text[:_MAX_TEXT])
    if keyword in _PLANNED and not _PARAMETER.search(text):
        shown = _NUMBER.sub("$", shown)
    return shown


def _without_literal(found: re.Match[str]) -> str:
    if found["name"] is not None:
        return found["name"]
    return "$" if found["comment"] is None else _QUOTED.sub("$", found["comment"])


class StatementStatistics:
    """Reads pg_stat_statements of the connected database, if it is there.

    Texts are read only when a query class is seen for the first time, because they lie in a file
    that the server would have to read as a whole each time.
    """

    def __init__(self, connector: DatabaseConnector) -> None:
        self._connector = connector
        self._schema: sql.Identifier | None = None
        # Query classes met so far: their text, or None for statements that are not counted.
        self._texts: dict[QueryKey, str | None] = {}

    @property
    def available(self) -> bool:
        """Whether the last check found the statistics readable."""
        return self._schema is not None

    def why_missing(self) -> str | None:
        """The reason, with the SQL that helps, why there are no statistics; None if there are."""
        rows = self._connector.fetch(_EXTENSION)
        if not rows:
            self._schema = None
            return (
                f"the extension is not in database {self._connector.url.database!r}: "
                f"CREATE EXTENSION pg_stat_statements; "
                f"if it is not preloaded either: {GRANT_PRELOAD}"
            )
        if _version(rows[0]["version"]) < (1, 9):
            return (
                f"its version {rows[0]['version']} is too old (1.9 is needed): "
                "ALTER EXTENSION pg_stat_statements UPDATE;"
            )
        schema = sql.Identifier(rows[0]["schema"])
        try:
            self._connector.fetch(sql.SQL(_INFO).format(schema=schema))
            settings = self._connector.fetch(
                "SELECT current_setting('pg_stat_statements.track', true) AS track, "
                "current_setting('compute_query_id') AS query_id"
            )[0]
        except ServerConnectionError:
            raise
        except ServerError as error:
            return f"{error.message}; {GRANT_PRELOAD}"
        if settings["track"] == "none":
            return "ALTER SYSTEM SET pg_stat_statements.track = 'top'; SELECT pg_reload_conf();"
        if settings["query_id"] == "off":
            return "ALTER SYSTEM SET compute_query_id = 'auto'; SELECT pg_reload_conf();"
        self._schema = schema
        return None

    def read(self) -> StatementReadings:
        """Read the counters of all query classes; empty where there are no statistics.

        Raises:
            ServerConnectionError: the connection was lost.
        """
        if self._schema is None:
            return StatementReadings()
        try:
            _, info = self._connector.fetch_tuples(sql.SQL(_INFO).format(schema=self._schema))
            counters = sql.SQL(_COUNTERS).format(
                schema=self._schema, explorer=sql.Literal(EXPLORER_ROLE)
            )
            _, rows = self._connector.fetch_tuples(counters)
        except ServerConnectionError:
            raise
        except ServerError as error:  # somebody dropped the extension
            _LOG.warning("query statistics are not available: %s", error.message)
            self._schema = None
            return StatementReadings()
        keys = [QueryKey(row[0], row[1], row[2]) for row in rows]
        self._learn([key for key in keys if key not in self._texts])
        if len(self._texts) > 2 * len(keys) + 1000:
            present = set(keys)
            self._texts = {k: text for k, text in self._texts.items() if k in present}
        return StatementReadings(
            queries={
                key: QueryCounters(*row[3:])
                for key, row in zip(keys, rows, strict=True)
                if self._texts.get(key) is not None
            },
            evicted=info[0][0],
            reset_at=info[0][1],
        )

    def texts(self, keys: Collection[QueryKey]) -> Mapping[QueryKey, str]:
        """Normalised texts of query classes, as far as the server still has them."""
        if self._schema is not None:
            self._learn([key for key in keys if key not in self._texts])
        found = ((key, self._texts.get(key)) for key in keys)
        return {key: text for key, text in found if text is not None}

    def _learn(self, keys: Sequence[QueryKey]) -> None:
        if not keys or self._schema is None:
            return
        wanted = set(keys)
        _, rows = self._connector.fetch_tuples(
            sql.SQL(_TEXTS).format(schema=self._schema, length=sql.Literal(_MAX_TEXT)),
            ([key.queryid for key in keys],),
        )
        for userid, dbid, queryid, text in rows:
            key = QueryKey(userid, dbid, queryid)
            if key in wanted and text is not None:
                self._texts[key] = classify(text)


def _version(text: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(text)))
