"""Where a plan's estimated rows part from the rows that there were, and the statistics that help.

A planner chooses badly because it expects far fewer or far more rows than there are. The step that
matters is the lowest one whose estimate is wrong by a factor: all above it reckon with its error.
What CREATE STATISTICS can do about it, and what it cannot:
https://www.postgresql.org/docs/current/planner-stats.html#PLANNER-STATS-EXTENDED
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backend.errors import ServerError
from backend.steering.export.statistics_advice import Advice, Relation, grouping_advice, scan_advice
from backend.steering.plans.plan_conditions import (
    Operand,
    UnreadableError,
    condition_operands,
    key_operand,
)
from backend.steering.plans.plan_tree import PlanNode, PlanTree, read_plan

MIN_FACTOR = 10.0
"""Between estimated and actual rows: below it, plans are seldom chosen wrongly."""
MIN_ROWS = 100.0
"""Estimated or actual, over all loops: fewer make no difference to a plan's time."""

_CONDITIONS = ("Index Cond", "Recheck Cond", "Filter", "TID Cond")
_JOINS = {"Nested Loop", "Hash Join", "Merge Join"}
_JOIN_CONDITIONS = ("Hash Cond", "Merge Cond", "Join Filter", "Filter")
_GROUPINGS = {"Aggregate", "Group"}
# They hand on the rows of the step below, or count something else than rows.
_PASS_ON = {
    "Sort", "Incremental Sort", "Hash", "Materialize", "Memoize", "Gather", "Gather Merge", "Limit",
    "LockRows", "Result", "ProjectSet", "Bitmap Index Scan", "BitmapAnd", "BitmapOr", "Append",
    "Merge Append", "Unique", "WindowAgg",
}  # fmt: skip
# They take all rows from below before they hand on the first.
_BLOCKING = {"Sort", "Hash"}


@dataclass(frozen=True)
class Misestimate:
    """The lowest step of a branch at which the planner was wrong.

    Args:
        step: what it does and on which tables, for people.
        looks_at: the columns of its conditions or grouping keys, as ``table.column``.
        estimated_rows, actual_rows: over all its loops.
        factor: between the two for one loop, at least :data:`MIN_FACTOR`.
        advice: what can be done.
    """

    step: str
    looks_at: tuple[str, ...]
    estimated_rows: float
    actual_rows: float
    factor: float
    advice: Advice


def misestimates(explained: object) -> tuple[Misestimate, ...]:
    """Find what the planner was wrong about.

    Args:
        explained: what ``EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON)`` returned, as text or parsed.

    Returns:
        The lowest steps with a factor of at least :data:`MIN_FACTOR` that matter, those with the
        most rows first. No constant of the statement is in them.

    Raises:
        ServerError: that is no plan, or one that has not run.
    """
    tree = read_plan(explained)
    if "Actual Rows" not in tree.root.fields:
        raise ServerError("the plan has not run", remedy="give the output of EXPLAIN (ANALYZE)")
    wrong = _wrong_steps(tree)
    lowest = [index for index in wrong if wrong.isdisjoint(set(tree.below(index)) - {index})]
    found = [_misestimate(tree, index) for index in lowest if _matters(tree, index, wrong)]
    found.sort(key=lambda one: -max(one.estimated_rows, one.actual_rows))
    return tuple(found)


# -- which steps ----------------------------------------------------------------------------------


def _wrong_steps(tree: PlanTree) -> set[int]:
    cut_short = _cut_short(tree)
    wrong = set()
    for index, node in enumerate(tree.nodes):
        if not _is_judged(node) or _factor(node) < MIN_FACTOR:
            continue
        if node.rows > _actual_rows(node):
            is_known = not cut_short[index]
        else:
            is_known = not _is_read_again(tree, node)
        if is_known:
            wrong.add(index)
    return wrong


def _is_judged(node: PlanNode) -> bool:
    has_run = node.number("Actual Loops") > 0
    of_a_worker = node.text("Partial Mode") == "Partial"
    return has_run and not of_a_worker and node.node_type not in _PASS_ON


def _cut_short(tree: PlanTree) -> list[bool]:
    """Whether a step may have ended before its last row, so that fewer rows say nothing."""
    cut: list[bool] = []
    for node in tree.nodes:
        if node.parent < 0:
            cut.append(False)
            continue
        above = tree.nodes[node.parent]
        cut.append(
            (cut[node.parent] and not _is_blocking(above))
            or above.node_type in ("Limit", "Merge Join")
            or "Run Condition" in above.fields
            or node.relationship in ("SubPlan", "InitPlan")
            or (node.relationship == "Inner" and _stops_at_a_match(above))
        )
    return cut


