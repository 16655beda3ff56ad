"""What a plan's conditions look at, and that no constant of the statement comes out of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.steering.plans.plan_conditions import (
    Operand,
    UnreadableError,
    condition_operands,
    key_operand,
)


def column(name: str, alias: str = "o") -> Operand:
    return Operand(alias, (name,))


@pytest.mark.parametrize(
    ("text", "operands"),
    [
        ("(o.city = 'Rome'::text)", [column("city")]),
        ("((o.city)::text = 'Rome'::text)", [column("city")]),
        ("((o.city)::character varying = 'Rome')", [column("city")]),
        (
            "((o.city = 'a'::text) AND (o.total >= 5) AND (o.city <> 'b'::text))",
            [column("city"), column("total")],
        ),
        ("((o.x = 1) OR (o.y IS NULL) OR (NOT o.flag))", [*map(column, ("x", "y", "flag"))]),
        ("(o.status = ANY ('{a,b}'::text[]))", [column("status")]),
        ("(o.customer_id = c.customer_id)", [column("customer_id"), column("customer_id", "c")]),
        ("(o.id = $1)", [column("id")]),
        ("(placed_at > now())", [column("placed_at", "")]),
        ("(now() > '2025-01-01'::date)", []),
        ("(lower(o.email) ~~ 'a%'::text)", [Operand("o", ("email",), "lower(email)")]),
        ("((o.a + o.b) > 3)", [Operand("o", ("a", "b"), "a + b")]),
        ("((o.a + c.b) > 3)", [Operand("", ("a", "b"), "a + b")]),
        ("((o.id)::bigint = 3)", [Operand("o", ("id",), "CAST(id AS bigint)")]),
        ('("o"."odd Name" = 1)', [column("odd Name")]),
        ('(lower("o"."odd Name") = 1)', [Operand("o", ("odd Name",), 'lower("odd Name")')]),
    ],
)
def test_conditions(text: str, operands: list[Operand]) -> None:
    assert list(condition_operands(text)) == operands


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("date_trunc('day'::text, o.placed_at)", "date_trunc('day', placed_at)"),
        ("(date_trunc('MONTH'::text, o.placed_at))", "date_trunc('MONTH', placed_at)"),
        ("EXTRACT(year FROM o.placed_at)", "EXTRACT(YEAR FROM placed_at)"),
        ("date_part('dow'::text, o.placed_at)", "date_part('dow', placed_at)"),
    ],
)
def test_the_parts_of_a_time_are_kept(text: str, expression: str) -> None:
    assert key_operand(text) == Operand("o", ("placed_at",), expression)


@pytest.mark.parametrize(
    "text",
    [
        "date_trunc('Rome'::text, o.x)",
        "concat('day'::text, o.x)",
        "date_trunc(o.x, 'day'::text)",
        "date_trunc('day'::text, o.x, 'Europe/Rome'::text)",
        "date_trunc(lower('day'::text), o.x)",
        "COALESCE(o.x, 5)",
        "(o.x * 1.19)",
        "(o.x || $2)",
        "(o.x || B'101')",
        "CASE WHEN o.x THEN 1 ELSE 0 END",
    ],
)
def test_other_constants_are_left_out_with_their_expression(text: str) -> None:
    assert key_operand(text) == Operand("o", ("x",), None, has_literal=True)


def test_a_key_without_columns() -> None:
    assert key_operand("1") is None


@pytest.mark.parametrize(
    "text",
    [
        "(NOT (hashed SubPlan 1))",
        "(NOT (ANY (c.id = (hashed SubPlan 1).col1)))",
        "(o.x = (SELECT 1))",
        "o.x; DROP TABLE o",
        "1, 2",
        "",
        "o.x\0",
        "(" * 5000,
        "o.x" * 100_000,
        " OR ".join(["o.x"] * 15_000),
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        condition_operands(text)


_TERMS = st.sampled_from(
    ["o.a = {}", "lower(o.a) = {}", "date_trunc({}, o.a) = {}", "o.a IN ({}, {})", "o.a ~~ {}",
     "COALESCE(o.a, {}) > o.b", "CASE WHEN o.a = {} THEN o.b ELSE {} END = o.c", "NOT o.a = {}",
     "EXTRACT(day FROM o.a) = {}", "(o.a)::text || {} = {}"]
)  # fmt: skip


@given(st.lists(_TERMS, min_size=1, max_size=5), st.sampled_from([" AND ", " OR "]))
def test_no_constant_ever_comes_out(terms: list[str], joined: str) -> None:
    secret = "'s3cret'"
    text = joined.join(f"({term})" for term in terms).replace("{}", secret)
    found = condition_operands(text)
    assert found
    assert "s3cret" not in repr(found)
