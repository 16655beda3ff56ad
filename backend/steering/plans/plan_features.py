"""A plan as numbers, for a learner that must judge plans it has not run.

Counts, rows, bytes and costs enter as ``ln(1 + x)``, shares and selectivities as they are. Every
plan has the same numbers in the same order (:data:`FEATURE_NAMES`), whatever it holds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from backend.domain.plans import ExplainedPlan, PlanFeatures
from backend.domain.quantities import parse_quantity
from backend.steering.plans.plan_hash import plan_hash
from backend.steering.plans.plan_tree import PlanNode, PlanTree, bounded_number, read_plan

_SCANS = {
    "Seq Scan": "seq_scan",
    "Sample Scan": "seq_scan",
    "Index Scan": "index_scan",
    "Index Only Scan": "index_only_scan",
    "Bitmap Heap Scan": "bitmap_scan",
    "Tid Scan": "tid_scan",
    "Tid Range Scan": "tid_scan",
    "Foreign Scan": "foreign_scan",
}
_JOINS = {"Nested Loop": "nested_loop", "Hash Join": "hash_join", "Merge Join": "merge_join"}
_OPERATORS = {
    **_SCANS,
    **_JOINS,
    "Bitmap Index Scan": "bitmap_index",
    "BitmapAnd": "bitmap_index",
    "BitmapOr": "bitmap_index",
    "Function Scan": "rows_scan",
    "Table Function Scan": "rows_scan",
    "Values Scan": "rows_scan",
    "Subquery Scan": "subquery_scan",
    "CTE Scan": "cte_scan",
    "WorkTable Scan": "cte_scan",
    "Hash": "hash",
    "Sort": "sort",
    "Incremental Sort": "incremental_sort",
    "Materialize": "materialize",
    "Memoize": "memoize",
    "WindowAgg": "window",
    "Unique": "unique",
    "Group": "unique",
    "SetOp": "set_operation",
    "Append": "append",
    "Merge Append": "append",
    "Recursive Union": "recursion",
    "Gather": "gather",
    "Gather Merge": "gather_merge",
    "Limit": "limit",
    "Result": "result",
}
_AGGREGATES = {
    "Plain": "aggregate_plain",
    "Sorted": "aggregate_sorted",
    "Hashed": "aggregate_hashed",
    "Mixed": "aggregate_hashed",
}
_OTHER = "other_operator"
_OPERATOR_KINDS = tuple(sorted({*_OPERATORS.values(), *_AGGREGATES.values(), _OTHER}))
_JOIN_TYPES = {
    "Inner": "inner",
    "Left": "outer",
    "Right": "outer",
    "Full": "outer",
    "Semi": "semi",
    "Right Semi": "semi",
    "Anti": "anti",
    "Right Anti": "anti",
}
_CONDITIONS = ("Index Cond", "Hash Cond", "Merge Cond", "Join Filter", "Filter", "Recheck Cond")
_DEFAULT_WORK_MEM_KB = 4096.0
_DEFAULT_HASH_MEM_MULTIPLIER = 2.0


@dataclass(frozen=True)
class RelationSize:
    """How big a table is, as the server's statistics know it; unknown (-1) counts as empty."""

    rows: float
    size_bytes: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", bounded_number(self.rows))
        object.__setattr__(self, "size_bytes", bounded_number(self.size_bytes))


RelationSizes = Mapping[tuple[str, str], RelationSize]
"""(schema, table) → its size."""


def explained_plan(explained: object, sizes: RelationSizes | None = None) -> ExplainedPlan:
    """Turn the answer of EXPLAIN (FORMAT JSON, VERBOSE, SETTINGS) into hash and numbers.

    Without VERBOSE the tables' schemas are missing, so their sizes are not found; without SETTINGS
    memory counts as the server's built-in default.

    Args:
        explained: the answer, as text or parsed.
        sizes: of the tables in it, as far as they are known.

    Raises:
        ServerError: it holds no plan, or one beyond the bounds of ``plan_tree``.
    """
    tree = read_plan(explained)
    return ExplainedPlan(
        plan_hash(tree), plan_features(tree, sizes or {}), tree.root.cost, tree.root.rows
    )


def plan_features(tree: PlanTree, sizes: RelationSizes) -> PlanFeatures:
    """Return the plan's numbers; see docs/steering.md for what each of them means."""
    numbers = _numbers(tree, sizes)
    return PlanFeatures(tuple(numbers), np.array(list(numbers.values())))


def relations(tree: PlanTree) -> set[tuple[str, str]]:
    """The (schema, table) pairs that a plan reads; without VERBOSE the schema is empty."""
    return {
        (node.text("Schema"), node.text("Relation Name"))
        for node in tree.nodes
        if node.text("Relation Name")
    }


def _numbers(tree: PlanTree, sizes: RelationSizes) -> dict[str, float]:
    return {
        **_of_the_whole(tree),
        **_of_operators(tree),
        **_of_joins(tree),
        **_of_scans(tree, sizes),
        **_of_memory(tree),
        **_of_parallelism(tree),
    }


