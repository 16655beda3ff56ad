"""Plans as trees, as digests and as numbers."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import ServerError
from backend.steering.plans.plan_features import (
    FEATURE_NAMES,
    RelationSize,
    explained_plan,
    plan_features,
    relations,
)
from backend.steering.plans.plan_hash import plan_hash
from backend.steering.plans.plan_tree import MAX_DEPTH, MAX_NODES, read_plan

Plan = dict[str, Any]


def node(kind: str, *plans: Plan, cost: float = 10.0, rows: float = 5, **fields: Any) -> Plan:
    made: Plan = {
        "Node Type": kind,
        "Startup Cost": 0.5,
        "Total Cost": cost,
        "Plan Rows": rows,
        "Plan Width": 8,
        **{key.replace("_", " ").title(): value for key, value in fields.items()},
    }
    if plans:
        made["Plans"] = list(plans)
    return made


def scan(table: str, kind: str = "Seq Scan", side: str = "Outer", **fields: Any) -> Plan:
    return node(
        kind, parent_relationship=side, schema="shop", relation_name=table, alias=table, **fields
    )


def explained(plan: Plan, **others: Any) -> list[Plan]:
    return [{"Plan": plan, **others}]


def nested_loop(outer_rows: float = 100, inner: Plan | None = None, **fields: Any) -> Plan:
    below = inner or scan("items", "Index Scan", "Inner", cost=2.0, index_name="items_order")
    return node(
        "Nested Loop",
        scan("orders", rows=outer_rows, cost=50.0, filter="((a = 1) AND (b = 2))"),
        below,
        join_type="Inner",
        **{"cost": 300.0, "rows": 400, **fields},
    )


def numbers(plan: Plan, sizes: Any = None, **others: Any) -> Any:
    return plan_features(read_plan(explained(plan, **others)), sizes or {})


def log(number: float) -> Any:
    return pytest.approx(math.log1p(number))


# -- the tree -------------------------------------------------------------------------------------


def test_steps_stand_before_the_steps_below_them():
    tree = read_plan(explained(node("Limit", node("Sort", scan("a")), node("Result"))))
    assert [n.node_type for n in tree.nodes] == ["Limit", "Sort", "Seq Scan", "Result"]
    assert [n.depth for n in tree.nodes] == [0, 1, 2, 1]
    assert tree.children == ((1, 3), (2,), (), ())


def test_text_and_parsed_answers_are_the_same():
    answer = explained(nested_loop(), Settings={"work_mem": "64MB"})
    assert read_plan(answer) == read_plan(json.dumps(answer)) == read_plan(answer[0])


def test_loops_follow_the_outer_side_even_behind_an_init_plan():
    plan = nested_loop(outer_rows=70)
    plan["Plans"].insert(0, node("Result", parent_relationship="InitPlan", rows=9))
    tree = read_plan(explained(plan))
    assert [n.loops for n in tree.nodes] == [1.0, 1.0, 1.0, 70.0]


def test_what_is_materialised_is_read_once():
    kept = node("Materialize", scan("items"), parent_relationship="Inner")
    tree = read_plan(explained(nested_loop(70, kept)))
    assert [(n.node_type, n.loops) for n in tree.nodes[2:]] == [
        ("Materialize", 70.0),
        ("Seq Scan", 1.0),
    ]


@pytest.mark.parametrize(("condition", "loops"), [("(hashed SubPlan 1)", 1.0), ("SubPlan 1", 30.0)])
def test_a_sub_plan_runs_for_each_row_unless_it_is_hashed(condition: str, loops: float):
    below = scan("b", side="SubPlan", subplan_name="SubPlan 1")
    tree = read_plan(explained({**scan("a", rows=30, filter=condition), "Plans": [below]}))
    assert tree.nodes[1].loops == loops


FORBIDDING = {"enable_seqscan": "off"}


def test_the_penalty_of_forbidden_steps_is_no_cost():
    plan = explained(
        node("Limit", scan("a", cost=10_000_000_042.5), cost=10_000_000_050), Settings=FORBIDDING
    )
    tree = read_plan(plan)
    assert tree.root.cost == pytest.approx(50.0)
    assert tree.nodes[1].cost == pytest.approx(42.5)
    assert tree.root.is_forbidden


def test_a_plan_that_really_costs_that_much_keeps_its_cost():
    dear = scan("a", cost=10_000_000_042.5)
    for others in ({}, {"Settings": {"work_mem": "1GB", "enable_partitionwise_join": "on"}}):
        root = read_plan(explained(dear, **others)).root
        assert root.cost == pytest.approx(10_000_000_042.5)
        assert not root.is_forbidden


def test_from_version_18_on_forbidden_steps_say_so():
    def root(plan: Plan) -> Any:
        return read_plan(explained(plan, Settings=FORBIDDING)).root

    assert root(scan("a", disabled=True)).is_forbidden
    assert not root(scan("a", disabled=False)).is_forbidden
    assert root(scan("a", disabled=False, cost=2e10)).cost == 2e10


@pytest.mark.parametrize(
    "hostile",
    [None, 7, "", "{", b"\xff", "[]", [], [1], [{}], {"Plan": []}, [{"Plan": {}}, {"Plan": {}}]],
)
def test_what_holds_no_plan_is_refused(hostile: Any):
    with pytest.raises(ServerError):
        read_plan(hostile)


def test_a_plan_too_deep_or_too_large_is_refused():
    deep: Plan = {}
    for _ in range(MAX_DEPTH + 1):
        deep = {"Plans": [deep]}
    with pytest.raises(ServerError, match="levels"):
        read_plan({"Plan": deep})
    with pytest.raises(ServerError, match="steps"):
        read_plan({"Plan": {"Plans": [{}] * MAX_NODES}})
    with pytest.raises(ServerError, match="nested too deeply"):
        read_plan('{"Plan": ' * 20_000)
    with pytest.raises(ServerError, match="characters"):
        read_plan(" " * 9_000_000)


def test_the_deepest_plan_allowed_is_read_and_numbered():
    deep: Plan = node("Hash Join")
    for _ in range(MAX_DEPTH):
        deep = node("Hash Join", {**deep, "Parent Relationship": "Outer"}, scan("a", side="Inner"))
    assert explained_plan({"Plan": deep}).features["joins"] == log(MAX_DEPTH + 1)


# -- the digest -----------------------------------------------------------------------------------


def digest(plan: Plan, **others: Any) -> str:
    return plan_hash(read_plan(explained(plan, **others)))


def test_estimates_are_not_part_of_the_digest():
    plan = nested_loop()
    other = copy.deepcopy(plan)
    for changed in (other, *other["Plans"]):
        changed.update({"Total Cost": 1e10 + 3, "Startup Cost": 2, "Plan Rows": 1, "Plan Width": 9})
        changed.update(
            {"Disabled": True, "Output": ["x"], "Actual Rows": 3, "Shared Hit Blocks": 1}
        )
    assert digest(plan) == digest(other)


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ((), "Node Type", "Hash Join"),
        ((), "Join Type", "Left"),
        ((), "Inner Unique", True),
        ((0,), "Filter", "((a = 1) AND (b = 3))"),
        ((0,), "Alias", "o"),
        ((0,), "Schema", "other"),
        ((0,), "Parallel Aware", True),
        ((0,), "Workers Planned", 2),
        ((1,), "Index Name", "items_pkey"),
        ((1,), "Scan Direction", "Backward"),
        ((1,), "Some New Key", ["x"]),
    ],
)
def test_what_changes_how_a_plan_runs_changes_the_digest(path: Any, key: str, value: Any):
    plan = nested_loop()
    other = copy.deepcopy(plan)
    changed = other
    for step in path:
        changed = changed["Plans"][step]
    changed[key] = value
    assert digest(plan) != digest(other)


def test_the_shape_of_the_tree_is_part_of_the_digest():
    assert digest(node("Append", node("Append", scan("a")), scan("b"))) != digest(
        node("Append", node("Append", scan("a"), scan("b")))
    )
    assert digest(node("Append", scan("a"), scan("b"))) != digest(
        node("Append", scan("b"), scan("a"))
    )


def test_memory_makes_another_arm_only_where_a_step_can_use_it():
    more = {"work_mem": "64MB", "enable_seqscan": "off"}
    assert digest(nested_loop()) == digest(nested_loop(), Settings=more)
    assert digest(node("Sort", scan("a"))) != digest(node("Sort", scan("a")), Settings=more)
    hashed = scan("a", filter="(NOT (hashed SubPlan 1))")
    assert digest(hashed) != digest(hashed, Settings=more)
    assert digest(node("Brand New Step")) != digest(node("Brand New Step"), Settings=more)


def test_memory_for_hashing_makes_another_arm_only_where_something_is_hashed():
    more = {"hash_mem_multiplier": "8"}
    assert digest(node("Sort", scan("a"))) == digest(node("Sort", scan("a")), Settings=more)
    assert digest(node("Hash", scan("a"))) != digest(node("Hash", scan("a")), Settings=more)


def test_compilation_makes_another_arm():
    compiled = {"Functions": 4, "Options": {"Inlining": True, "Optimization": True}}
    lightly = {"Functions": 4, "Options": {"Inlining": False, "Optimization": False}}
    assert len({digest(scan("a")), *(digest(scan("a"), JIT=j) for j in (compiled, lightly))}) == 3


# -- the numbers ----------------------------------------------------------------------------------


def test_every_plan_has_the_same_numbers():
    for plan in ({}, scan("a"), nested_loop(), node("Never Heard Of It")):
        assert numbers(plan).names == FEATURE_NAMES
    assert len(FEATURE_NAMES) > 100


def test_operators_joins_and_relations_are_counted():
    found = numbers(nested_loop())
    assert found["nested_loop_count"] == found["joins"] == found["inner_joins"] == log(1)
    assert found["seq_scan_count"] == found["index_scan_count"] == log(1)
    assert found["relations"] == found["scans"] == log(2)
    assert found["nodes"] == log(3)
    assert found["depth"] == log(1)
    assert found["conditions"] == log(2)
    assert found["hash_join_count"] == found["other_operator_count"] == 0.0


def test_rows_count_once_for_each_loop():
    found = numbers(nested_loop(outer_rows=100))
    assert found["index_scan_rows"] == log(100 * 5)
    assert found["rows_handled"] == log(400 + 100 + 500)
    assert found["scan_loops_most"] == log(100)


def test_shares_of_cost_are_what_a_step_adds():
    found = numbers(nested_loop())
    assert found["nested_loop_cost_share"] == pytest.approx(248 / 300)
    assert found["seq_scan_cost_share"] == pytest.approx(50 / 300)
    shares = [
        v for n, v in zip(found.names, found.values, strict=True) if n.endswith("_cost_share")
    ]
    assert sum(shares) == pytest.approx(1.0)


def test_a_nested_loop_shows_how_much_rests_on_its_outer_side():
    inner = scan("c", side="Inner", rows=3)
    upper = node(
        "Nested Loop",
        {**nested_loop(rows=1), "Parent Relationship": "Outer"},
        inner,
        join_type="Semi",
    )
    found = numbers(upper)
    assert found["loop_outer_joins_most"] == log(1)
    assert found["loop_outer_rows_least"] == log(1)
    assert found["loop_outer_rows_most"] == log(100)
    assert found["loops_over_seq_scans"] == log(1)
    assert found["semi_joins"] == log(1)
    assert found["joins_of_one_row"] == log(1)


def test_bushy_joins_are_told_from_deep_ones():
    def join(outer: Plan, inner: Plan) -> Plan:
        return node(
            "Hash Join",
            {**outer, "Parent Relationship": "Outer"},
            {**inner, "Parent Relationship": "Inner"},
        )

    pair = join(scan("a"), scan("b"))
    assert numbers(join(pair, scan("c")))["bushiness"] == 0.0
    assert numbers(join(pair, pair))["bushiness"] == log(1)


def test_sizes_of_tables_give_selectivities():
    sizes = {("shop", "orders"): RelationSize(10_000, 8e6), ("shop", "other"): RelationSize(1, 1)}
    found = numbers(nested_loop(outer_rows=100), sizes)
    assert found["selectivity_log_least"] == pytest.approx(math.log(0.01))
    assert found["table_rows_most"] == log(10_000)
    assert found["bytes_read_whole"] == log(8e6)
    assert found["scans_of_known_size"] == log(1)


def test_a_table_never_analysed_has_no_negative_size():
    assert np.all(np.isfinite(numbers(scan("a"), {("shop", "a"): RelationSize(-1, -1)}).values))


def test_the_rows_of_a_parallel_scan_are_those_of_all_workers():
    plan = node("Gather", scan("a", rows=100, parallel_aware=True), workers_planned=2)
    found = numbers(plan, {("shop", "a"): RelationSize(1000, 1)})
    assert found["selectivity_log_least"] == pytest.approx(math.log(0.24))
    assert found["workers_planned"] == log(2)
    assert found["parallel_aware_nodes"] == log(1)


def test_memory_is_compared_with_what_the_settings_allow():
    plan = node("Sort", scan("a"), rows=1_000_000)
    assert numbers(plan)["sorts_over_memory"] == log(1)
    found = numbers(plan, Settings={"work_mem": "64MB"})
    assert found["sorts_over_memory"] == 0.0
    assert found["work_mem"] == log(64 << 20)
    assert numbers(plan, Settings={"work_mem": "lots"})["work_mem"] == log(4 << 20)


def test_forbidden_steps_are_counted_once():
    penalty = 1e10
    plan = node("Limit", node("Sort", scan("a", cost=penalty + 5), cost=penalty), cost=penalty)
    assert numbers(plan, Settings=FORBIDDING)["forbidden_nodes"] == log(1)


def test_a_plan_is_explained_in_one_go():
    plan = explained_plan(explained(nested_loop()))
    assert plan.rows == 400
    assert plan.cost == 300
    assert plan.plan_hash == digest(nested_loop())
    assert plan.features == numbers(nested_loop())


def test_relations_are_named_with_their_schema():
    assert relations(read_plan(explained(nested_loop()))) == {("shop", "orders"), ("shop", "items")}


def test_the_page_explains_every_number():
    page = (Path(__file__).resolve().parents[2] / "docs" / "steering.md").read_text("utf-8")
    operators = {n.removesuffix("_cost_share") for n in FEATURE_NAMES if n.endswith("_cost_share")}
    operators.discard("parallel")
    of_operators = {f"{o}_{part}" for o in operators for part in ("count", "rows", "cost_share")}
    assert of_operators < set(FEATURE_NAMES)
    assert f"becomes {len(FEATURE_NAMES)} numbers" in page
    for name in (set(FEATURE_NAMES) - of_operators) | operators:
        assert f"`{name}`" in page, name


# -- hostile plans --------------------------------------------------------------------------------

_keys = st.sampled_from(
    ["Node Type", "Plans", "Total Cost", "Plan Rows", "Plan Width", "Parent Relationship", "Filter",
     "Strategy", "Workers Planned", "Relation Name", "Schema", "Disabled", "Parallel Aware", "x"]
)  # fmt: skip
_words = st.sampled_from(["Nested Loop", "Hash", "Sort", "Aggregate", "Outer", "Inner", "SubPlan"])
_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | _words
_hostile = st.recursive(
    _leaves | st.just(10**400) | st.just(-(10**400)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=40,
)


@given(
    plan=st.dictionaries(_keys, _hostile, max_size=8),
    settings=_hostile,
    jit=_hostile,
)
def test_any_plan_gives_finite_numbers_and_a_digest(plan: Any, settings: Any, jit: Any):
    found = explained_plan([{"Plan": plan, "Settings": settings, "JIT": jit}])
    assert found.features.names == FEATURE_NAMES
    assert len(found.plan_hash) == 32
    assert found.cost >= 0
    assert found.rows >= 0
