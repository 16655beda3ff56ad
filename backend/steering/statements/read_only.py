"""Is a statement shown to be read-only?

Three nets behind each other: the statement's text must be one query (``statement_parts``); all that
it calls must be something that the server's catalogues call harmless (here); and it runs in a READ
ONLY transaction (``runner``). Where the first two are in doubt the answer is no, with the reason.

A function is what its owner declares: one declared STABLE that calls a volatile one is not seen
through. https://www.postgresql.org/docs/current/xfunc-volatility.html
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from backend.db_connector import DatabaseConnector
from backend.errors import ServerConnectionError, ServerError
from backend.steering.refusals import is_transient
from backend.steering.statements.statement_parts import Name, Names, NotReadOnlyError, parse_query
from backend.steering.statements.ties import CutTies

_MOST_DEFINITIONS = 50
# Declared stable or immutable, but they run a query that they are given as text.
_RUN_TEXT = {"crosstab", "crosstab2", "crosstab3", "crosstab4", "connectby", "xpath_table"}
# Declared stable, but they read tables, or views that call anything, which they are given as text.
_READ_NAMED = {
    f"{what}_to_{form}"
    for what in ("table", "schema", "database")
    for form in ("xml", "xml_and_xmlschema")
}
# Declared stable, but they take a number from the server, as a writing transaction does.
_TAKE_NUMBERS = {"txid_current", "pg_current_xact_id"}
# Schemas that an unqualified name never means unless somebody put them into the search path.
_NEVER_UNQUALIFIED = ("information_schema", "pg_toast")

_FUNCTIONS = """
SELECT n.nspname AS schema, p.proname AS name,
       bool_or(p.provolatile = 'v' OR EXISTS (
           SELECT FROM pg_aggregate a JOIN pg_proc f ON f.oid IN (
               a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
               a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
           WHERE a.aggfnoid = p.oid AND f.provolatile = 'v')) AS volatile,
       array_remove(array_agg(pg_get_expr(p.proargdefaults, 0)), NULL) AS defaults
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = ANY(%(names)s) AND p.prokind <> 'p'
GROUP BY 1, 2
"""
_OPERATORS = """
SELECT DISTINCT o.oprname AS name FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
WHERE o.oprname = ANY(%(names)s) AND p.provolatile = 'v'
"""
# a.b means b(a) where b is no column and takes a row.
_ATTRIBUTES = """
SELECT DISTINCT n.nspname AS schema, p.proname AS name
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     JOIN pg_type t ON t.oid = p.proargtypes[0]
WHERE p.proname = ANY(%(names)s) AND p.provolatile = 'v' AND p.prokind <> 'p'
      AND p.pronargs - p.pronargdefaults <= 1 AND t.typtype IN ('c', 'd', 'p')
"""
_CASTS = """
SELECT p.proname AS name FROM pg_cast c JOIN pg_proc p ON p.oid = c.castfunc
WHERE p.provolatile = 'v' LIMIT 1
"""
_CHECKED_DOMAINS = """
SELECT DISTINCT n.nspname AS schema, t.typname AS name
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     JOIN pg_constraint c ON c.contypid = t.oid
WHERE t.typname = ANY(%(names)s) AND c.contype = 'c'
"""
_RELATIONS = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relrowsecurity AS row_security,
       CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END AS definition,
       EXISTS (
           WITH RECURSIVE part(id) AS (
               SELECT c.oid UNION
               SELECT i.inhrelid FROM pg_inherits i JOIN part ON part.id = i.inhparent)
           SELECT FROM part JOIN pg_class f ON f.oid = part.id WHERE f.relkind = 'f') AS elsewhere
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = ANY(%(names)s) AND c.relkind IN ('r', 'p', 'm', 'v', 'f', 'S', 't')
"""

_MEANINGS = """
SELECT c.relname AS name, min(r.rolname) AS role
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_roles r ON r.rolname = n.nspname
WHERE c.relname = ANY(%(names)s) AND c.relkind IN ('r', 'p', 'm', 'v', 'f', 'S')
      AND c.relpersistence <> 't'
GROUP BY 1 HAVING count(*) > 1 AND count(r.rolname) > 0
"""


@dataclass(frozen=True)
class ReadOnlyVerdict:
    """Whether a statement may be run on trial.

    Args:
        statement: the statement without semicolon; empty where it is refused.
        refusal: why it may not; empty where it may.
        ties: which rows of its answer are chance.
    """

    statement: str
    refusal: str = ""
    ties: CutTies | None = None

    @property
    def is_read_only(self) -> bool:
        """Whether it is shown to only read."""
        return not self.refusal


class ReadOnlyCheck:
    """Asks a server's catalogues about what statements call.

    Names without a schema are looked up in all schemas, whatever the search path: a statement is
    refused when any function or view of that name is harmful.

    Args:
        connector: to the database in which the statements would run.
        allowed_functions: volatile functions that somebody vouches for, as ``schema.name``. Meant
            for an application's own ones, which are volatile unless declared otherwise.
    """

    def __init__(
        self, connector: DatabaseConnector, *, allowed_functions: Collection[str] = ()
    ) -> None:
        self._connector = connector
        self._allowed = frozenset(allowed_functions)

    def check(self, statement: str, search_path: str = '"$user", public') -> ReadOnlyVerdict:
        """Judge a statement with its parameters filled in.

        Args:
            statement: its text.
            search_path: of its application. One with ``"$user"`` has no one meaning where a table
                is in a schema named like a role, and elsewhere too: such a statement is refused.

        Raises:
            ServerConnectionError: the server could not be asked.
            ServerError: not now: somebody's lock is in the way, or the server is busy.
        """
        try:
            query = parse_query(statement)
            self._check_casts()
            self._check_names(query.names, seen=set())
            if "$user" in search_path:
                self._check_meanings(query.names)
        except NotReadOnlyError as error:
            return ReadOnlyVerdict("", str(error))
        return ReadOnlyVerdict(query.text, ties=query.ties)

    def _check_names(self, names: Names, seen: set[str]) -> None:
        self._check_functions(names.functions, seen)
        for row in self._ask(_OPERATORS, names.operators):
            raise NotReadOnlyError(f"an operator {row['name']} calls a volatile function")
        for row in self._ask(_ATTRIBUTES, names.attributes):
            if f"{row['schema']}.{row['name']}" not in self._allowed:
                raise NotReadOnlyError(f".{row['name']} may call a volatile function of that name")
        for row in self._ask(_CHECKED_DOMAINS, {name for _, name in names.types}):
            if _meant(row, names.types):
                raise NotReadOnlyError(f"the domain {row['name']} checks values by an expression")
        self._check_relations(names, seen)

    def _check_meanings(self, names: Names) -> None:
        unqualified = {name for schema, name in names.relations if not schema}
        for row in self._ask(_MEANINGS, unqualified):
            name = row["name"]
            raise NotReadOnlyError(
                f'under a search_path with "$user", {name} means {row["role"]}.{name} to the role '
                f"{row['role']}, and another table to others"
            )

    def _check_casts(self) -> None:
        for row in self._ask(_CASTS):
            raise NotReadOnlyError(
                f"the database has a cast by the volatile function {row['name']}, which any "
                "statement may use unseen"
            )

    def _check_functions(self, functions: Collection[Name], seen: set[str]) -> None:
        rows = self._ask(_FUNCTIONS, {name for _, name in functions})
        for schema, name in sorted(functions):
            found = [row for row in rows if _meant(row, {(schema, name)})]
            if not found:
                raise NotReadOnlyError(f"there is no function {name!r:.80}")
            if name in _RUN_TEXT:
                raise NotReadOnlyError(f"{name} runs a query that it is given as text")
            if name in _READ_NAMED:
                raise NotReadOnlyError(f"{name} reads what it is given by name")
            if name in _TAKE_NUMBERS:
                raise NotReadOnlyError(f"{name} takes a transaction number")
            for row in found:
                if row["volatile"] and f"{row['schema']}.{name}" not in self._allowed:
                    raise NotReadOnlyError(f"{row['schema']}.{name} is volatile")
                for default in row["defaults"]:
                    if "(" in default:  # more than a constant
                        self._check_definition(f"the defaults of {name}", f"SELECT {default}", seen)

    def _check_relations(self, names: Names, seen: set[str]) -> None:
        rows = self._ask(_RELATIONS, {name for _, name in names.relations})
        for schema, name in sorted(names.relations):
            found = [row for row in rows if _meant(row, {(schema, name)})]
            if not found and (schema or name not in names.with_queries):
                raise NotReadOnlyError(f"there is no table or view {name!r:.80}")
            for row in found:
                self._check_relation(row, seen)

    def _check_relation(self, row: dict[str, Any], seen: set[str]) -> None:
        name = f"{row['schema']}.{row['name']}"
        if row["elsewhere"]:
            raise NotReadOnlyError(f"{name} is a foreign table, or one of its parts is")
        if row["row_security"]:
            raise NotReadOnlyError(f"{name} has row security: other roles see other rows")
        if row["kind"] == "v":
            self._check_definition(f"the view {name}", row["definition"], seen)

    def _check_definition(self, what: str, query: str, seen: set[str]) -> None:
        """Check a query that the statement brings along unseen, once."""
        if query in seen:
            return
        seen.add(query)
        if len(seen) > _MOST_DEFINITIONS:
            raise NotReadOnlyError(f"more than {_MOST_DEFINITIONS} views and defaults are in it")
        try:
            self._check_names(parse_query(query).names, seen)
        except NotReadOnlyError as error:
            raise NotReadOnlyError(f"in {what}: {error}") from None

    def _ask(self, query: str, names: Collection[str] | None = None) -> list[dict[str, Any]]:
        if names is not None and not names:
            return []
        try:
            return self._connector.fetch(query, {"names": sorted(names)} if names else None)
        except ServerConnectionError:
            raise
        except ServerError as error:
            if is_transient(error):
                raise
            raise NotReadOnlyError(f"the server refused to tell: {error.message}") from error


def _meant(row: dict[str, Any], names: Collection[Name]) -> bool:
    """Whether a row of a catalogue can be what one of the names means."""
    unqualified = row["schema"] not in _NEVER_UNQUALIFIED and ("", row["name"]) in names
    return unqualified or (row["schema"], row["name"]) in names