# -- the parts ------------------------------------------------------------------------------------


def _of_the_whole(tree: PlanTree) -> dict[str, float]:
    root = tree.root
    relationships = Counter(node.relationship for node in tree.nodes)
    options = tree.jit.get("Options")
    flags = options if isinstance(options, dict) else {}
    return {
        "cost": _log(root.cost),
        "startup_cost": _log(root.startup_cost),
        "rows": _log(root.rows),
        "result_bytes": _log(root.rows * root.number("Plan Width")),
        "rows_handled": _log(sum(_rows_in_all(node) for node in tree.nodes)),
        "nodes": _log(len(tree.nodes)),
        "depth": _log(max(node.depth for node in tree.nodes)),
        "forbidden_nodes": _log(len(_forbidden(tree))),
        "subplans": _log(relationships["SubPlan"]),
        "initplans": _log(relationships["InitPlan"]),
        "subplan_loops": _log(
            max((n.loops for n in tree.nodes if n.relationship == "SubPlan"), default=0.0)
        ),
        "jit_functions": _log(bounded_number(tree.jit.get("Functions"))),
        "jit_inlining": float(flags.get("Inlining") is True),
        "jit_optimization": float(flags.get("Optimization") is True),
    }


def _of_operators(tree: PlanTree) -> dict[str, float]:
    counts, rows, costs = (dict.fromkeys(_OPERATOR_KINDS, 0.0) for _ in range(3))
    for index, node in enumerate(tree.nodes):
        kind = _operator(node)
        counts[kind] += 1
        rows[kind] += _rows_in_all(node)
        costs[kind] += _own_cost(tree, index)
    total = sum(costs.values()) or 1.0
    numbers = {}
    for kind in _OPERATOR_KINDS:
        numbers[f"{kind}_count"] = _log(counts[kind])
        numbers[f"{kind}_rows"] = _log(rows[kind])
        numbers[f"{kind}_cost_share"] = costs[kind] / total
    return numbers


def _of_joins(tree: PlanTree) -> dict[str, float]:
    joins = [i for i, node in enumerate(tree.nodes) if node.node_type in _JOINS]
    types = Counter(_JOIN_TYPES.get(tree.nodes[i].text("Join Type"), "other") for i in joins)
    joins_below = _joins_below(tree)
    numbers = {
        "joins": _log(len(joins)),
        **{f"{kind}_joins": _log(types[kind]) for kind in sorted({*_JOIN_TYPES.values(), "other"})},
        "join_rows_most": _most(tree.nodes[i].rows * tree.nodes[i].loops for i in joins),
        "joins_of_one_row": _log(sum(tree.nodes[i].rows <= 1.0 for i in joins)),
        "bushiness": 0.0,
        "loop_outer_rows_most": 0.0,
        "loop_outer_rows_least": 0.0,
        "loop_outer_joins_most": 0.0,
        "loop_inner_cost_most": 0.0,
        "loops_over_seq_scans": _log(_loops_over_seq_scans(tree)),
    }
    outer_rows = []
    for i in joins:
        outer, inner = tree.child(i, "Outer"), tree.child(i, "Inner")
        if outer is None or inner is None:
            continue
        lesser = min(joins_below[outer], joins_below[inner])
        numbers["bushiness"] = max(numbers["bushiness"], _log(lesser))
        if tree.nodes[i].node_type != "Nested Loop":
            continue
        outer_rows.append(tree.nodes[outer].rows)
        # An estimate that rests on many joins is the one to distrust most.
        for name, value in (
            ("loop_outer_joins_most", _log(joins_below[outer])),
            ("loop_inner_cost_most", _log(tree.nodes[inner].cost)),
        ):
            numbers[name] = max(numbers[name], value)
    if outer_rows:
        numbers["loop_outer_rows_most"] = _log(max(outer_rows))
        numbers["loop_outer_rows_least"] = _log(min(outer_rows))
    return numbers


def _loops_over_seq_scans(tree: PlanTree) -> int:
    return sum(
        node.node_type == "Seq Scan"
        and node.relationship == "Inner"
        and tree.nodes[node.parent].node_type == "Nested Loop"
        for node in tree.nodes
    )


def _of_scans(tree: PlanTree, sizes: RelationSizes) -> dict[str, float]:
    scans = [node for node in tree.nodes if node.node_type in _SCANS]
    found = [(node, sizes.get((node.text("Schema"), node.text("Relation Name")))) for node in scans]
    known = [(node, size) for node, size in found if size is not None]
    selectivities = [_selectivity(node, size) for node, size in known]
    conditions = [_conditions(node) for node in scans]
    return {
        "relations": _log(len(relations(tree))),
        "scans": _log(len(scans)),
        "scans_of_known_size": _log(len(known)),
        "table_rows_most": _most(size.rows for _, size in known),
        "table_rows_least": _log(min((size.rows for _, size in known), default=0.0)),
        "table_rows": _log(sum(size.rows for _, size in known)),
        "table_bytes": _log(sum(size.size_bytes for _, size in known)),
        "bytes_read_whole": _log(
            sum(
                size.size_bytes * node.loops
                for node, size in known
                if _SCANS[node.node_type] == "seq_scan"
            )
        ),
        "selectivity_log_mean": sum(selectivities) / max(len(selectivities), 1),
        "selectivity_log_least": min(selectivities, default=0.0),
        "scan_rows_most": _most(node.rows for node in scans),
        "scan_loops_most": _most(node.loops for node in scans),
        "conditions": _log(sum(conditions)),
        "conditions_of_a_scan_most": _most(conditions),
        "pattern_conditions": _log(
            sum(node.text(key).count("~~") for node in scans for key in _CONDITIONS)
        ),
    }


