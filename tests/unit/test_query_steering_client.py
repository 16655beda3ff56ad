"""What of the plug-in needs no server: texts, timings, the spool, the thread, arguments."""

from __future__ import annotations

import ast
import gc
import json
import logging
import os
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, exc, text

from backend.steering import client
from backend.steering.client import (
    ClassTimings,
    SpoolWriter,
    bucket_start_s,
    fingerprint,
    functions_called,
    steering_of,
    take_spool,
)
from backend.steering.client import background as background_module
from backend.steering.client.background import Background
from backend.steering.client.statements import (
    MAX_TEXT_LENGTH,
    NotNow,
    ParsingBudget,
    StatementReader,
    plain_sql,
)
from backend.steering.client.timings import Recorder, bucket_of
from tests.query_steering import LOOK_ENTRY, OTHER_ENTRY, Injected, steering

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


# -- timings and the spool ----------------------------------------------------------------------


@given(st.floats(min_value=1.1e-6, max_value=1e6))
def test_a_bucket_holds_its_times(seconds: float) -> None:
    bucket = bucket_of(seconds)
    assert bucket_start_s(bucket) <= seconds * (1 + 1e-9)
    assert seconds <= bucket_start_s(bucket + 1) * (1 + 1e-9)


def test_times_no_bucket_is_for() -> None:
    assert bucket_of(0) == bucket_of(-1) == bucket_of(5e-7) == 0


def noted() -> list[ClassTimings]:
    recorder = Recorder()
    for seconds in (0.001, 0.001, 0.1):
        recorder.add(LOOK_ENTRY, True, "done", seconds)
    recorder.add(LOOK_ENTRY, True, "cancelled", 9)
    recorder.add(LOOK_ENTRY, False, "failed", 9)
    recorder.add(OTHER_ENTRY, False, "done", 0.5)
    timings = recorder.take()
    assert recorder.take() == []
    return timings


def test_executions_are_added_up_by_class_and_arm() -> None:
    first, second, third = noted()
    assert (first.arm, first.executions, first.cancelled, first.failed) == ("steered", 3, 1, 0)
    assert first.total_s == pytest.approx(0.102)
    assert first.buckets == {bucket_of(0.001): 2, bucket_of(0.1): 1}
    assert (second.arm, second.executions, second.failed) == ("default", 0, 1)
    assert (third.fingerprint, third.executions) == (OTHER_ENTRY.fingerprint, 1)


def test_reports_travel_through_a_spool(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    assert take_spool(path) == ([], 0)
    writers = [SpoolWriter(path), SpoolWriter(path)]
    for writer in (writers[0], writers[1], writers[0]):
        writer(noted())
    assert take_spool(path) == ([], 0)  # set aside, and read by the next call
    writers[1](noted()[:1])
    reports, broken = take_spool(path)
    assert broken == 0
    assert [report.sequence for report in reports] == [0, 0, 1]
    assert len({report.writer for report in reports}) == 2
    assert all(list(report.classes) == noted() for report in reports)
    ((report,), broken) = take_spool(path)
    assert (report.sequence, len(report.classes), broken) == (1, 1, 0)
    assert os.listdir(tmp_path) == []


def test_a_spool_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    SpoolWriter(path)(noted())
    take_spool(path)
    size = path.with_name("timings.jsonl.taken").stat().st_size
    take_spool(path)

    writer = SpoolWriter(path, max_bytes=2 * size + size // 2)
    for _ in range(2):
        writer(noted())
    for _ in range(3):
        with pytest.raises(OSError, match="full"):
            writer(noted())
    assert 2 * size - 10 < path.stat().st_size < 2 * size + 10
    take_spool(path)
    writer(noted())  # there is room again, and the gap shows
    assert [report.sequence for report in take_spool(path)[0]] == [0, 1]
    assert [report.sequence for report in take_spool(path)[0]] == [5]


def test_lines_that_are_no_reports_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    SpoolWriter(path)(noted())
    good = path.read_text(encoding="utf-8")
    report = json.loads(good)
    bad: list[Any] = [
        "", "{", "[]", "null", "[" * 100_000, {**report, "version": 2}, {**report, "writer": 1},
        {**report, "sequence": -1}, {**report, "written_at_s": float("nan")},
        {**report, "classes": 5}, {**report, "classes": [{}]},
    ]  # fmt: skip
    changes: list[tuple[str, Any]] = [
        ("arm", "other"), ("executions", 1.5), ("executions", True), ("total_s", -1),
        ("buckets", {"x": 1}), ("buckets", {"1": -1}), ("hint_set", "x" * 3000),
    ]  # fmt: skip
    for key, value in changes:
        bad.append({**report, "classes": [{**report["classes"][0], key: value}]})
    with path.open("a", encoding="utf-8") as file:
        for line in bad:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
        file.write(good + '{"version": 1, "half')
    take_spool(path)
    reports, broken = take_spool(path)
    assert (len(reports), broken) == (2, len(bad) + 1)


# -- the thread ---------------------------------------------------------------------------------


def test_the_thread_refreshes_reports_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "REFRESH_INTERVAL_S", 0.001)
    monkeypatch.setattr(background_module, "REPORT_INTERVAL_S", 0.003)
    calls: list[str] = []
    enough = threading.Event()

    def report() -> None:
        calls.append("report")
        if calls.count("report") == 2:
            enough.set()

    background = Background(lambda: calls.append("begin"), lambda: calls.append("refresh"), report)
    background.stop()  # nothing to end yet, nothing to report
    assert calls == []
    for _ in range(3):
        background.ensure_running()
    assert enough.wait(30)
    background.stop()
    assert background._thread is not None
    assert not background._thread.is_alive()
    assert calls[:5] == ["begin", "refresh", "refresh", "refresh", "report"]
    assert calls.count("begin") == 1
    assert calls[-1] == "report"


def test_a_forked_process_starts_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    background = Background(lambda: begun.append(os.getpid()), lambda: None, lambda: None)
    try:
        background.ensure_running()
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: 7)
            background.ensure_running()
            background.ensure_running()
            background.stop()
        assert len(begun) == 2
        assert begun[1] == 7
    finally:
        background.stop()


def test_where_no_thread_can_start_the_table_is_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    calls: list[str] = []
    background = Background(
        lambda: calls.append("begin"), lambda: None, lambda: calls.append("report")
    )
    background.ensure_running()
    background.stop()
    assert calls == ["begin", "report"]
    assert "can't start new thread" in caplog.text


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
