"""The plug-in's timings, its spool and its thread, without a server."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.steering.client import ClassTimings, SpoolWriter, bucket_start_s, take_spool
from backend.steering.client import background as background_module
from backend.steering.client.background import Background
from backend.steering.client.timings import Recorder, bucket_of
from tests.query_steering import LOOK_ENTRY, OTHER_ENTRY

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
