"""Which step of a plan was misjudged first, and what is proposed for it."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pglast
import pytest

from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringState
from backend.errors import ServerError
from backend.steering.export.misestimate_report import ClassFindings, misestimate_report
from backend.steering.export.misestimates import MIN_ROWS, Misestimate, misestimates
from backend.steering.export.statistics_advice import Relation, scan_advice
from backend.steering.plans.plan_conditions import Operand

NOW = datetime(2026, 1, 5, 8, tzinfo=timezone.utc)


def step(
    kind: str, estimated: float, actual: float, *below: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    """A step of a plan that has run; ``loops`` and others by their names in EXPLAIN."""
    named = {name.replace("_", " ").title(): value for name, value in fields.items()}
    rows = {"Plan Rows": estimated, "Actual Rows": actual, "Actual Loops": 1}
    node = {"Node Type": kind, **rows, **named}
    for number, child in enumerate(below):
        child.setdefault("Parent Relationship", "Inner" if number else "Outer")
    return {**node, "Plans": list(below)} if below else node


def scan(estimated: float, actual: float, table: str = "orders", **fields: Any) -> dict[str, Any]:
    fields.setdefault("filter", f"({table[0]}.city = 'Rome'::text)")
    return step(
        "Seq Scan", estimated, actual, schema="shop", relation_name=table, alias=table[0], **fields
    )


def found_in(plan: dict[str, Any]) -> tuple[Misestimate, ...]:
    return misestimates(json.dumps([{"Plan": plan}]))


def steps_of(plan: dict[str, Any]) -> list[str]:
    return [one.step for one in found_in(plan)]


# -- which step -----------------------------------------------------------------------------------


def test_a_plan_that_was_right() -> None:
    assert found_in(step("Hash Join", 900, 1100, scan(500, 200), scan(80, 100, "items"))) == ()


def test_the_lowest_step_is_named_and_not_what_reckons_with_it() -> None:
    plan = step(
        "Sort", 40, 4000, step("Hash Join", 40, 4000, scan(10, 1000), scan(90, 90, "items"))
    )
    (found,) = found_in(plan)
    assert found.step == "Seq Scan on shop.orders"
    assert (found.estimated_rows, found.actual_rows, found.factor) == (10, 1000, 100)
    assert found.looks_at == ("shop.orders.city",)


def test_each_branch_has_its_own_the_largest_first() -> None:
    plan = step("Hash Join", 1, 1, scan(10, 1000), scan(9000, 90, "items"))
    assert steps_of(plan) == ["Seq Scan on shop.items", "Seq Scan on shop.orders"]


def test_a_join_whose_sides_were_right() -> None:
    join = step("Hash Join", 5, 5000, scan(900, 900), scan(80, 80, "items"),
                hash_cond="(o.item_id = i.item_id)")  # fmt: skip
    (found,) = found_in(join)
    assert found.step == "Hash Join over shop.orders, shop.items"
    assert found.looks_at == ("shop.orders.item_id", "shop.items.item_id")
    assert found.advice.sql == ()
    assert "No statistics" in found.advice.text


def test_loops_are_multiplied() -> None:
    inner = scan(1, 50, "items", actual_loops=30)
    (found,) = found_in(step("Nested Loop", 30, 900, scan(30, 30), inner))
    assert (found.estimated_rows, found.actual_rows, found.factor) == (30, 1500, 50)


def test_few_rows_do_not_matter_unless_they_grow_above() -> None:
    few = scan(1, MIN_ROWS - 1)
    assert found_in(few) == ()
    assert steps_of(scan(1, MIN_ROWS)) == ["Seq Scan on shop.orders"]
    grown = step("Nested Loop", 9, 90_000, scan(1, 20), scan(9, 4500, "items", actual_loops=20))
    assert "Seq Scan on shop.orders" in steps_of(grown)


def test_the_planner_never_expects_less_than_a_row() -> None:
    assert found_in(step("Nested Loop", 1, 0, scan(500, 500), scan(1, 0, actual_loops=500))) == ()


def test_what_never_ran_says_nothing() -> None:
    assert found_in(step("Append", 5, 5, scan(5, 5), scan(9000, 0, actual_loops=0))) == ()


@pytest.mark.parametrize(
    "above",
    [
        lambda below: step("Limit", 10, 10, below),
        lambda below: step("Limit", 10, 10, step("Nested Loop", 10, 10, below, scan(1, 1))),
        lambda below: step("Merge Join", 10, 10, scan(9, 9), below),
        lambda below: step("Nested Loop", 9, 9, scan(9, 9), below, inner_unique=True),
        lambda below: step("Nested Loop", 9, 9, scan(9, 9), below, join_type="Semi"),
        lambda below: step("Seq Scan", 9, 9, {**below, "Parent Relationship": "SubPlan"}),
        lambda below: step("WindowAgg", 9, 9, below, run_condition="(rank() OVER (?) <= 5)"),
    ],
)
def test_what_was_ended_early_is_no_overestimate(above: Any) -> None:
    assert found_in(above(scan(5000, 20))) == ()
    if above(scan(1, 1))["Node Type"] != "Merge Join":
        assert steps_of(above(scan(20, 5000))) == ["Seq Scan on shop.orders"]


@pytest.mark.parametrize(
    "blocking",
    [
        lambda below: step("Sort", 9, 9, below),
        lambda below: step("Hash", 9, 9, below),
        lambda below: step("Aggregate", 9, 9, below, strategy="Hashed"),
    ],
)
def test_below_a_step_that_takes_all_rows_it_is_one(blocking: Any) -> None:
    assert steps_of(step("Limit", 9, 9, blocking(scan(5000, 20)))) == ["Seq Scan on shop.orders"]


def test_rows_that_a_merge_join_reads_again_count_once() -> None:
    again = step("Merge Join", 900, 900, scan(90, 90), step("Sort", 9, 90_000, scan(9, 9, "items")))
    assert found_in(again) == ()
    assert found_in(step("Merge Join", 900, 900, scan(90, 90), scan(9, 90_000, "items"))) == ()


def test_a_workers_share_of_groups_is_not_judged() -> None:
    partial = step(
        "Aggregate", 9, 900, scan(900, 900), partial_mode="Partial", group_key=["o.city"]
    )
    assert found_in(step("Aggregate", 9, 9, partial, partial_mode="Finalize")) == ()


def test_bitmaps_count_no_rows() -> None:
    bitmap = step("BitmapAnd", 500, 0, step("Bitmap Index Scan", 500, 0))
    heap = step("Bitmap Heap Scan", 500, 480, bitmap, schema="shop", relation_name="orders")
    assert found_in(heap) == ()


def test_what_did_not_run_is_refused() -> None:
    with pytest.raises(ServerError, match="has not run"):
        misestimates([{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 1}}])
    with pytest.raises(ServerError):
        misestimates("[]")


# -- what is proposed -----------------------------------------------------------------------------


def proposed(plan: dict[str, Any]) -> tuple[str, ...]:
    (found,) = found_in(plan)
    for statement in (*found.advice.sql, *found.advice.undo):
        pglast.parse_sql(statement)
    return found.advice.sql


def test_several_columns_of_one_table() -> None:
    condition = "((o.city = 'Rome'::text) AND (o.region_id = 3))"
    create, analyze = proposed(scan(1, 500, filter=condition))
    assert '(dependencies, ndistinct, mcv) ON "city", "region_id" FROM "shop"."orders"' in create
    assert analyze == 'ANALYZE "shop"."orders";'


def test_the_conditions_of_index_and_filter_belong_together() -> None:
    plan = step("Index Scan", 1, 500, schema="shop", relation_name="orders", alias="o",
                index_cond="(o.city = 'Rome'::text)", filter="(o.region_id = 3)")  # fmt: skip
    assert 'ON "city", "region_id"' in proposed(plan)[0]


def test_one_column() -> None:
    assert proposed(scan(1, 500)) == (
        'ALTER TABLE "shop"."orders" ALTER COLUMN "city" SET STATISTICS 1000;',
        'ANALYZE "shop"."orders";',
    )


def test_an_expression_and_an_expression_with_a_column() -> None:
    (create, _) = proposed(scan(1, 500, filter="(lower(o.city) = 'rome'::text)"))
    assert "_mcv" not in create
    assert ' ON (lower(city)) FROM "shop"."orders"' in create
    both = "((lower(o.city) = 'rome'::text) AND (o.region_id = 3))"
    assert (
        '(dependencies, ndistinct, mcv) ON (lower(city)), "region_id"'
        in (proposed(scan(1, 500, filter=both))[0])
    )


def test_an_expression_with_a_constant_is_not_repeated() -> None:
    (found,) = found_in(scan(1, 500, filter="(COALESCE(o.city, 'secret'::text) = 'x'::text)"))
    assert found.advice.sql == ()
    assert "holds a constant" in found.advice.text
    assert "secret" not in repr(found)


def test_nothing_filtered() -> None:
    assert proposed(scan(50, 5000, filter=None)) == ('ANALYZE "shop"."orders";',)


def test_rows_looked_up_by_another_tables_values() -> None:
    inner = scan(1, 500, "items", filter="(i.order_id = o.order_id)")
    plan = step("Nested Loop", 30, 15_000, scan(30, 30), {**inner, "Actual Loops": 30})
    assert proposed(plan) == ()


def test_a_sub_query_in_the_condition() -> None:
    assert proposed(scan(1, 500, filter="(NOT (hashed SubPlan 1))")) == ()


def test_a_functions_rows() -> None:
    (found,) = found_in(step("Function Scan", 1000, 5))
    assert "ROWS" in found.advice.text


def grouped(keys: list[str], estimated: float = 5000, actual: float = 20) -> dict[str, Any]:
    both = step("Hash Join", 9000, 9000, scan(9000, 9000), scan(900, 900, "items"))
    return step("Aggregate", estimated, actual, both, strategy="Hashed", group_key=keys)


@pytest.mark.parametrize(
    ("keys", "statement"),
    [
        (["o.city", "o.region_id"], '(ndistinct) ON "city", "region_id" FROM "shop"."orders"'),
        (["(date_trunc('day'::text, o.placed_at))"], "ON (date_trunc('day', placed_at)) FROM"),
        (["date_trunc('day'::text, o.at)", "i.kind"], "ON (date_trunc('day', at)) FROM"),
        (["o.city"], 'ALTER COLUMN "city" SET STATISTICS 1000'),
    ],
)
def test_groups(keys: list[str], statement: str) -> None:
    create, analyze = proposed(grouped(keys))
    assert statement in create
    assert analyze == 'ANALYZE "shop"."orders";'


@pytest.mark.parametrize("keys", [["o.city", "i.kind"], ["(o.a + i.b)"], ["x.y"], ["(SubPlan 1)"]])
def test_groups_that_no_statistics_cover(keys: list[str]) -> None:
    assert proposed(grouped(keys)) == ()


def test_names_are_quoted_bounded_and_told_apart() -> None:
    table = Relation('shop"; DROP TABLE x; --', "ö" * 60)
    operands = [Operand("o", (name,)) for name in ("a", 'b"', *map(str, range(9)))]
    advice = scan_advice("o", operands, {"o": table})
    (raw,) = pglast.parse_sql(advice.sql[0])
    created: Any = raw.stmt
    schema, name = (part.sval for part in created.defnames)
    assert schema == table.schema
    assert len(name.encode()) <= 63
    assert len(created.exprs) == 8
    assert [element.name for element in created.exprs][:2] == ["a", 'b"']
    other = scan_advice("o", operands[1:], {"o": table})
    assert pglast.parse_sql(other.sql[0])[0].stmt.defnames[1].sval != name  # type: ignore[union-attr]
    (dropped,) = pglast.parse_sql(advice.undo[0])
    assert type(dropped.stmt).__name__ == "DropStmt"


# -- the report -----------------------------------------------------------------------------------


def record(text: str = "SELECT 1") -> SteeredClassRecord:
    return SteeredClassRecord(ClassKey("0" * 16, "public"), text, SteeringState.WAITING, NOW)


def test_the_report_is_sql_and_proposes_each_thing_once() -> None:
    found = found_in(scan(1, 5000, filter="((o.city = 'Rome'::text) AND (o.region_id = 3))"))
    text = misestimate_report(
        [ClassFindings(record("SELECT 1;\n DROP TABLE x"), found), ClassFindings(record(), found)],
        NOW,
    )
    kinds = [type(raw.stmt).__name__ for raw in pglast.parse_sql(text)]
    assert kinds == ["CreateStatsStmt", "VacuumStmt"]
    assert "1 rows expected, 5,000 found, 5,000 times too few" in text
    assert "To undo: DROP STATISTICS" in text
    assert text.count("proposed above, or there already") == 1
    assert "Rome" not in text


def test_statistics_that_exist_are_not_proposed_again() -> None:
    found = found_in(scan(1, 5000, filter="((o.city = 'Rome'::text) AND (o.region_id = 3))"))
    (remedy,) = found[0].advice.remedies
    text = misestimate_report([ClassFindings(record(), found)], NOW, {remedy.what})
    assert pglast.parse_sql(text) == ()
    assert f"{remedy.what}: proposed above, or there already" in text


def test_the_report_says_where_there_is_nothing() -> None:
    text = misestimate_report(
        [ClassFindings(record()), ClassFindings(record(), hindrance="it did not end\nin time")], NOW
    )
    assert "No step was wrong by a factor of 10" in text
    assert "Not looked at: it did not end in time." in text
    assert pglast.parse_sql(text) == ()
    assert "No class" in misestimate_report([], NOW)
