"""Which columns a plan's conditions and grouping keys look at; the constants in them are dropped.

EXPLAIN prints a step's conditions as SQL expressions with the constants of the statement in them,
which may be data of people. What is returned from here never holds one of them, but for the names
of parts of a time, such as ``day``.
https://www.postgresql.org/docs/current/functions-datetime.html#FUNCTIONS-DATETIME-EXTRACT
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pglast
from pglast import ast
from pglast.stream import RawStream

from backend.steering.statements.statement_parts import MAX_CHARACTERS, MAX_TOKENS

_TIME_PARTS = frozenset({
    "microseconds", "milliseconds", "second", "minute", "hour", "day", "week", "month", "quarter",
    "year", "decade", "century", "millennium", "dow", "isodow", "doy", "isoyear", "epoch", "julian",
    "timezone", "timezone_hour", "timezone_minute",
})  # fmt: skip
_TAKE_A_TIME_PART = frozenset({"date_trunc", "date_part", "extract"})
# Between these the planner looks through a cast, as they are stored alike.
_TEXT_TYPES = frozenset({"text", "varchar"})


class UnreadableError(Exception):
    """The text is no expression that can be taken apart here."""


@dataclass(frozen=True)
class Operand:
    """One side of a condition, or one grouping key.

    Args:
        alias: of the table whose columns it takes; empty where there are several.
        columns: their names, in the order of the text, each once.
        expression: what is made of them, as SQL without the alias; None where it is the column
            itself, and where it takes a constant of the statement.
        has_literal: whether it takes one.
    """

    alias: str
    columns: tuple[str, ...]
    expression: str | None = None
    has_literal: bool = False

    @property
    def is_column(self) -> bool:
        """Whether it is a column as it is stored."""
        return self.expression is None and not self.has_literal and len(self.columns) == 1


def condition_operands(text: str) -> tuple[Operand, ...]:
    """The operands with columns in them of all comparisons of a condition.

    Raises:
        UnreadableError: it cannot be parsed, or it looks into a sub-plan.
    """
    found: dict[Operand, None] = {}
    waiting = [_expression(text)]
    while waiting:
        node = waiting.pop()
        if _is_a(node, ast.BoolExpr):
            waiting.extend(reversed(node.args))
            continue
        for side in _sides(node):
            operand = _operand(side)
            if operand is not None:
                found[operand] = None
    return tuple(found)


def key_operand(text: str) -> Operand | None:
    """What a grouping key takes; None where it takes no column.

    Raises:
        UnreadableError: it cannot be parsed.
    """
    return _operand(_expression(text))


# -- inside ---------------------------------------------------------------------------------------


def _expression(text: str) -> Any:
    if len(text) > MAX_CHARACTERS or "\0" in text:
        raise UnreadableError("too long")
    try:
        if len(pglast.parser.scan(text)) > MAX_TOKENS:
            raise UnreadableError("too long")
        raw: Any
        (raw,) = pglast.parse_sql(f"SELECT {text}")
        (target,) = raw.stmt.targetList
    except (pglast.Error, RecursionError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableError(str(error)) from None
    if any(isinstance(node, ast.SubLink) for node in _nodes(target.val)):
        raise UnreadableError("a sub-query")
    return target.val


def _sides(node: Any) -> list[Any]:
    if isinstance(node, ast.A_Expr):
        return [side for side in (node.lexpr, node.rexpr) if side is not None]
    if isinstance(node, (ast.NullTest, ast.BooleanTest)):
        return [node.arg]
    return [node]


def _operand(node: Any) -> Operand | None:
    plain = node
    while isinstance(plain, ast.TypeCast) and _type_name(plain) in _TEXT_TYPES:
        plain = plain.arg
    names = list(dict.fromkeys(_columns(node)))
    if not names:
        return None
    aliases = {alias for alias, _ in names}
    alias = aliases.pop() if len(aliases) == 1 else ""
    columns = tuple(dict.fromkeys(column for _, column in names))
    if isinstance(plain, ast.ColumnRef):
        return Operand(alias, columns)
    if any(_is_literal(n, above) for n, above in _with_parents(node)):
        return Operand(alias, columns, has_literal=True)
    return Operand(alias, columns, _printed(node))


def _columns(node: Any) -> Iterator[tuple[str, str]]:
    for found in _nodes(node):
        if _is_a(found, ast.ColumnRef):
            parts = [str(f.sval) for f in found.fields if isinstance(f, ast.String)]
            if parts and len(parts) == len(found.fields):
                yield ".".join(parts[:-1]), parts[-1]


def _is_literal(node: Any, above: tuple[Any, ...]) -> bool:
    if isinstance(node, ast.ParamRef):
        return True
    return isinstance(node, ast.A_Const) and not _is_time_part(node, above)


def _is_time_part(node: Any, above: tuple[Any, ...]) -> bool:
    callers = [n for n in above if not isinstance(n, ast.TypeCast)]
    if not callers or not _is_a(callers[-1], ast.FuncCall):
        return False
    call = callers[-1]
    first = call.args[0] if call.args else None
    while isinstance(first, ast.TypeCast):
        first = first.arg
    text = getattr(node.val, "sval", None)
    return (
        first is node
        and call.funcname[-1].sval in _TAKE_A_TIME_PART
        and isinstance(text, str)
        and text.lower() in _TIME_PARTS
    )


def _printed(node: Any) -> str:
    """The expression as SQL, its columns without their table."""
    bare = copy.deepcopy(node)
    for found in _nodes(bare):
        if _is_a(found, ast.ColumnRef):
            found.fields = found.fields[-1:]
        elif _is_a(found, ast.FuncCall) and found.args:
            found.args = tuple(map(_without_constants_cast, found.args))
    return str(RawStream()(bare))


def _without_constants_cast(argument: Any) -> Any:
    is_cast = isinstance(argument, ast.TypeCast) and isinstance(argument.arg, ast.A_Const)
    return argument.arg if is_cast else argument


def _type_name(cast: Any) -> str:
    return str(cast.typeName.names[-1].sval)


def _nodes(top: Any) -> Iterator[Any]:
    return (node for node, _ in _with_parents(top))


def _with_parents(top: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each node with the nodes above it, the topmost first."""
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(top, ())]
    while waiting:
        item, above = waiting.pop()
        if isinstance(item, (tuple, list)):
            waiting.extend((part, above) for part in reversed(item))
        elif isinstance(item, ast.Node):
            yield item, above
            slots: Any = type(item)
            parts = [getattr(item, slot) for slot in slots.__slots__]
            waiting.extend((part, (*above, item)) for part in reversed(parts))


def _is_a(node: Any, kind: type) -> bool:
    """`isinstance` without its narrowing: what pglast declares of its nodes is too wide to use."""
    return isinstance(node, kind)
