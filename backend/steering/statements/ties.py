"""Which rows of an answer are chance: those with the last sort key when LIMIT cuts them.

``ORDER BY orders DESC LIMIT 20`` may return any of the rows that tie for the twentieth place, and
other plans return others. SQL calls each of these answers right; so they are compared without the
rest of the tying rows. https://www.postgresql.org/docs/current/queries-limit.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pglast import enums


@dataclass(frozen=True)
class CutTies:
    """Where a query sorts by columns of its answer and cuts it.

    Args:
        columns: the sort key, as indices of the answer's columns.
        limit: the most rows that the answer has.
        has_offset: whether it is cut at its beginning, too.
    """

    columns: tuple[int, ...]
    limit: int
    has_offset: bool


def cut_ties(query: Any) -> CutTies | None:
    """Return how a query cuts its sorted answer.

    Args:
        query: a ``SelectStmt`` of pglast.

    Returns:
        None where it cuts nothing, and where the sort key cannot be found in the answer.
    """
    limit = _integer(query.limitCount)
    cuts = query.limitOption == enums.LimitOption.LIMIT_OPTION_COUNT
    if not cuts or not query.sortClause or limit is None:
        return None
    first = query
    while first.larg is not None:  # the first part of a UNION names the columns
        first = first.larg
    targets = first.targetList or ()
    if any(_is_star(target.val) for target in targets):
        return None
    try:
        columns = [_column(key.node, targets) for key in query.sortClause]
    except RecursionError:
        return None
    found = tuple(column for column in columns if column is not None)
    if len(found) != len(columns):
        return None
    return CutTies(found, limit, query.limitOffset is not None)


def _column(key: Any, targets: Sequence[Any]) -> int | None:
    """The answer's column that an expression of ORDER BY means."""
    position = _integer(key)
    if position is not None:
        return position - 1 if 0 < position <= len(targets) else None
    if _kind(key) == "ColumnRef" and len(key.fields) == 1:
        names = [_output_name(target) for target in targets]
        name = key.fields[0].sval
        if name in names:
            return names.index(name)
    return next((i for i, target in enumerate(targets) if target.val == key), None)


def _output_name(target: Any) -> str | None:
    if target.name is not None:
        return str(target.name)
    return str(target.val.fields[-1].sval) if _kind(target.val) == "ColumnRef" else None


def _is_star(value: Any) -> bool:
    parts: Sequence[Any] = ()
    if _kind(value) == "ColumnRef":
        parts = value.fields
    elif _kind(value) == "A_Indirection":
        parts = value.indirection
    return bool(parts) and _kind(parts[-1]) == "A_Star"


def _integer(value: Any) -> int | None:
    is_integer = _kind(value) == "A_Const" and _kind(value.val) == "Integer"
    return int(value.val.ival) if is_integer else None


def _kind(node: Any) -> str:
    return type(node).__name__
