"""Which statistics would have told the planner how many rows there are.

https://www.postgresql.org/docs/current/sql-createstatistics.html
https://www.postgresql.org/docs/current/sql-altertable.html (SET STATISTICS)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.db_connector import quoted_identifier
from backend.steering.plans.plan_conditions import Operand

MAX_COLUMNS = 8
"""Columns and expressions that one extended statistics object takes."""
HIGHER_TARGET = 1000
"""Values that are remembered of a column, and ten times the default."""

_MAX_NAME_BYTES = 63


@dataclass(frozen=True)
class Relation:
    """A table."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def quoted(self) -> str:
        """As SQL."""
        return f"{quoted_identifier(self.schema)}.{quoted_identifier(self.name)}"


@dataclass(frozen=True)
class Remedy:
    """One change to the statistics that are kept of a table.

    Args:
        what: the statistics' name, qualified and quoted; else the statement.
        change: the statement; empty where the table only needs to be analysed.
        analyze: the statement that must follow it.
        undo: the statement that takes it back; empty where there is nothing to take back.
    """

    what: str
    change: str
    analyze: str
    undo: str = ""


@dataclass(frozen=True)
class Advice:
    """What can be done about a wrong estimate.

    Args:
        text: the reason, for people.
        remedies: what would help; none where statistics cannot.
    """

    text: str
    remedies: tuple[Remedy, ...] = ()

    @property
    def sql(self) -> tuple[str, ...]:
        """The remedies' statements in order."""
        return tuple(s for r in self.remedies for s in (r.change, r.analyze) if s)

    @property
    def undo(self) -> tuple[str, ...]:
        """The statements that take them back."""
        return tuple(remedy.undo for remedy in self.remedies if remedy.undo)


def scan_advice(
    alias: str, operands: Sequence[Operand], relations: Mapping[str, Relation]
) -> Advice:
    """What helps a scan whose conditions let through other rows than expected.

    Args:
        alias: of the table that is scanned.
        operands: of its conditions.
        relations: the plan's tables by alias.
    """
    relation = relations.get(alias)
    if relation is None:
        return Advice("Its table is not known.")
    if not operands:
        return Advice(
            "Nothing is filtered here: the table has grown or shrunk since it was analysed.",
            (Remedy(relation.quoted, "", _analyze(relation)),),
        )
    if any(operand.alias != alias for operand in operands):
        return Advice(
            "The rows are looked up by values of another table, and some values have far more "
            "rows than others. No statistics of PostgreSQL cover that; a hint set does."
        )
    if any(operand.has_literal for operand in operands):
        return _with_a_constant(relation)
    if len(operands) == 1 and operands[0].is_column:
        return _higher_target(relation, operands[0].columns[0])
    kinds = "dependencies, ndistinct, mcv"
    return _extended(relation, operands, kinds, _SCAN_WORDS)


def grouping_advice(operands: Sequence[Operand], relations: Mapping[str, Relation]) -> Advice:
    """What helps a grouping that found another number of groups than expected.

    Args:
        operands: the grouping keys.
        relations: the plan's tables by alias.
    """
    by_table: dict[str, list[Operand]] = {}
    for operand in operands:
        by_table.setdefault(operand.alias, []).append(operand)
    found: list[Advice] = []
    for alias, keys in by_table.items():
        relation = relations.get(alias)
        if relation is None:
            continue
        if any(key.has_literal for key in keys):
            found.append(_with_a_constant(relation))
        elif len(keys) > 1 or not keys[0].is_column:
            found.append(_extended(relation, keys, "ndistinct", _GROUP_WORDS))
        elif len(by_table) == 1:
            found.append(_higher_target(relation, keys[0].columns[0]))
    if not found:
        return Advice(
            "The number of groups rests on columns of several tables, or of a sub-query; no "
            "statistics of PostgreSQL cover that."
        )
    return Advice(
        " ".join(dict.fromkeys(advice.text for advice in found)),
        tuple(remedy for advice in found for remedy in advice.remedies),
    )


# -- inside ---------------------------------------------------------------------------------------

_SCAN_WORDS = (
    "The planner multiplies the shares of these conditions as if they had nothing to do with each "
    "other."
)
_GROUP_WORDS = "The planner does not know how many different combinations there are."
_EXPRESSION_WORDS = "The planner has no statistics of what is made of the column."


def _extended(relation: Relation, operands: Sequence[Operand], kinds: str, words: str) -> Advice:
    if len(operands) == 1:
        kinds, words = "", _EXPRESSION_WORDS  # the server takes no kinds for one expression
    kept = operands[:MAX_COLUMNS]
    parts = [f"({o.expression})" if o.expression else quoted_identifier(o.columns[0]) for o in kept]
    columns = dict.fromkeys(column for o in kept for column in o.columns)
    name = _object_name(relation, list(columns), parts)
    quoted = f"{quoted_identifier(relation.schema)}.{quoted_identifier(name)}"
    create = (
        f"CREATE STATISTICS {quoted}{f' ({kinds})' if kinds else ''} "
        f"ON {', '.join(parts)} FROM {relation.quoted};"
    )
    remedy = Remedy(quoted, create, _analyze(relation), f"DROP STATISTICS {quoted};")
    return Advice(words, (remedy,))


def _higher_target(relation: Relation, column: str) -> Advice:
    alter = f"ALTER TABLE {relation.quoted} ALTER COLUMN {quoted_identifier(column)} SET STATISTICS"
    change, undo = f"{alter} {HIGHER_TARGET};", f"{alter} -1;"
    return Advice(
        "The column's values are spread too unevenly for the statistics that are kept of it.",
        (Remedy(change, change, _analyze(relation), undo),),
    )


def _analyze(relation: Relation) -> str:
    return f"ANALYZE {relation.quoted};"


def _with_a_constant(relation: Relation) -> Advice:
    return Advice(
        f"{_EXPRESSION_WORDS} The expression holds a constant of the statement, which is not "
        f"repeated here: CREATE STATISTICS name ON (the expression) FROM {relation.quoted} helps, "
        "from PostgreSQL 14 on."
    )


def _object_name(relation: Relation, columns: Sequence[str], parts: Sequence[str]) -> str:
    """A name that is the same each time, and another one for other columns."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]
    readable = "_".join([relation.name, *columns])
    kept = readable.encode()[: _MAX_NAME_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{kept}_{digest}"
