"""A planner that believes conditions to be independent, and a truth in which they are not.

A query filters one table by some conditions, joins what is left with another table, and picks the
cheapest way by *estimated* rows. All conditions say the same, so the more of them, the lower the
estimate and the worse the way. The best hint set of every query is known by trying all.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass

import numpy as np

from backend.catalog.hint_sets import load_hint_sets
from backend.domain.plans import ExplainedPlan, HintSet, PlanFeatures
from backend.domain.server import HostFacts
from backend.steering.plans.plan_features import FEATURE_NAMES

CATALOG = load_hint_sets(17, HostFacts(memory_bytes=8 << 30, cpu_count=4.0))
ROWS_PER_S = 1e6
ROW_BYTES = 100.0
MEMORY_MB = {"64MB": 64.0, "256MB": 256.0}


@dataclass(frozen=True)
class Plan:
    """One way: how the first table is read, how it is joined, with how much memory."""

    scan: str
    join: str
    work_mem_mb: float


@dataclass(frozen=True)
class ToyQuery:
    """One statement.

    Args:
        name: its key.
        filtered_rows, joined_rows: sizes of the two tables.
        conditions: on the first one.
        selectivity: of each condition by itself.
    """

    name: str
    filtered_rows: float
    joined_rows: float
    conditions: int
    selectivity: float

    @property
    def estimated_rows(self) -> float:
        return max(self.filtered_rows * self.selectivity**self.conditions, 1.0)

    @property
    def true_rows(self) -> float:
        """All conditions say the same."""
        return self.filtered_rows * self.selectivity

    def work(self, plan: Plan, rows: float, *, true: bool) -> float:
        """Rows' worth of work; in truth look-ups are cheaper, and spilling is dearer."""
        joined = self.joined_rows
        random_read = 1.5 if true else 4.0
        scanned = self.filtered_rows if plan.scan == "seq_scan" else rows * random_read + 100.0
        if plan.join == "nested_loop":
            return scanned + rows * (0.5 if true else 1.0) * math.log2(joined)
        if plan.join == "merge_join":
            return scanned + 0.4 * (rows * math.log2(rows + 2) + joined * math.log2(joined))
        spills = joined * ROW_BYTES > plan.work_mem_mb * 2.0 * 1e6
        return scanned + rows + joined * ((2.5 if true else 1.5) if spills else 1.0)

    def plan(self, hint_set: HintSet) -> Plan:
        settings = hint_set.settings
        memory = MEMORY_MB.get(settings.get("work_mem", ""), 4.0)
        reading = {"1.1": 1.1, "10": 10.0}.get(settings.get("random_page_cost", ""), 4.0)

        def cost(plan: Plan) -> float:
            off = sum(
                settings.get(f"enable_{step.replace('_', '').replace('nested', 'nest')}") == "off"
                for step in (plan.scan, plan.join)
            )
            base = self.work(plan, self.estimated_rows, true=False)
            extra = (reading - 4.0) * self.estimated_rows if plan.scan == "index_scan" else 0.0
            return base + extra + 1e10 * off

        scans, joins = ("seq_scan", "index_scan"), ("nested_loop", "hash_join", "merge_join")
        ways = (Plan(scan, join, memory) for scan, join in itertools.product(scans, joins))
        return min(ways, key=cost)

    def explain(self, hint_set: HintSet) -> ExplainedPlan:
        plan, rows = self.plan(hint_set), self.estimated_rows
        cost = self.work(plan, rows, true=False)
        known = {
            "cost": cost,
            "rows": rows,
            "nodes": 4.0,
            f"{plan.scan}_count": 1.0,
            f"{plan.scan}_rows": rows,
            f"{plan.join}_count": 1.0,
            f"{plan.join}_rows": rows,
            "conditions": self.conditions,
            "conditions_of_a_scan_most": self.conditions,
            "table_rows_most": max(self.filtered_rows, self.joined_rows),
            "table_rows_least": min(self.filtered_rows, self.joined_rows),
            "scan_rows_most": rows,
            "loop_outer_rows_most": rows if plan.join == "nested_loop" else 0.0,
            "hash_bytes_most": self.joined_rows * ROW_BYTES if plan.join == "hash_join" else 0.0,
            "work_mem": plan.work_mem_mb * 1e6,
        }
        numbers = dict.fromkeys(FEATURE_NAMES, 0.0)
        numbers |= {name: math.log1p(value) for name, value in known.items()}
        spoken = f"{plan.scan} {plan.join} {plan.work_mem_mb if plan.join == 'hash_join' else ''}"
        return ExplainedPlan(
            hashlib.md5(f"{self.name} {spoken}".encode()).hexdigest(),
            PlanFeatures(FEATURE_NAMES, np.array(list(numbers.values()))),
            cost,
            rows,
        )

    def latency_s(self, hint_set: HintSet) -> float:
        return 0.001 + self.work(self.plan(hint_set), self.true_rows, true=True) / ROWS_PER_S

    def log_ratio(self, hint_set: HintSet) -> float:
        return math.log(self.latency_s(hint_set) / self.latency_s(CATALOG.hint_sets[0]))

    @property
    def best_log_ratio(self) -> float:
        return min(self.log_ratio(hint_set) for hint_set in CATALOG)


def toy_queries(count: int, seed: int) -> list[ToyQuery]:
    """Queries of different templates: sizes, conditions and selectivities of their own."""
    rng = np.random.default_rng(seed)
    return [
        ToyQuery(
            f"q{seed}.{number}",
            10.0 ** rng.uniform(5.0, 6.5),
            10.0 ** rng.uniform(4.5, 6.5),
            int(rng.integers(1, 6)),
            float(rng.uniform(0.02, 0.5)),
        )
        for number in range(count)
    ]
