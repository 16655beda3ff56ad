"""One SQL statement taken apart: is it a query and nothing else, and which names does it use?

Parsed with PostgreSQL's own grammar (pglast). Only kinds of nodes that are known to be harmless are
let through, so that grammar added later is refused until somebody has looked at it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pglast
from pglast import ast, enums

from backend.steering.statements.ties import CutTies, cut_ties

MAX_CHARACTERS = 200_000
MAX_TOKENS = 20_000
"""The parser recurses: a chain of some 20,000 operators (two tokens each) overflows the stack and
ends the process, so longer statements are refused before they reach it."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")

_HARMLESS = {
    "A_ArrayExpr", "A_Const", "A_Expr", "A_Indices", "A_Indirection", "A_Star", "Alias",
    "BitString", "BoolExpr", "Boolean", "BooleanTest", "CTECycleClause", "CTESearchClause",
    "CaseExpr", "CaseWhen", "CoalesceExpr", "CollateClause", "ColumnDef", "ColumnRef",
    "CommonTableExpr",
    "Float", "FuncCall", "GroupingFunc", "GroupingSet", "Integer", "JoinExpr", "JsonAggConstructor",
    "JsonArgument", "JsonArrayAgg", "JsonArrayConstructor", "JsonArrayQueryConstructor",
    "JsonBehavior", "JsonFormat", "JsonFuncExpr", "JsonIsPredicate", "JsonKeyValue",
    "JsonObjectAgg", "JsonObjectConstructor", "JsonOutput", "JsonParseExpr", "JsonReturning",
    "JsonScalarExpr", "JsonSerializeExpr", "JsonTable", "JsonTableColumn", "JsonTablePathSpec",
    "JsonValueExpr", "MinMaxExpr", "NamedArgExpr", "NullTest", "ParamRef", "RangeFunction",
    "RangeSubselect", "RangeTableFunc", "RangeTableFuncCol", "RangeTableSample", "RangeVar",
    "ResTarget", "RowExpr", "SQLValueFunction", "SelectStmt", "SortBy", "String", "SubLink",
    "TypeCast", "TypeName", "WindowDef", "WithClause", "XmlExpr", "XmlSerialize",
}  # fmt: skip
_WORDS = {
    "InsertStmt": "an INSERT", "UpdateStmt": "an UPDATE", "DeleteStmt": "a DELETE",
    "MergeStmt": "a MERGE", "CopyStmt": "a COPY", "LockingClause": "FOR UPDATE or FOR SHARE",
    "IntoClause": "INTO", "ExecuteStmt": "an EXECUTE", "ExplainStmt": "an EXPLAIN",
    "TransactionStmt": "transaction control",
}  # fmt: skip
# What comparisons and joins by name use without naming it.
_IMPLIED_OPERATORS = frozenset({"=", "<>", "<", "<=", ">", ">="})

Name = tuple[str, str]
"""(schema, name); the schema is empty where the statement does not give it."""


class NotReadOnlyError(Exception):
    """The statement does more than read, or cannot be shown not to; the message says why."""


@dataclass
class Names:
    """The names that a statement uses, as far as its text shows.

    Args:
        functions: called by name.
        operators: as they are written, with those that comparisons imply.
        attributes: last parts of ``a.b``, which may be calls ``b(a)`` in disguise.
        relations: read from; names of WITH queries among them.
        with_queries: the names that WITH gives.
        types: of casts.
    """

    functions: set[Name] = field(default_factory=set)
    operators: set[str] = field(default_factory=lambda: set(_IMPLIED_OPERATORS))
    attributes: set[str] = field(default_factory=set)
    relations: set[Name] = field(default_factory=set)
    with_queries: set[str] = field(default_factory=set)
    types: set[Name] = field(default_factory=set)


@dataclass(frozen=True)
class Query:
    """One query: its ``text`` without semicolon, the names in it, and how it cuts its answer."""

    text: str
    names: Names
    ties: CutTies | None


