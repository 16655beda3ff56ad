"""What decides how a plan runs, as a digest: hint sets with one digest are one arm.

Part of it is all that EXPLAIN says of each step (its type, relations, aliases, indexes, kind of
join, conditions, keys, planned workers), except estimates and the columns handed on; further the
settings that act while a plan runs, where a step reacts to them; and just-in-time compilation.
Whatever key a later server adds counts as part of the plan: at worst two equal plans are run twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from backend.steering.plans.plan_tree import PlanNode, PlanTree

_NOT_THE_PLAN = {
    "Startup Cost", "Total Cost", "Plan Rows", "Plan Width", "Output", "Disabled",
}  # fmt: skip
# What EXPLAIN ANALYZE adds is of a run.
_OF_A_RUN = (
    "Actual ", "Estimated ", "Workers Launched", "Rows Removed", "Shared ", "Local ", "Temp ",
    "I/O ", "Heap Fetches", "Peak Memory", "Hash Batches", "Hash Buckets", "Original Hash",
    "Sort Method", "Sort Space", "Exact Heap", "Lossy Heap", "Cache Hits", "Cache Misses",
    "Cache Evictions", "Cache Overflows", "Disk Usage", "HashAgg Batches", "Full-sort Groups",
    "Pre-sorted Groups", "Index Searches", "Storage", "Maximum Storage", "WAL ", "Workers",
)  # fmt: skip
_WORKERS_PLANNED = "Workers Planned"
# Steps that keep no more than a row or a page; every other one may keep what work_mem allows.
_WITHOUT_MEMORY = {
    "Seq Scan", "Sample Scan", "Index Scan", "Index Only Scan", "Tid Scan", "Tid Range Scan",
    "Nested Loop", "Merge Join", "Limit", "Result", "ProjectSet", "Append", "Merge Append",
    "Gather", "Gather Merge", "Unique", "Group", "Subquery Scan", "Values Scan",
}  # fmt: skip
_WITHOUT_HASHING = {
    "Sort", "Incremental Sort", "Materialize", "WindowAgg", "CTE Scan", "WorkTable Scan",
    "Function Scan", "Table Function Scan", "Bitmap Heap Scan", "Bitmap Index Scan", "BitmapAnd",
    "BitmapOr",
}  # fmt: skip


def plan_hash(tree: PlanTree) -> str:
    """Return 32 hexadecimal digits of what decides how the plan runs.

    Settings count only where EXPLAIN was asked for them (option SETTINGS).
    """
    digest = hashlib.sha256()
    for node in tree.nodes:
        # Steps come in preorder, so depths and contents together fix the tree.
        digest.update(_canonical([node.depth, _structure(node)]))
    digest.update(_canonical(_run_time_settings(tree)))
    digest.update(_canonical(tree.jit.get("Options")))
    return digest.hexdigest()[:32]


def _structure(node: PlanNode) -> Mapping[str, Any]:
    return {
        key: value
        for key, value in node.fields.items()
        if key not in _NOT_THE_PLAN and (key == _WORKERS_PLANNED or not key.startswith(_OF_A_RUN))
    }


def _run_time_settings(tree: PlanTree) -> Mapping[str, str]:
    nodes = [(node.node_type, _has_hashed_subplan(node)) for node in tree.nodes]
    acting = set()
    if any(kind not in _WITHOUT_MEMORY or hashed for kind, hashed in nodes):
        acting.add("work_mem")
    if any(kind not in _WITHOUT_MEMORY | _WITHOUT_HASHING or hashed for kind, hashed in nodes):
        acting.add("hash_mem_multiplier")
    if any(node.number(_WORKERS_PLANNED) for node in tree.nodes):
        acting.add("parallel_leader_participation")
    return {name: value for name, value in tree.settings.items() if name in acting}


def _has_hashed_subplan(node: PlanNode) -> bool:
    return any(isinstance(v, str) and "hashed SubPlan" in v for v in node.fields.values())


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=repr).encode() + b"\0"
