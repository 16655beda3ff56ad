"""The answer of EXPLAIN (FORMAT JSON) as a flat, bounded tree.

Plans come from servers, logs and files, so nothing in them is trusted: depth, size and numbers are
bounded, keys may be missing, node types may be new.
https://www.postgresql.org/docs/current/sql-explain.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backend.errors import ServerError

MAX_NODES = 5_000
MAX_DEPTH = 1_000
MAX_TEXT = 8_000_000
"""Characters of a plan's JSON."""

_LARGEST = 1e15
# Up to version 17 the planner adds this for each step that a setting forbids; 18 counts them apart.
_DISABLE_COST = 1e10


@dataclass(frozen=True)
class PlanNode:
    """One step of a plan.

    Args:
        fields: what EXPLAIN says of it, without its children.
        parent: index of the step above in the tree, -1 for the topmost.
        depth: 0 for the topmost.
        loops: how often the planner expects it to start, at least 1.
        workers: planned parallel workers that share the step; 0 outside parallel parts.
        penalty: what the planner adds to the cost for each step that a setting forbids; 0 where
            nothing is forbidden, or where it counts such steps apart.
    """

    fields: Mapping[str, Any]
    parent: int
    depth: int
    loops: float
    workers: float
    penalty: float

    @property
    def node_type(self) -> str:
        """``Hash Join``, ``Seq Scan``, ...; empty where it is missing."""
        return self.text("Node Type")

    @property
    def relationship(self) -> str:
        """``Outer``, ``Inner``, ``SubPlan``, ``InitPlan``, ``Member``, ...; empty at the top."""
        return self.text("Parent Relationship")

    @property
    def rows(self) -> float:
        """Estimated rows of one loop (of one worker, in a parallel part)."""
        return self.number("Plan Rows")

    @property
    def cost(self) -> float:
        """Estimated total cost of one loop, without the penalty of forbidden steps."""
        return self._cost("Total Cost")

    @property
    def startup_cost(self) -> float:
        """Estimated cost until its first row, without the penalty of forbidden steps."""
        return self._cost("Startup Cost")

    @property
    def is_forbidden(self) -> bool:
        """Whether it, or a step below, had to be taken although a setting forbids it."""
        penalised = self.penalty > 0 and self.number("Total Cost") >= self.penalty
        return penalised or self.fields.get("Disabled") is True

    def _cost(self, key: str) -> float:
        number = self.number(key)
        return number % self.penalty if self.penalty else number

    def text(self, key: str) -> str:
        """A field of text; empty where it is missing or something else."""
        value = self.fields.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> float:
        """A field's number in [0, 1e15]; 0 where it is missing or something else."""
        return bounded_number(self.fields.get(key))


@dataclass(frozen=True)
class PlanTree:
    """A plan's steps, each before the steps below it.

    Args:
        nodes: the steps; the first is the topmost.
        children: the indices of the steps below each.
        settings: planner settings that are not the server's built-in defaults, as EXPLAIN's option
            SETTINGS shows them; empty without that option.
        jit: what just-in-time compilation would do, if anything.
    """

    nodes: tuple[PlanNode, ...]
    children: tuple[tuple[int, ...], ...]
    settings: Mapping[str, str]
    jit: Mapping[str, Any]

    @property
    def root(self) -> PlanNode:
        """The topmost step."""
        return self.nodes[0]

    def below(self, index: int) -> Iterator[int]:
        """Yield the indices of a step and of all steps below it."""
        waiting = [index]
        while waiting:
            current = waiting.pop()
            yield current
            waiting.extend(self.children[current])

    def child(self, index: int, relationship: str) -> int | None:
        """The index of the first child in that relationship to its parent."""
        for child in self.children[index]:
            if self.nodes[child].relationship == relationship:
                return child
        return None