def parse_query(text: str) -> Query:
    """Take the one query in ``text`` apart.

    Raises:
        NotReadOnlyError: it is not exactly one SELECT, VALUES, TABLE or WITH that only reads.
    """
    _refuse_too_long(text)
    try:
        statements = pglast.parse_sql(text)
    except (pglast.Error, RecursionError, UnicodeError) as error:
        raise NotReadOnlyError(f"it cannot be parsed: {error!s:.200}") from None
    if len(statements) != 1:
        raise NotReadOnlyError(f"it holds {len(statements)} statements, not one")
    raw: Any = statements[0]
    if not isinstance(raw.stmt, ast.SelectStmt):
        kind = type(raw.stmt).__name__
        raise NotReadOnlyError(f"it is {_WORDS.get(kind, f'a {kind}')}, not a query")
    names = Names()
    for node in _nodes(raw.stmt):
        _look_at(node, names)
    end = raw.stmt_location + raw.stmt_len if raw.stmt_len else len(text)
    return Query(text[raw.stmt_location : end].strip(), names, cut_ties(raw.stmt))


def _refuse_too_long(text: str) -> None:
    if "\0" in text:
        raise NotReadOnlyError("it holds a NUL character, behind which the parser does not look")
    if len(text) > MAX_CHARACTERS:
        raise NotReadOnlyError(f"it has {len(text)} characters, more than {MAX_CHARACTERS}")
    try:
        # The scanner takes quadratic time over other characters; as letters they count the same.
        tokens = pglast.parser.scan(_NOT_ASCII.sub("q", text))
    except (pglast.Error, UnicodeError) as error:
        raise NotReadOnlyError(f"it cannot be parsed: {error!s:.200}") from None
    if len(tokens) > MAX_TOKENS:
        raise NotReadOnlyError(f"it has {len(tokens)} words, more than {MAX_TOKENS}")


def _nodes(top: ast.Node) -> Iterator[Any]:
    """Yield a node and all nodes below it, without recursion."""
    waiting: list[Any] = [top]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (tuple, list)):
            waiting.extend(item)
        elif isinstance(item, ast.Node):
            yield item
            slots: Any = type(item)
            waiting.extend(getattr(item, slot) for slot in slots.__slots__)


def _look_at(node: Any, names: Names) -> None:
    kind = type(node).__name__
    if kind not in _HARMLESS:
        raise NotReadOnlyError(f"it holds {_said(node)}")
    if kind == "FuncCall":
        names.functions.add(_name(node.funcname))
    elif kind == "A_Expr":
        if node.kind not in (enums.A_Expr_Kind.AEXPR_BETWEEN, enums.A_Expr_Kind.AEXPR_NOT_BETWEEN):
            names.operators.add(_name(node.name)[1])
    elif kind == "SubLink" and node.operName:
        names.operators.add(_name(node.operName)[1])
    elif kind == "SortBy" and node.useOp:
        names.operators.add(_name(node.useOp)[1])
    elif kind == "ColumnRef" and len(node.fields) > 1:
        names.attributes.update(_strings(node.fields[1:]))
    elif kind == "A_Indirection":
        names.attributes.update(_strings(node.indirection))
    elif kind == "RangeVar":
        names.relations.add((node.schemaname or "", node.relname))
    elif kind == "CommonTableExpr":
        names.with_queries.add(node.ctename)
    elif kind == "TypeName" and node.names:
        names.types.add(_name(node.names))
    elif kind == "RangeTableSample":
        if node.repeatable is None:
            raise NotReadOnlyError("TABLESAMPLE without REPEATABLE returns other rows each time")
        if _name(node.method)[1] not in ("system", "bernoulli"):
            raise NotReadOnlyError(f"TABLESAMPLE {_name(node.method)[1]!r:.80} is not known here")


def _name(parts: Any) -> Name:
    texts = _strings(parts)
    return (texts[-2] if len(texts) > 1 else "", texts[-1])


def _strings(parts: Any) -> list[str]:
    return [str(part.sval) for part in parts if isinstance(part, ast.String)]


def _said(node: ast.Node) -> str:
    kind = type(node).__name__
    return _WORDS.get(kind, f"a {kind}, which is not known to only read")
