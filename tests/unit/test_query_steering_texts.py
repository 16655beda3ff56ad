"""What the plug-in makes of a statement's text, and the arguments that it refuses."""

from __future__ import annotations

import ast
import gc
import logging
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, exc, text

from backend.steering import client
from backend.steering.client import fingerprint, functions_called, steering_of
from backend.steering.client.statements import (
    MAX_TEXT_LENGTH,
    NotNow,
    ParsingBudget,
    StatementReader,
    plain_sql,
)
from tests.query_steering import LOOK_ENTRY, Injected, steering

CLIENT = Path(client.__file__).parent
URL = "postgresql+psycopg2://nobody@127.0.0.1:1/none"


def test_it_imports_sqlalchemy_pglast_and_the_standard_library_alone() -> None:
    allowed = {*sys.stdlib_module_names, "sqlalchemy", "pglast"}
    found = set()
    for path in CLIENT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1  # nothing of the product around it
    assert {"sqlalchemy", "pglast"} <= found
    assert found - allowed == set()


# -- texts --------------------------------------------------------------------------------------


def test_placeholders_become_parameters() -> None:
    assert plain_sql("a = %(a_1)s AND b %% 2 = %s") == "a = $1 AND b % 2 = $1"
    expected = fingerprint("SELECT a FROM t WHERE b = 5 AND c LIKE 'x%'")
    reader = StatementReader(interpolated=True)
    assert reader.fingerprint("SELECT a FROM t WHERE b = %(b)s AND c LIKE 'x%%'") == expected
    plain = StatementReader(interpolated=False)
    assert plain.fingerprint("SELECT a FROM t WHERE b = $1::INTEGER AND c LIKE $2") == expected


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SELECT 1", []),
        ("VALUES (1), (2)", []),
        ("TABLE t", []),
        ("(SELECT 1) UNION ALL (SELECT 2)", []),
        ("SELECT count(*), app.f(x) FROM g(3) AS g(x)", ["app.f", "count", "g"]),
        ("WITH a AS (SELECT upper(x) FROM t) SELECT * FROM a, LATERAL h(a.x)", ["h", "upper"]),
        ("SELECT rank() OVER (ORDER BY lower(x)) FROM t", ["lower", "rank"]),
        ("SELECT x, CURRENT_DATE FROM t WHERE EXISTS (SELECT FROM u WHERE f(u.y))", ["f"]),
        ("/* a comment */ SELECT 1 -- another", []),
    ],
)
def test_the_functions_of_plain_queries(sql: str, names: list[str]) -> None:
    assert functions_called(sql) == frozenset(names)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "WITH a AS (UPDATE t SET x = 1 RETURNING x) SELECT * FROM a",
        "SELECT * FROM (WITH a AS (DELETE FROM t RETURNING 1) SELECT 1) AS b",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t WHERE x IN (SELECT x FROM u FOR KEY SHARE SKIP LOCKED)",
        "SELECT * INTO u FROM t",
        "SELECT 1; SELECT 2",
        "SELECT Random()",
        "SELECT pg_catalog.nextval('s')",
        "SELECT 1 WHERE pg_try_advisory_lock(1)",
        "SELECT * FROM t TABLESAMPLE BERNOULLI (10)",
        "EXPLAIN SELECT 1",
        "COPY (SELECT 1) TO STDOUT",
        "BEGIN",
        "",
    ],
)
def test_what_is_no_plain_query(sql: str) -> None:
    assert functions_called(sql) is None


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT 1",
        "  SHOW work_mem",
        "SELEC 1",
        "SELECT 'open",
        "SELECT /*+ SeqScan(t) */ 1",
        "/*+ SeqScan(t) */ SELECT 1",
        f"SELECT {'1, ' * MAX_TEXT_LENGTH} 1",
        "SELECT '\ud800'",
        "SELECT \x00",
    ],
)
def test_texts_that_have_no_fingerprint_here(sql: str) -> None:
    assert StatementReader(interpolated=True).fingerprint(sql) is None


