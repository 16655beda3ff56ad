"""Copies a sample of the original's rows to the scratch server.

The original is read in one read-only transaction, so that what belongs together is taken together,
with a time-out for each statement, all tagged. Rows travel as COPY's text, from memory to memory or
through a temporary file without a name.
"""

from __future__ import annotations

import io
import logging
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Any

import psycopg2
from psycopg2 import sql

from backend.errors import ServerConnectionError
from backend.sandbox.row_plan import ForeignKey, TableFacts, TablePlan
from backend.steering.running.trial_session import TrialSession

STATEMENT_TIMEOUT_S = 20.0
_LOCK_TIMEOUT_MS = "500"
_IN_MEMORY_BYTES = 16 * 1024**2
_MOST_KEYS = 20_000
"""Parents that are looked up in one statement."""
_MOST_OF_A_PARENT = 10_000

_EXACT_TEXT = (("extra_float_digits", "1"), ("datestyle", "ISO"), ("intervalstyle", "postgres"))
"""So that every value is read back as it was."""
_TABLES = """
WITH RECURSIVE used(oid) AS (
    SELECT c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm') AND n.nspname !~ '^pg_'
       AND n.nspname <> 'information_schema' AND c.relname = ANY(%(names)s)
    UNION
    SELECT next.oid FROM used CROSS JOIN LATERAL (
        SELECT d.refobjid AS oid FROM pg_rewrite AS r
          JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
         WHERE r.ev_class = used.oid AND d.refclassid = 'pg_class'::regclass
        UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = used.oid
        UNION ALL SELECT confrelid FROM pg_constraint WHERE conrelid = used.oid AND contype = 'f'
    ) AS next)
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name,
       greatest(c.reltuples, 0)::float8 AS rows, pg_relation_size(c.oid)::float8 AS bytes,
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = '' ORDER BY a.attnum) AS columns
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid IN (SELECT oid FROM used) AND c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND has_table_privilege(c.oid, 'SELECT') AND NOT c.relrowsecurity
 ORDER BY c.oid
"""
_FOREIGN_KEYS = """
SELECT k.conrelid::int8 AS child, k.confrelid::int8 AS parent,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(num, place)
               JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.num
              ORDER BY u.place) AS columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(num, place)
               JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.num
              ORDER BY u.place) AS parent_columns,
       ARRAY(SELECT format_type(a.atttypid, a.atttypmod)
               FROM unnest(k.confkey) WITH ORDINALITY AS u(num, place)
               JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.num
              ORDER BY u.place) AS types,
       EXISTS (SELECT FROM pg_index AS i
                WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
                  AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey) AS is_indexed
  FROM pg_constraint AS k WHERE k.contype = 'f' AND k.conrelid = ANY(%(oids)s)
 ORDER BY k.oid
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CopiedRows:
    """How much was copied: of ``tables`` tables, of which ``whole`` whole."""

    tables: int
    whole: int
    rows: int
    size_bytes: int


def read_tables(source: TrialSession, names: Sequence[str]) -> list[TableFacts]:
    """The tables that statements with these names of tables and views read, and their parents.

    Tables that our role may not read, or not all of, are left out.

    Raises:
        ServerConnectionError, psycopg2.Error: the source cannot tell.
    """
    rows_found = source.execute(_TABLES, {"names": list(names)})
    found = {
        int(oid): (schema, name, tuple(columns), rows, size)
        for oid, schema, name, rows, size, columns in rows_found
        if columns
    }
    keys: dict[int, list[ForeignKey]] = {oid: [] for oid in found}
    for child, parent, columns, parent_columns, types, is_indexed in source.execute(
        _FOREIGN_KEYS, {"oids": list(found)}
    ):
        if parent in found and child in found and parent != child:
            keys[child].append(
                ForeignKey(parent, tuple(columns), tuple(parent_columns), tuple(types), is_indexed)
            )
    return [
        TableFacts(oid, schema, name, columns, rows, size, tuple(keys[oid]))
        for oid, (schema, name, columns, rows, size) in found.items()
    ]


class RowCopy:
    """Copies planned rows.

    Args:
        source: inside a transaction that only reads.
        scratch: a connection of the role that owns the copy, in autocommit.
        max_bytes: of COPY's text, over all tables.
        seed: of the blocks and keys that are chosen.
        is_over: asked between tables: whether to stop with what there is.
    """

    def __init__(
        self,
        source: TrialSession,
        scratch: Any,
        *,
        max_bytes: int,
        seed: int,
        is_over: Callable[[], bool],
    ) -> None:
        self._source, self._scratch = source, scratch
        self._left_bytes, self._max_bytes = max_bytes, max_bytes
        self._draw, self._is_over = random.Random(seed), is_over

    def copy(self, plans: Sequence[TablePlan]) -> CopiedRows:
        """Copy, parents first, and then the parents that sampled rows miss.

        A table that cannot be read in time stays as far as it came; one whose definition could not
        be made here is left out.

        Raises:
            ServerConnectionError: one of the servers is gone.
        """
        plans = [plan for plan in plans if self._is_there(plan.table)]
        by_oid = {plan.table.oid: plan for plan in plans}
        rows = whole = 0
        for plan in plans:
            if self._is_over() or self._left_bytes <= 0:
                break
            rows += self._copy_table(plan, by_oid)
            whole += plan.is_whole
        for plan in reversed(plans):
            for key in plan.table.foreign_keys:
                parent = by_oid.get(key.parent)
                if parent is not None and not parent.is_whole and not self._is_over():
                    rows += self._copy_missing_parents(plan.table, key, parent)
        return CopiedRows(len(plans), whole, rows, self._max_bytes - self._left_bytes)

    def _is_there(self, table: TableFacts) -> bool:
        with self._scratch.cursor() as cursor:
            name = _name(table).as_string(cursor)
            cursor.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (name,))
            return bool(cursor.fetchone()[0])

    # -- what is taken ----------------------------------------------------------------------------

    def _copy_table(self, plan: TablePlan, by_oid: dict[int, TablePlan]) -> int:
        table = plan.table
        if plan.is_whole:
            return self._transfer(table, _select(table, sql.SQL(""), plan.rows))
        key = plan.governed_by
        if key is not None and key.parent in by_oid:
            parent = by_oid[key.parent].table
            keys = self._keys_of(parent, key)
            each = max(plan.table.likely_rows / max(parent.likely_rows, 1.0), 1.0)
            chosen = self._draw.sample(keys, min(len(keys), int(plan.rows / each) + 1, _MOST_KEYS))
            if chosen:
                return self._transfer(
                    table, _rows_of(table, key.columns, key.types, chosen, plan.rows)
                )
        blocks = sql.SQL(" TABLESAMPLE SYSTEM ({}) REPEATABLE ({})").format(
            sql.Literal(plan.percent), sql.Literal(self._draw.randrange(2**31))
        )
        copied = self._transfer(table, _select(table, blocks, plan.rows))
        # Few blocks hold many rows, or none.
        return copied or self._transfer(table, _select(table, sql.SQL(""), plan.rows))

    def _keys_of(self, parent: TableFacts, key: ForeignKey) -> list[tuple[str, ...]]:
        columns = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(column)) for column in key.parent_columns
        )
        with self._scratch.cursor() as cursor:
            cursor.execute(
                sql.SQL("SELECT DISTINCT {} FROM ONLY {} ORDER BY 1").format(columns, _name(parent))
            )
            return list(cursor.fetchall())

    def _copy_missing_parents(self, child: TableFacts, key: ForeignKey, parent: TablePlan) -> int:
        pairs = list(zip(key.columns, key.parent_columns, strict=True))
        missing = sql.SQL(
            "SELECT DISTINCT {columns} FROM ONLY {child} AS c WHERE {known} AND NOT EXISTS ("
            "SELECT FROM ONLY {parent} AS p WHERE {same}) LIMIT {most}"
        ).format(
            columns=sql.SQL(", ").join(
                sql.SQL("c.{}::text").format(sql.Identifier(own)) for own, _ in pairs
            ),
            child=_name(child),
            known=sql.SQL(" AND ").join(
                sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(own)) for own, _ in pairs
            ),
            parent=_name(parent.table),
            same=sql.SQL(" AND ").join(
                sql.SQL("p.{} = c.{}").format(sql.Identifier(theirs), sql.Identifier(own))
                for own, theirs in pairs
            ),
            most=sql.Literal(min(_MOST_KEYS, parent.rows)),
        )
        with self._scratch.cursor() as cursor:
            cursor.execute(missing)
            keys = list(cursor.fetchall())
        if not keys or self._left_bytes <= 0:
            return 0
        return self._transfer(
            parent.table,
            _rows_of(parent.table, key.parent_columns, key.types, keys, len(keys)),
        )

    # -- the way ----------------------------------------------------------------------------------

    def _transfer(self, table: TableFacts, query: sql.Composable) -> int:
        """Copy a query's rows into the table of the same name; returns how many."""
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as kept:
            sink = _Lines(kept, self._left_bytes)
            limits = (
                ("statement_timeout", str(int(STATEMENT_TIMEOUT_S * 1000))),
                ("lock_timeout", _LOCK_TIMEOUT_MS),
                *_EXACT_TEXT,
            )
            with closing(self._scratch.cursor()) as cursor:
                text = query.as_string(cursor)
            try:
                with self._source.arm(limits):
                    self._source.copy_out(text, sink, timeout_s=STATEMENT_TIMEOUT_S)
            except ServerConnectionError:
                raise
            except psycopg2.Error as error:
                logger.info("a table was not read to its end: SQLSTATE %s", error.pgcode)
            self._left_bytes -= sink.size
            kept.seek(0)
            target = sql.SQL("COPY {} ({}) FROM STDIN").format(
                _name(table), sql.SQL(", ").join(map(sql.Identifier, table.columns))
            )
            with self._scratch.cursor() as cursor:
                try:
                    cursor.copy_expert(target, kept)
                except psycopg2.OperationalError:
                    raise
                except psycopg2.Error as error:
                    # Its definition did not come over, or differs.
                    logger.info("a table cannot take its rows: SQLSTATE %s", error.pgcode)
                    return 0
                return int(cursor.rowcount)


