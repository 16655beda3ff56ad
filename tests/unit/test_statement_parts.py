"""Statements taken apart: which are queries, and which names they use."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.steering.statements.statement_parts import (
    MAX_TOKENS,
    Names,
    NotReadOnlyError,
    parse_query,
)
from backend.steering.statements.ties import CutTies


def names_of(statement: str) -> Names:
    return parse_query(statement).names


def test_functions_are_found_wherever_they_hide():
    names = names_of(
        "WITH a AS (SELECT f1()) SELECT f2(x), s.f3(y) OVER (PARTITION BY f4(1) ORDER BY f5(2)), "
        "CASE WHEN f6() THEN 1 END, ARRAY[f7()], ROW(f8()), (SELECT f9()), extract(year FROM d) "
        "FROM t JOIN u ON f10(1), LATERAL f11(3), ROWS FROM (f12(), f13()) "
        "WHERE f14() IS NULL GROUP BY ROLLUP (f15()) HAVING f16() "
        "ORDER BY f17() LIMIT f18() OFFSET f19()"
    )
    expected = {f"f{i}" for i in range(1, 20)} | {"extract"}
    assert {name for _, name in names.functions} == expected
    assert ("s", "f3") in names.functions


def test_operators_are_found_with_those_that_comparisons_imply():
    names = names_of(
        "SELECT a + b, c OPERATOR(s.@@@) d, x LIKE 'y', e = ANY (f), NOT g ILIKE 'h', -i "
        "FROM t WHERE j !~ 'k' AND m IN (1) AND n BETWEEN 1 AND 2 ORDER BY o USING >>>"
    )
    written = {"+", "@@@", "~~", "~~*", "-", "!~", ">>>"}
    assert names.operators >= written | {"=", "<>", "<", "<=", ">", ">="}


def test_what_may_be_a_call_in_disguise_is_found():
    names = names_of("SELECT t.a, s.t.b, (t).c, (f(1)).d, (x[1]).e, g, t.* FROM t")
    assert names.attributes == {"a", "t", "b", "c", "d", "e"}


def test_relations_with_queries_and_types_are_found():
    names = names_of(
        "WITH RECURSIVE w AS (SELECT 1 UNION ALL SELECT * FROM w JOIN a.b ON true) "
        "SELECT c::int, CAST(d AS s.t) FROM w, ONLY e WHERE EXISTS (TABLE f)"
    )
    assert names.relations == {("", "w"), ("a", "b"), ("", "e"), ("", "f")}
    assert names.with_queries == {"w"}
    assert names.types == {("pg_catalog", "int4"), ("s", "t")}


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (" SELECT 1 ; ", "SELECT 1"),
        ("/* ü */ SELECT 'ü;' ;;", "SELECT 'ü;'"),
        (";; (SELECT 1)", "(SELECT 1)"),
        ("SELECT 1 -- why", "SELECT 1 -- why"),
    ],
)
def test_the_query_is_returned_without_what_surrounds_it(statement: str, text: str):
    assert parse_query(statement).text == text


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("SELECT merge_action()", "not known to only read"),
        ("SELECT * INTO TEMP x FROM t", "INTO"),
        ("SELECT (SELECT 1 FROM t FOR NO KEY UPDATE)", "FOR UPDATE or FOR SHARE"),
        ("VALUES (1) UNION SELECT 1 FROM (SELECT 1 FOR SHARE) x", "FOR UPDATE or FOR SHARE"),
        ("WITH a AS (WITH b AS (UPDATE t SET x = 1 RETURNING 1) TABLE b) TABLE a", "an UPDATE"),
        ("REFRESH MATERIALIZED VIEW v", "not a query"),
        ("NOTIFY x", "not a query"),
        ("SELECT $$", "cannot be parsed"),
        ("SELECT \ud800", "cannot be parsed"),
    ],
)
def test_whatever_else_is_refused(statement: str, reason: str):
    with pytest.raises(NotReadOnlyError, match=reason):
        parse_query(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1" + "+1" * (MAX_TOKENS // 2 - 1),
        "SELECT " + "(" * 9_000 + "1" + ")" * 9_000,
        "SELECT" + " UNION SELECT" * (MAX_TOKENS // 2 - 1),
        "SELECT " + "NOT " * 9_000 + "true",
        "SELECT a" + "[1]" * 6_000,
    ],
)
def test_the_deepest_statement_let_through_does_not_overflow_a_threads_stack(statement: str):
    outcomes = []

    def parse() -> None:
        try:
            outcomes.append(parse_query(statement).text == statement)
        except NotReadOnlyError as error:
            outcomes.append("cannot be parsed" in str(error))

    thread = threading.Thread(target=parse)
    thread.start()
    thread.join()
    assert outcomes == [True]


@pytest.mark.parametrize(
    ("statement", "ties"),
    [
        ("SELECT a, b FROM t ORDER BY b LIMIT 5", CutTies((1,), 5, False)),
        ("SELECT t.a, b AS c FROM t ORDER BY c, t.a LIMIT 5 OFFSET 2", CutTies((1, 0), 5, True)),
        ("SELECT a, f(b) FROM t GROUP BY 1 ORDER BY f(b), 1 LIMIT 5", CutTies((1, 0), 5, False)),
        ("SELECT t.a FROM t ORDER BY a FETCH FIRST 0 ROWS ONLY", CutTies((0,), 0, False)),
        ("SELECT a AS b FROM t UNION SELECT c FROM u ORDER BY b LIMIT 5", CutTies((0,), 5, False)),
        ("SELECT a AS b, b AS a FROM t ORDER BY a LIMIT 5", CutTies((1,), 5, False)),
        ("SELECT a FROM t ORDER BY a FETCH FIRST 5 ROWS WITH TIES", None),
        ("SELECT a FROM t ORDER BY a", None),
        ("SELECT a FROM t LIMIT 5", None),
        ("SELECT a FROM t ORDER BY a LIMIT 5 + 1", None),
        ("SELECT a FROM t ORDER BY a LIMIT ALL", None),
        ("SELECT a FROM t ORDER BY b LIMIT 5", None),
        ("SELECT a FROM t ORDER BY a, b LIMIT 5", None),
        ("SELECT a FROM t ORDER BY 2 LIMIT 5", None),
        ("SELECT *, a FROM t ORDER BY a LIMIT 5", None),
        ("SELECT t.*, a FROM t ORDER BY a LIMIT 5", None),
        ("SELECT (f(1)).*, a FROM t ORDER BY a LIMIT 5", None),
        ("VALUES (1) ORDER BY 1 LIMIT 5", None),
    ],
)  # fmt: skip
def test_where_an_answer_is_cut_among_equals_is_found(statement: str, ties: CutTies | None):
    assert parse_query(statement).ties == ties


@given(st.text(max_size=60) | st.text("select;()'\"$-/*+1, \n\0", max_size=60))
def test_no_text_gets_through_by_an_error(text: str):
    try:
        statement = parse_query(text).text
    except NotReadOnlyError:
        return
    assert statement in text