@given(st.text(max_size=100).map(lambda end: "SELECT " + end))
def test_no_text_is_an_error(sql: str) -> None:
    reader = StatementReader(interpolated=True)
    assert reader.fingerprint(sql) is None or len(reader.fingerprint(sql) or "") == 16
    reader.functions_called(sql)


@pytest.mark.parametrize("sql", ["f(" * 4000 + "1" + ")" * 4000, "1+" * 8000 + "1"])
def test_deep_texts_are_left_alone(sql: str) -> None:
    assert StatementReader(interpolated=True).functions_called(f"SELECT {sql}") is None


def test_parsing_is_paid_from_a_budget_that_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now_s[0])
    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])

    def work() -> str:
        now_s[0] += 0.4
        return "done"

    budget = ParsingBudget(share=0.02, burst_s=0.5)
    assert [budget.spend(work), budget.spend(work)] == ["done", "done"]
    with pytest.raises(NotNow):
        budget.spend(work)
    now_s[0] += 14  # 0.3 s were owed, the share earns 0.28
    with pytest.raises(NotNow):
        budget.spend(work)
    now_s[0] += 2
    assert budget.spend(work) == "done"


# -- arguments ----------------------------------------------------------------------------------


def engine(**arguments: Any) -> Any:
    url = arguments.pop("url", URL)
    return create_engine(url, plugins=["query_steering"], **arguments)


def test_arguments_may_stand_in_the_url(tmp_path: Path) -> None:
    made = create_engine(
        f"{URL}?plugin=query_steering&query_steering_table={tmp_path}/table.json"
        f"&query_steering_report={tmp_path}/timings.jsonl&query_steering_default_share=0.1"
        "&query_steering_comments=true&query_steering_search_path=public"
    )
    assert str(made.url) == URL
    assert steering_of(made) is not None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "query_steering_table is None; give the path"),
        ({"query_steering_table": 5}, "query_steering_table is 5"),
        ({"query_steering_default_share": 2}, r"must lie in \[0, 1\]"),
        ({"query_steering_default_share": "much"}, "query_steering_default_share"),
        ({"query_steering_report": 5}, "query_steering_report is 5"),
        ({"query_steering_comments": True}, "needs query_steering_search_path"),
    ],
)
def test_wrong_arguments_are_told_when_the_engine_is_made(
    arguments: dict[str, Any], why: str
) -> None:
    if arguments and "query_steering_table" not in arguments:
        arguments["query_steering_table"] = Injected()
    with pytest.raises(exc.ArgumentError, match=why):
        engine(**arguments)


def test_another_database_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    made = engine(url="sqlite://", query_steering_table=Injected(LOOK_ENTRY))
    assert steering_of(made) is None
    assert "nothing is steered with sqlite" in caplog.text
    with made.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    made.dispose()


def test_an_engine_can_go(caplog: pytest.LogCaptureFixture) -> None:
    made = engine(query_steering_table=Injected(LOOK_ENTRY))
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_tables_that_expire_or_cannot_be_had_steer_nothing_and_say_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Injected(LOOK_ENTRY, expires_at_s=1.0)
    made = steering(engine(query_steering_table=source))
    for _ in range(3):
        made.refresh()
    assert made._rewriter._chooser.is_idle
    assert caplog.text.count("has expired") == 1
    source.table = Injected(LOOK_ENTRY).table
    made.refresh()
    chooser = made._rewriter._chooser
    assert not chooser.is_idle
    source.table = Injected(LOOK_ENTRY, expires_at_s=4e9).table
    made.refresh()
    assert made._rewriter._chooser is chooser  # the same entries, for longer
    source.table = None  # type: ignore[assignment]
    for _ in range(3):
        made.refresh()
    assert made._rewriter._chooser.is_idle
    assert caplog.text.count("source failed") == 1


def test_a_reporter_that_fails_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_timings: object) -> None:
        raise RuntimeError("no way out")

    made = steering(engine(query_steering_table=Injected(), query_steering_report=broken))
    for _ in range(2):
        made._recorder.add(LOOK_ENTRY, True, "done", 1.0)
        made.report()
    assert [r.levelno for r in caplog.records if "no way out" in r.message] == [logging.WARNING]