def _is_blocking(node: PlanNode) -> bool:
    hashed_or_whole = node.node_type == "Aggregate" and node.text("Strategy") != "Sorted"
    return node.node_type in _BLOCKING or hashed_or_whole


def _stops_at_a_match(join: PlanNode) -> bool:
    return join.fields.get("Inner Unique") is True or join.text("Join Type") in ("Semi", "Anti")


def _is_read_again(tree: PlanTree, node: PlanNode) -> bool:
    """Whether a merge join may have gone back in it, which counts its rows twice."""
    above = tree.nodes[node.parent] if node.parent >= 0 else None
    return above is not None and above.node_type == "Merge Join" and node.relationship == "Inner"


def _factor(node: PlanNode) -> float:
    # The planner never expects less than one row, and up to version 17 actual rows are rounded.
    estimated, actual = max(node.rows, 1.0), max(_actual_rows(node), 1.0)
    return max(estimated / actual, actual / estimated)


def _actual_rows(node: PlanNode) -> float:
    return node.number("Actual Rows")


def _over_all_loops(node: PlanNode) -> float:
    return max(node.rows, _actual_rows(node)) * node.number("Actual Loops")


def _matters(tree: PlanTree, index: int, wrong: set[int]) -> bool:
    """Whether a step, or one above that is wrong as well, handles more than a few rows."""
    while index >= 0:
        if index in wrong and _over_all_loops(tree.nodes[index]) >= MIN_ROWS:
            return True
        index = tree.nodes[index].parent
    return False


# -- what they do ---------------------------------------------------------------------------------


def _misestimate(tree: PlanTree, index: int) -> Misestimate:
    node = tree.nodes[index]
    relations = _relations(tree)
    operands, advice = _advice(tree, node, relations)
    loops = node.number("Actual Loops")
    return Misestimate(
        step=_step(tree, index),
        looks_at=_looks_at(operands, relations),
        estimated_rows=node.rows * loops,
        actual_rows=_actual_rows(node) * loops,
        factor=_factor(node),
        advice=advice,
    )


def _relations(tree: PlanTree) -> dict[str, Relation]:
    """The tables of a plan by the alias under which its conditions name them."""
    return {
        node.text("Alias"): Relation(node.text("Schema"), node.text("Relation Name"))
        for node in tree.nodes
        if node.text("Relation Name") and node.text("Schema")
    }


def _advice(
    tree: PlanTree, node: PlanNode, relations: Mapping[str, Relation]
) -> tuple[tuple[Operand, ...], Advice]:
    try:
        if node.node_type in _GROUPINGS:
            operands = tuple(filter(None, map(key_operand, _texts(node, "Group Key"))))
            return operands, grouping_advice(operands, relations)
        if node.node_type in _JOINS:
            return _operands(node, _JOIN_CONDITIONS), Advice(
                "What goes into the join was estimated well, the rows that match were not: values "
                "of one table go together with values of another, or some have far more partners "
                "than others. No statistics of PostgreSQL cover that; a hint set does."
            )
        if node.text("Relation Name"):
            # A bitmap scan's condition stands in its Recheck Cond as well.
            operands = _operands(node, _CONDITIONS)
            return operands, scan_advice(node.text("Alias"), operands, relations)
    except UnreadableError:
        return (), Advice("Its condition rests on a sub-query, for which there are no statistics.")
    if node.node_type == "Function Scan":
        return (), Advice(
            "The planner takes a function's word for its rows (1000 if it says nothing): "
            "ALTER FUNCTION ... ROWS n, or a support function."
        )
    return (), Advice("There are no statistics for what this step hands on; a hint set helps.")


def _operands(node: PlanNode, keys: Sequence[str]) -> tuple[Operand, ...]:
    texts = [text for key in keys for text in _texts(node, key)]
    return tuple(dict.fromkeys(o for text in texts for o in condition_operands(text)))


def _texts(node: PlanNode, key: str) -> list[str]:
    value = node.fields.get(key)
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _step(tree: PlanTree, index: int) -> str:
    node = tree.nodes[index]
    if node.text("Relation Name"):
        return f"{node.node_type} on {Relation(node.text('Schema'), node.text('Relation Name'))}"
    below = [tree.nodes[i] for i in sorted(tree.below(index))]
    tables = {
        str(Relation(n.text("Schema"), n.text("Relation Name"))): None
        for n in below
        if n.text("Relation Name")
    }
    return f"{node.node_type} over {', '.join(tables)}" if tables else node.node_type


def _looks_at(operands: Sequence[Operand], relations: Mapping[str, Relation]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for operand in operands:
        relation = relations.get(operand.alias)
        prefix = f"{relation}." if relation else ""
        found.update((f"{prefix}{column}", None) for column in operand.columns)
    return tuple(found)