def _of_memory(tree: PlanTree) -> dict[str, float]:
    work_mem = _setting(tree, "work_mem", "kB", _DEFAULT_WORK_MEM_KB) * 1024.0
    multiplier = _setting(tree, "hash_mem_multiplier", None, _DEFAULT_HASH_MEM_MULTIPLIER)
    sorts = [_bytes(node) for node in tree.nodes if _operator(node) in ("sort", "incremental_sort")]
    hashes = [_bytes(n) for n in tree.nodes if _operator(n) in ("hash", "aggregate_hashed")]
    kept = [_bytes(node) for node in tree.nodes if _operator(node) in ("materialize", "memoize")]
    return {
        "work_mem": _log(work_mem),
        "hash_mem": _log(work_mem * multiplier),
        "sort_bytes_most": _most(sorts),
        "hash_bytes_most": _most(hashes),
        "kept_bytes_most": _most(kept),
        "sorts_over_memory": _log(sum(size > work_mem for size in sorts)),
        "hashes_over_memory": _log(sum(size > work_mem * multiplier for size in hashes)),
        "hash_batches_planned": _most(node.number("Planned Partitions") for node in tree.nodes),
    }


def _of_parallelism(tree: PlanTree) -> dict[str, float]:
    own = [_own_cost(tree, index) for index in range(len(tree.nodes))]
    parallel = [cost for cost, node in zip(own, tree.nodes, strict=True) if node.workers]
    return {
        "workers_planned": _log(sum(node.number("Workers Planned") for node in tree.nodes)),
        "parallel_aware_nodes": _log(
            sum(n.fields.get("Parallel Aware") is True for n in tree.nodes)
        ),
        "parallel_cost_share": sum(parallel) / (sum(own) or 1.0),
    }


def _forbidden(tree: PlanTree) -> list[int]:
    """The steps that a setting forbids; of several above each other only the lowest is known."""
    return [
        index
        for index, node in enumerate(tree.nodes)
        if node.is_forbidden and not any(tree.nodes[c].is_forbidden for c in tree.children[index])
    ]


# -- of one step ----------------------------------------------------------------------------------


def _operator(node: PlanNode) -> str:
    if node.node_type == "Aggregate":
        return _AGGREGATES.get(node.text("Strategy"), _OTHER)
    return _OPERATORS.get(node.node_type, _OTHER)


def _own_cost(tree: PlanTree, index: int) -> float:
    """What a step adds to the cost of those below it (which a LIMIT may cut)."""
    below = sum(tree.nodes[child].cost for child in tree.children[index])
    return max(tree.nodes[index].cost - below, 0.0)


def _rows_in_all(node: PlanNode) -> float:
    return node.rows * node.loops


def _bytes(node: PlanNode) -> float:
    return node.rows * node.number("Plan Width")


def _selectivity(node: PlanNode, size: RelationSize) -> float:
    """The natural logarithm of the share of a table's rows that a scan returns, in [-20, 0].

    Of a parallel scan EXPLAIN shows the rows of one worker; the leader helps them less and less.
    """
    rows = node.rows
    if node.fields.get("Parallel Aware") is True:
        rows *= node.workers + max(1.0 - 0.3 * node.workers, 0.0)
    share = max(rows, 1e-9) / max(size.rows, 1.0)
    return min(max(math.log(share), -20.0), 0.0)


def _conditions(node: PlanNode) -> int:
    texts = [node.text(key) for key in _CONDITIONS if node.text(key)]
    return sum(1 + text.count(" AND ") for text in texts)


def _joins_below(tree: PlanTree) -> list[int]:
    """How many joins each step holds, itself included."""
    counts = [int(node.node_type in _JOINS) for node in tree.nodes]
    for index in range(len(tree.nodes) - 1, 0, -1):  # parents stand before their children
        counts[tree.nodes[index].parent] += counts[index]
    return counts


def _setting(tree: PlanTree, name: str, unit: str | None, default: float) -> float:
    try:
        return max(parse_quantity(tree.settings.get(name, ""), unit), 1.0)
    except ValueError:
        return default


def _log(number: float) -> float:
    return math.log1p(number)


def _most(numbers: Iterable[float]) -> float:
    return _log(max(numbers, default=0.0))


FEATURE_NAMES = tuple(_numbers(read_plan({"Plan": {}}), {}))
"""What each number of a plan is, in order."""