class _Lines(io.RawIOBase):
    """Keeps whole lines up to a number of bytes, and swallows the rest."""

    def __init__(self, kept: IO[bytes], max_bytes: int) -> None:
        self._kept, self._left = kept, max_bytes
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Take one or more lines, as psycopg2 hands them over: never a part of one."""
        size = len(data)
        if size <= self._left:
            self._kept.write(data)
            self._left -= size
            self.size += size
        else:
            self._left = 0
        return size


def _select(table: TableFacts, sampling: sql.Composable, rows: int) -> sql.Composed:
    return sql.SQL("SELECT {} FROM ONLY {}{} LIMIT {}").format(
        _columns(table), _name(table), sampling, sql.Literal(rows)
    )


def _rows_of(
    table: TableFacts,
    columns: Sequence[str],
    types: Sequence[str],
    keys: Sequence[tuple[str, ...]],
    rows: int,
) -> sql.Composed:
    """A table's rows with one of these keys, looked up one key after the other.

    The inner LIMIT keeps the planner from reading the whole table for it.
    """
    numbered = [f"k{place}" for place in range(len(columns))]
    return sql.SQL(
        "SELECT found.* FROM unnest({arrays}) AS key({names}) CROSS JOIN LATERAL ("
        "SELECT {columns} FROM ONLY {table} AS t WHERE {same} LIMIT {most}) AS found LIMIT {rows}"
    ).format(
        arrays=sql.SQL(", ").join(
            sql.SQL("{}::{}[]").format(sql.Literal([key[place] for key in keys]), sql.SQL(kind))
            for place, kind in enumerate(types)
        ),
        names=sql.SQL(", ").join(map(sql.Identifier, numbered)),
        columns=_columns(table),
        table=_name(table),
        same=sql.SQL(" AND ").join(
            sql.SQL("t.{} = key.{}").format(sql.Identifier(column), sql.Identifier(number))
            for column, number in zip(columns, numbered, strict=True)
        ),
        most=sql.Literal(_MOST_OF_A_PARENT),
        rows=sql.Literal(rows),
    )


def _columns(table: TableFacts) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, table.columns))


def _name(table: TableFacts) -> sql.Composed:
    return sql.SQL("{}.{}").format(sql.Identifier(table.schema), sql.Identifier(table.name))