def bounded_number(value: object) -> float:
    """A number of a plan in [0, 1e15]; 0 for all that is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return 0.0
    return float(min(max(value, 0), _LARGEST))


def read_plan(explained: object) -> PlanTree:
    """Read what EXPLAIN (FORMAT JSON) returned, as text or parsed.

    Raises:
        ServerError: it holds no plan, or one beyond the bounds of this module.
    """
    if isinstance(explained, (str, bytes)):
        explained = _parsed(explained)
    if isinstance(explained, list) and len(explained) == 1:
        explained = explained[0]
    plan = explained.get("Plan") if isinstance(explained, dict) else None
    if not isinstance(explained, dict) or not isinstance(plan, dict):
        raise ServerError(
            f"no plan in {explained!r:.80}", remedy="give the output of EXPLAIN (FORMAT JSON)"
        )
    settings, jit = _texts(explained.get("Settings")), explained.get("JIT")
    penalty = _penalty(plan, settings)
    nodes: list[PlanNode] = []
    children: list[list[int]] = []
    waiting: list[tuple[dict[str, Any], int]] = [(plan, -1)]
    while waiting:
        raw, parent = waiting.pop()
        index = len(nodes)
        node = _node(raw, parent, nodes, children, penalty)
        if index >= MAX_NODES or node.depth > MAX_DEPTH:
            raise ServerError(
                f"a plan of more than {MAX_NODES} steps or {MAX_DEPTH} levels is not looked at"
            )
        nodes.append(node)
        children.append([])
        if parent >= 0:
            children[parent].append(index)
        plans = raw.get("Plans")
        below = [p for p in plans if isinstance(p, dict)] if isinstance(plans, list) else []
        waiting.extend((p, index) for p in reversed(below))
    return PlanTree(
        nodes=tuple(nodes),
        children=tuple(map(tuple, children)),
        settings=settings,
        jit=jit if isinstance(jit, dict) else {},
    )


def _parsed(text: str | bytes) -> object:
    if len(text) > MAX_TEXT:
        raise ServerError(f"a plan of {len(text)} characters is over the bound of {MAX_TEXT}")
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"a plan is not JSON, or nested too deeply: {error!s:.80}") from None
    return parsed


def _texts(raw: object) -> dict[str, str]:
    items = raw.items() if isinstance(raw, dict) else ()
    return {key: value for key, value in items if isinstance(value, str)}


def _penalty(plan: Mapping[str, Any], settings: Mapping[str, str]) -> float:
    """What the planner adds for a forbidden step; a plan can really cost that much, too."""
    forbids = any(n.startswith("enable_") and v == "off" for n, v in settings.items())
    return _DISABLE_COST if forbids and "Disabled" not in plan else 0.0


def _node(
    raw: dict[str, Any],
    parent: int,
    nodes: list[PlanNode],
    children: list[list[int]],
    penalty: float,
) -> PlanNode:
    fields = {key: value for key, value in raw.items() if key != "Plans"}
    if parent < 0:
        return PlanNode(fields, parent, 0, 1.0, 0.0, penalty)
    above = nodes[parent]
    workers = above.number("Workers Planned") or above.workers
    # A nested loop's outer side stands before its inner side, so it is known by now.
    outer = next((nodes[c].rows for c in children[parent] if nodes[c].relationship == "Outer"), 1.0)
    loops = min(_loops(fields, above, outer), _LARGEST)
    return PlanNode(fields, parent, above.depth + 1, loops, workers, penalty)


def _loops(fields: Mapping[str, Any], above: PlanNode, outer_rows: float) -> float:
    """How often a step starts, as far as the planner's estimates tell."""
    relationship = fields.get("Parent Relationship")
    if relationship == "InitPlan":
        return 1.0
    if relationship == "SubPlan":
        mark = f"hashed {fields.get('Subplan Name')})"
        hashed = any(isinstance(v, str) and mark in v for v in above.fields.values())
        return above.loops if hashed else above.loops * max(above.rows, 1.0)
    if relationship == "Inner" and above.node_type == "Nested Loop":
        return above.loops * max(outer_rows, 1.0)
    if above.node_type == "Materialize" and above.relationship == "Inner":
        return 1.0  # it runs once and is read again from memory
    return above.loops
