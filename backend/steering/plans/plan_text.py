"""A plan as text for people, in the manner of EXPLAIN, without the statement's constants.

Pages and the store must not hold what users typed. Of all that EXPLAIN says only fields known to be
names or conditions are shown; in conditions every constant becomes ``?``, found by PostgreSQL's own
scanner (pglast), and a condition that it cannot read is left out.
https://www.postgresql.org/docs/current/using-explain.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pglast.parser import ParseError, scan

from backend.steering.client.planner_settings import SETTINGS
from backend.steering.plans.plan_tree import PlanNode, PlanTree

MAX_STEPS = 200
MAX_CONDITION = 400
"""Characters of a condition."""

_CONSTANTS = {"ICONST", "FCONST", "SCONST", "USCONST", "BCONST", "XCONST"}
_COMMENTS = {"SQL_COMMENT", "C_COMMENT"}
# EXPLAIN numbers a plan's own parts; a column of such a name would stand in quotes.
_NUMBERED = {"SubPlan", "InitPlan"}
_CONDITIONS = {
    "Sort Key", "Presorted Key", "Group Key", "Hash Cond", "Merge Cond", "Join Filter",
    "Index Cond", "Order By", "Recheck Cond", "TID Cond", "Cache Key", "Run Condition",
    "One-Time Filter", "Filter",
}  # fmt: skip
_WORKERS = "Workers Planned"
_AGGREGATES = {"Hashed": "HashAggregate", "Sorted": "GroupAggregate", "Mixed": "MixedAggregate"}
_OBJECTS = ("Relation Name", "Function Name", "Table Function Name", "CTE Name")
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def plan_text(tree: PlanTree) -> str:
    """Render a plan of ``EXPLAIN (FORMAT JSON, SETTINGS)``, VERBOSE off.

    Returns:
        Lines as EXPLAIN writes them, of at most ``MAX_STEPS`` steps, with estimated cost and rows.
    """
    lines: list[str] = []
    indents: list[int] = []
    parents = {child: index for index, below in enumerate(tree.children) for child in below}
    for index, node in enumerate(tree.nodes[:MAX_STEPS]):
        indent = indents[parents[index]] if index else 0
        if name := node.text("Subplan Name"):
            lines.append("  " * indent + name)
            indent += 1
        lines.append("  " * indent + ("->  " if indent else "") + _title(node))
        indents.append(indent + (3 if indent else 1))
        lines += ["  " * indents[-1] + detail for detail in _details(node)]
    if len(tree.nodes) > MAX_STEPS:
        lines.append(f"... and {len(tree.nodes) - MAX_STEPS} more steps")
    settings = [f"{name} = {value}" for name, value in tree.settings.items() if name in SETTINGS]
    if settings:
        lines.append("Settings: " + ", ".join(settings))
    return "\n".join(_CONTROL.sub(" ", line) for line in lines)


def without_constants(expression: str) -> str | None:
    """Return an expression with ``?`` for each constant; None where it cannot be read."""
    if "\0" in expression:  # the scanner, written in C, would take it for the end
        return None
    try:
        tokens = scan(expression)
    except ParseError:
        return None
    parts, shown, before = [], 0, ""
    for token in tokens:
        if token.name in _COMMENTS:
            return None
        if token.name in _CONSTANTS and before not in _NUMBERED:
            parts += [expression[shown : token.start], "?"]
            shown = token.end + 1
        before = expression[token.start : token.end + 1]
    return "".join(parts) + expression[shown:]


def _title(node: PlanNode) -> str:
    """A step's first line."""
    kind = node.node_type
    if kind == "Aggregate":
        kind = _AGGREGATES.get(node.text("Strategy"), kind)
    if kind == "SetOp":
        hashed = "Hash" if node.text("Strategy") == "Hashed" else ""
        kind = f"{hashed}{kind} {node.text('Command')}"
    join = node.text("Join Type")
    if join not in ("", "Inner"):
        kind = f"{kind.removesuffix(' Join')} {join} Join"
    if node.text("Partial Mode") not in ("", "Simple"):
        kind = f"{node.text('Partial Mode')} {kind}"
    if node.fields.get("Parallel Aware") is True:
        kind = f"Parallel {kind}"
    costs = f"cost={node.startup_cost:.2f}..{node.cost:.2f} rows={node.rows:.0f}"
    return f"{kind}{_target(node)}  ({costs})"


def _target(node: PlanNode) -> str:
    """What a scan reads."""
    index = node.text("Index Name")
    if index and node.node_type == "Bitmap Index Scan":
        return f" on {_name(index)}"
    text = " Backward" if node.text("Scan Direction") == "Backward" else ""
    if index:
        text += f" using {_name(index)}"
    read = next((node.text(key) for key in _OBJECTS if node.text(key)), "")
    names = [name for name in dict.fromkeys((read, node.text("Alias"))) if name]
    return text + (" on " + " ".join(map(_name, names)) if names else "")


def _details(node: PlanNode) -> Iterator[str]:
    """Conditions, keys and workers, in EXPLAIN's order."""
    for key, value in node.fields.items():
        if key == _WORKERS:
            yield f"{key}: {node.number(key):.0f}"
        elif key in _CONDITIONS:
            masked = [_condition(part) for part in (value if isinstance(value, list) else [value])]
            yield f"{key}: {', '.join(masked)}"


def _condition(expression: Any) -> str:
    masked = without_constants(expression) if isinstance(expression, str) else None
    if masked is None:
        return "(not shown)"
    return masked if len(masked) <= MAX_CONDITION else f"{masked[:MAX_CONDITION]}..."


def _name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'
