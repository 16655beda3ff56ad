"""Proven hint sets as SQL: what is exported, what is refused, and that all of it parses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pglast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.plans import RunOutcome
from backend.domain.records import QueryClassRecord
from backend.domain.steering import (
    ClassKey,
    PlanRunRecord,
    RunPurpose,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import SteeringError
from backend.steering.client import planner_settings
from backend.steering.export.hint_plan import (
    WHILE_IT_RUNS,
    HintTable,
    hint_comments,
    hint_table,
    hints,
    proven_classes,
)
from backend.steering.export.quoting import comment, quoted_text
from backend.steering.export.role_settings import PlanPairs, role_proposals, role_settings
from backend.steering.statements.query_keys import with_query_keys
from tests.contracts import records as full

NOW = datetime(2026, 1, 5, 8, tzinfo=timezone.utc)
NO_LOOPS = {"enable_nestloop": "off"}
NO_HASH = {"enable_hashjoin": "off", "jit": "off"}
QUERY_KEY = "10.16384.-77.t"


def proven(
    number: int = 1, settings: Mapping[str, str] = NO_LOOPS, **others: Any
) -> SteeredClassRecord:
    """A class whose hint set halves its 100 ms."""
    assert full.STEERED_CLASS.evidence is not None
    evidence = replace(
        full.STEERED_CLASS.evidence, hint_set="+".join(settings), settings=settings,
        under=dict.fromkeys(settings, "on"), effect=-0.5,
    )  # fmt: skip
    fields = {
        "text": "SELECT $1", "state": SteeringState.VERIFIED, "mode": SteeringMode.AUTO,
        "reason": "", "evidence": evidence, "default_ms": 100.0, "query_keys": (QUERY_KEY,),
        "key": ClassKey(f"{number:016x}", '"$user", public'),
    }  # fmt: skip
    return replace(full.STEERED_CLASS, **{**fields, **others})  # type: ignore[arg-type]


def explored(number: int, **others: Any) -> SteeredClassRecord:
    """A class whose default plan of 100 ms is best."""
    fields = {"state": SteeringState.DEFAULT_BEST, "evidence": None}
    return proven(number, **{**fields, **others})


def statements(sql: str) -> list[str]:
    """The kinds of the statements in it: nothing of what stands there in comments."""
    return [type(raw.stmt).__name__ for raw in pglast.parse_sql(sql)]


# -- quoting --------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_quoted_text_is_the_text_in_one_line(text: str) -> None:
    quoted = quoted_text(text)
    (raw,) = pglast.parse_sql(f"SELECT {quoted}")
    statement: Any = raw.stmt
    assert statement.targetList[0].val.val.sval == text
    assert "\n" not in quoted
    assert "\r" not in quoted


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_a_comment_stays_a_comment(text: str) -> None:
    line = comment(text + "\n; DROP TABLE x; --\r SELECT 2")
    assert statements(f"{line}\nSELECT 1") == ["SelectStmt"]
    assert len(line.splitlines()) == 1
    assert len(comment("x" * 500)) < 310


# -- which classes, which hints -------------------------------------------------------------------


def test_only_what_is_proven_or_pinned_is_exported() -> None:
    verified, withdrawn = proven(1), proven(2, state=SteeringState.WITHDRAWN)
    pinned = proven(3, state=SteeringState.WITHDRAWN, mode=SteeringMode.PIN, reason="slower")
    off = proven(4, mode=SteeringMode.OFF)
    assert proven_classes([verified, withdrawn, pinned, off, explored(5)]) == (verified, pinned)
    assert "NO LONGER PROVEN (withdrawn): slower" in hint_comments([pinned], NOW)


def test_a_hint_set_as_hints() -> None:
    assert hints(NO_HASH) == "Set(enable_hashjoin off) Set(jit off)"


@pytest.mark.parametrize("setting", sorted(WHILE_IT_RUNS))
def test_settings_that_act_while_a_plan_runs_are_not_exported(setting: str) -> None:
    assert setting in planner_settings.SETTINGS
    record = proven(1, {**NO_LOOPS, setting: "64MB"})
    with pytest.raises(SteeringError, match=setting):
        hints({setting: "64MB"})
    for text in (
        hint_comments([record], NOW),
        hint_table([record], NOW, layout=HintTable.BY_QUERY_ID, texts={}),
    ):
        assert "Not exported" in text
        assert "/*+" not in text
        assert statements(text) == []


def test_hint_comments() -> None:
    text = hint_comments([proven(1), proven(2, NO_HASH, text="SELECT 1;\nDROP TABLE x")], NOW)
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith("--") and line] == [
        "/*+ Set(enable_nestloop off) */",
        "/*+ Set(enable_hashjoin off) Set(jit off) */",
    ]
    assert statements(text) == []
    for told in ("2026-01-05", "-50.0%", "enable_nestloop = on", "To undo", f"{1:016x}"):
        assert told in text
    assert "No hint set is proven yet" in hint_comments([], NOW)


# -- the hint table -------------------------------------------------------------------------------


def table(record: SteeredClassRecord, layout: HintTable, text: str = "SELECT $1") -> str:
    return hint_table([record], NOW, layout=layout, texts={QUERY_KEY: text})


def undo(text: str) -> list[str]:
    """What the comments say takes the rows out again."""
    mark = "-- To undo: "
    return [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]


def test_rows_by_query_id() -> None:
    same_query = (QUERY_KEY, "11.16384.-77.t", "10.5.99.n")
    text = table(proven(1, query_keys=same_query), HintTable.BY_QUERY_ID)
    assert statements(text) == ["InsertStmt", "InsertStmt"]
    assert "(query_id, application_name, hints)" in text
    assert "VALUES (-77, '', 'Set(enable_nestloop off)')" in text
    assert "Database 5" in text
    assert statements("\n".join(undo(text))) == ["DeleteStmt", "DeleteStmt"]


def test_rows_by_text_for_both_ways_of_sending_parameters() -> None:
    sent = "SELECT 'a\\b', $1\n FROM \"odd$2\" WHERE x = $2"
    text = table(proven(), HintTable.BY_TEXT, sent)
    assert statements(text) == ["InsertStmt", "InsertStmt"]
    inserted = [raw.stmt.selectStmt.valuesLists[0][0].val.sval for raw in pglast.parse_sql(text)]  # type: ignore[union-attr]
    assert inserted == ["SELECT 'a\\b', ?\n FROM \"odd$2\" WHERE x = ?", sent]
    assert statements("\n".join(undo(text))) == ["DeleteStmt", "DeleteStmt"]


def test_a_text_of_two_classes_is_nobodys() -> None:
    twins = [proven(1), proven(1, key=ClassKey(f"{1:016x}", "other"))]
    text = hint_table(twins, NOW, layout=HintTable.BY_TEXT, texts={QUERY_KEY: "SELECT $1"})
    assert statements(text) == []
    assert text.count("cannot tell them apart") == 2


@pytest.mark.parametrize(
    ("layout", "told"),
    [(HintTable.BY_QUERY_ID, "query_id is not known"), (HintTable.BY_TEXT, "text as the app")],
)
def test_what_telemetry_does_not_know_is_said(layout: HintTable, told: str) -> None:
    text = table(proven(query_keys=()), layout)
    assert told in text
    assert statements(text) == []


@pytest.mark.parametrize(
    ("version", "layout"),
    [(14, "1.6"), (160004, "1.6"), (17, "1.7"), (170000, "1.7"), (180001, "1.7")],
)
def test_the_layout_goes_with_the_server(version: int, layout: str) -> None:
    assert HintTable.of_server(version).value == layout


def test_query_keys_are_found_by_fingerprint() -> None:
    fingerprint = pglast.fingerprint("SELECT a FROM t WHERE b = 5")
    unknown = proven(1, key=ClassKey(fingerprint, "public"), query_keys=())
    queries = {
        key: QueryClassRecord(key, text, NOW)
        for key, text in {
            "1.2.3.t": "SELECT a FROM t WHERE b = $1",
            "1.2.4.t": "SELECT a FROM t WHERE c = $1",
            "1.2.5.t": "SELECT interval $1 nonsense (",
        }.items()
    }
    (found,) = with_query_keys([unknown], queries)
    assert found.query_keys == ("1.2.3.t",)
    twin = replace(unknown, key=ClassKey(fingerprint, "other"))
    assert with_query_keys([unknown, twin], queries) == (unknown, twin)
    known = proven(2)
    assert with_query_keys([known], queries) == (known,)


# -- one hint set for a role ----------------------------------------------------------------------


def run(
    record: SteeredClassRecord, latency_s: float, settings: Mapping[str, str] = NO_LOOPS,
    **others: Any,
) -> PlanRunRecord:  # fmt: skip
    fields: dict[str, Any] = {
        "at": NOW, "key": record.key, "statement": "a", "hint_set": "any", "settings": settings,
        "plan_hash": "p", "purpose": RunPurpose.PROBE, "outcome": RunOutcome.FINISHED,
        "latency_s": latency_s, "default_latency_s": 0.1,
    }  # fmt: skip
    return PlanRunRecord(**{**fields, **others})


def judged(
    classes: list[SteeredClassRecord], runs: list[PlanRunRecord], plans: PlanPairs | None = None
) -> Any:
    (one,) = role_proposals(classes, runs, min_gain=0.1, plans=plans or {})
    return one


def test_a_hint_set_that_suits_all_is_proposed() -> None:
    classes = [proven(1), explored(2), explored(3, state=SteeringState.WAITING)]
    one = judged(classes, [run(classes[1], 0.1)])
    assert one.refusal == ""
    assert one.total == pytest.approx(0.75)
    assert one.not_explored == 1
    assert any("1 classes that were not tried" in line for line in one.told())


def test_every_explored_class_must_be_measured() -> None:
    one = judged([proven(1), explored(2)], [run(explored(2), 0.01, NO_HASH)])
    assert "1 of 2 classes is not known" in one.refusal
    assert one.total is None


def test_no_class_may_be_harmed_whatever_the_total() -> None:
    one = judged([proven(1, default_ms=1e6), explored(2)], [run(explored(2), 0.11)])
    assert one.refusal.startswith(f"it harms {2:016x} (1.1 times")


def test_one_harmed_statement_is_enough() -> None:
    runs = [run(explored(2), 0.02), run(explored(2), 0.2, statement="b")]
    assert "it harms" in judged([proven(1), explored(2)], runs).refusal


def test_repeated_runs_of_a_statement_count_by_their_median() -> None:
    runs = [run(explored(2), latency_s) for latency_s in (0.1, 0.1, 9.0)]
    one = judged([proven(1), explored(2)], runs)
    assert one.refusal == ""
    assert "3 runs" in one.classes[1].source


def test_what_was_broken_off_early_says_too_little() -> None:
    early = run(explored(2), 0.06, outcome=RunOutcome.TIMED_OUT)
    assert "broken off after 60%" in judged([proven(1), explored(2)], [early]).refusal
    late = run(explored(2), 0.3, outcome=RunOutcome.TIMED_OUT)
    assert "it harms" in judged([proven(1), explored(2)], [late]).refusal
    failed = run(explored(2), 0.01, outcome=RunOutcome.FAILED)
    assert "not measured" in judged([proven(1), explored(2)], [failed]).refusal


def test_the_gain_must_be_worth_it() -> None:
    one = judged([proven(1, default_ms=10.0), explored(2)], [run(explored(2), 0.1)])
    assert "less than 10%" in one.refusal


def test_a_withdrawn_hint_set_proves_nothing_for_its_class() -> None:
    pinned = proven(1, state=SteeringState.WITHDRAWN, mode=SteeringMode.PIN)
    assert "not measured" in judged([pinned], []).refusal


def test_a_hint_set_that_leads_to_the_default_plan_needs_no_run() -> None:
    classes = [proven(1), explored(2)]
    where = (classes[1].key, frozenset(NO_LOOPS.items()))
    same = judged(classes, [], {where: [("p", "p"), ("q", "q")]})
    assert (same.refusal, same.classes[1].source) == ("", "the same plan")
    assert "not measured" in judged(classes, [], {where: [("p", "p"), ("q", "r")]}).refusal


def test_a_plan_that_was_run_under_another_name_counts() -> None:
    classes = [proven(1), explored(2)]
    where = (classes[1].key, frozenset(NO_LOOPS.items()))
    other = run(classes[1], 0.09, NO_HASH, plan_hash="r")
    one = judged(classes, [other], {where: [("p", "r")]})
    assert one.classes[1].ratio == pytest.approx(0.9)
    assert "not known" in judged(classes, [other], {where: [("p", "s")]}).refusal


def test_the_best_comes_first() -> None:
    classes = [proven(1), proven(2, NO_HASH), explored(3)]
    runs = [
        run(classes[1], 0.05), run(classes[2], 0.1),
        run(classes[0], 0.09, NO_HASH), run(classes[2], 0.08, NO_HASH),
    ]  # fmt: skip
    best, other = role_proposals(classes, runs, min_gain=0.1, plans={})
    assert (best.settings, other.settings) == (NO_LOOPS, NO_HASH)
    assert best.total < other.total < 0.9


# -- its text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ({"role": 'app"; DROP ROLE x; --'}, "AlterRoleSetStmt"),
        ({"role": "app", "database": "shop"}, "AlterRoleSetStmt"),
        ({"database": 'sh"op'}, "AlterDatabaseSetStmt"),
    ],
)
def test_settings_of_a_role_and_their_undoing(where: dict[str, str], kind: str) -> None:
    classes = [proven(1, NO_HASH)]
    text = role_settings(role_proposals(classes, [], min_gain=0.1, plans={}), NOW, **where)
    assert statements(text) == [kind, kind]
    undo = text.partition("-- To undo:\n")[2].replace("-- ", "")
    assert statements(undo) == [kind, kind]
    assert undo.count(" RESET ") == 2
    names = [*where.values()]
    (first, _) = pglast.parse_sql(text)
    altered: Any = first.stmt
    found = altered.role.rolename if "role" in where else altered.dbname
    assert found == names[0]


def test_memory_for_a_whole_role_is_warned_of() -> None:
    for settings, warned in (({"work_mem": "64MB"}, True), (NO_LOOPS, False)):
        proposals = role_proposals([proven(1, settings)], [], min_gain=0.1, plans={})
        text = role_settings(proposals, NOW, role="app")
        assert ("Mind the server's memory" in text) == warned
        assert statements(text) == ["AlterRoleSetStmt"]


def test_a_role_without_a_fitting_hint_set() -> None:
    proposals = role_proposals([proven(1), explored(2)], [], min_gain=0.1, plans={})
    text = role_settings(proposals, NOW, role="app")
    assert statements(text) == []
    assert "not proposed, what it does to 1 of 2 classes is not known" in text
    with pytest.raises(SteeringError, match="whose sessions"):
        role_settings(proposals, NOW)
