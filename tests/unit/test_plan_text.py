"""Plans as text for people: what is shown, and that no constant is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.steering.plans import plan_text as module
from backend.steering.plans.plan_text import plan_text, without_constants
from backend.steering.plans.plan_tree import read_plan


def text_of(plan: dict[str, Any], **beside: Any) -> str:
    return plan_text(read_plan([{"Plan": plan, **beside}]))


def step(kind: str, **fields: Any) -> dict[str, Any]:
    """A step; underscores in fields' names are spaces."""
    named = {key.replace("_", " "): value for key, value in fields.items()}
    costs = {"Startup Cost": 1.5, "Total Cost": 20.25, "Plan Rows": 7}
    return {"Node Type": kind, **costs, **named}


@pytest.mark.parametrize(
    ("expression", "masked"),
    [
        ("((status)::text = 'it''s Anna'::text)", "((status)::text = ?::text)"),
        (r"(a = E'tab\t''x'::text)", "(a = ?::text)"),
        ("(\"Größe\" > 1.5e3) AND (n = '-5'::integer)", '("Größe" > ?) AND (n = ?::integer)'),
        ("(id = ANY ('{1,2,3}'::integer[]))", "(id = ANY (?::integer[]))"),
        ("(flags = B'101'::\"bit\")", '(flags = ?::"bit")'),
        ("(n = -7)", "(n = -?)"),
        ("(x = $0) AND (hashed SubPlan 1)", "(x = $0) AND (hashed SubPlan 1)"),
        ("(n > (InitPlan 2).col1) AND (\"SubPlan\" <> 3)",
         "(n > (InitPlan 2).col1) AND (\"SubPlan\" <> ?)"),
        ("(price)::numeric(10,2)", "(price)::numeric(?,?)"),
        ("(column1 = t2.c4)", "(column1 = t2.c4)"),
    ],
)  # fmt: skip
def test_constants_become_question_marks(expression: str, masked: str) -> None:
    assert without_constants(expression) == masked


@pytest.mark.parametrize(
    "expression", ["a = 'open", 'a = "open', "a = 'x' -- 'y'", "a /* 'y' */ = 1", "a\0 = 'x'", "1a"]
)
def test_what_cannot_be_read_is_left_out(expression: str) -> None:
    assert without_constants(expression) is None


# Of the alphabet that decides where a literal ends; '7' marks what must not be seen.
@given(st.lists(st.text(alphabet="7'\\$\"; -/*é\n", max_size=12), min_size=1, max_size=4))
def test_no_literal_that_a_server_prints_is_shown(texts: list[str]) -> None:
    def quoted(text: str) -> str:
        body = text.replace("'", "''")
        escaped = body.replace("\\", "\\\\")
        return f"E'{escaped}'" if "\\" in body else f"'{body}'"

    expression = " AND ".join(f"(a = {quoted(text)}::text)" for text in texts)
    assert without_constants(expression) == " AND ".join(["(a = ?::text)"] * len(texts))


def test_a_tree_is_written_as_explain_writes_it() -> None:
    plan = step(
        "Hash Join", Join_Type="Left", Hash_Cond="(c.parent = p.id)",
        Plans=[
            step("Seq Scan", Relation_Name="children", Alias="c", Filter="(c.note = 'secret')",
                 Parent_Relationship="Outer"),
            step("Hash", Parent_Relationship="Inner", Plans=[
                step("Index Scan", Relation_Name="parents", Alias="parents",
                     Index_Name="parents_id", Scan_Direction="Backward", Index_Cond="(id < 4711)",
                     Parent_Relationship="Outer"),
            ]),
            step("Aggregate", Strategy="Plain", Partial_Mode="Finalize", Subplan_Name="SubPlan 1",
                 Parent_Relationship="SubPlan"),
        ],
    )  # fmt: skip
    costs = "  (cost=1.50..20.25 rows=7)"
    assert text_of(plan, Settings={"enable_nestloop": "off", "search_path": "secret"}).split(
        "\n"
    ) == [
        f"Hash Left Join{costs}",
        "  Hash Cond: (c.parent = p.id)",
        f"  ->  Seq Scan on children c{costs}",
        "        Filter: (c.note = ?)",
        f"  ->  Hash{costs}",
        f"        ->  Index Scan Backward using parents_id on parents{costs}",
        "              Index Cond: (id < ?)",
        "  SubPlan 1",
        f"    ->  Finalize Aggregate{costs}",
        "Settings: enable_nestloop = off",
    ]


def test_fields_that_are_not_known_to_be_harmless_are_not_shown() -> None:
    shown = text_of(
        step("Function Scan", Function_Name="f", Alias="f", Function_Call="f('secret')",
             Sampling_Parameters=["'secret'"], Output=["'secret'"], New_Key="secret"),
    )  # fmt: skip
    assert "secret" not in shown
    assert shown.startswith("Function Scan on f  (")


def test_names_stay_on_their_line_and_in_their_quotes() -> None:
    shown = text_of(step("Seq Scan", Relation_Name="Or\nders", Alias='a"b\u2028'))
    assert shown.startswith('Seq Scan on "Or ders" "a""b "  (')
    assert len(shown.splitlines()) == 1


def test_large_plans_and_conditions_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STEPS", 2)
    monkeypatch.setattr(module, "MAX_CONDITION", 10)
    scans = [step("Seq Scan", Filter="(a + b + c + d > 3)") for _ in range(4)]
    lines = text_of(step("Append", Plans=scans)).split("\n")
    assert len(lines) == 4
    assert lines[2].strip() == "Filter: (a + b + c..."
    assert lines[3] == "... and 3 more steps"


def test_lists_and_unreadable_conditions() -> None:
    shown = text_of(step("Sort", Sort_Key=["a", "(b || 'x'::text)", "'open"], Filter={"a": 1}))
    assert "Sort Key: a, (b || ?::text), (not shown)" in shown
    assert "Filter: (not shown)" in shown
