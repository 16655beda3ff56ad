"""Sampling without a server: its bounds, its silence, and the spool among hostile neighbours."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, exc

from backend.steering.client import (
    SampledClass,
    SampledStatement,
    SampleSpoolWriter,
    fingerprint,
    spool_file,
    take_samples,
)
from backend.steering.client import sampling as sampling_module
from backend.steering.client.sampling import Sampler
from backend.steering.client.statements import ParsingBudget, StatementReader
from tests.query_steering import Injected, steering

URL = "postgresql+psycopg2://nobody@127.0.0.1:1/none"
QUERY = "SELECT a FROM t WHERE x = %(x)s"
CLASS = fingerprint("SELECT a FROM t WHERE x = $1")


class Application:
    """Executes statements for a sampler, with a clock that the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, search_path: str | None = "public") -> None:
        self.now_s = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now_s)
        reader = StatementReader(interpolated=True, budget=ParsingBudget(1.0, 60.0))
        self.sampler = Sampler(reader, search_path)
        self.info: dict[str, Any] = {}

    def cursor(self, sent: Any) -> Any:
        connection = SimpleNamespace(encoding="UTF8")
        return SimpleNamespace(name=None, query=sent, connection=connection)

    def execute(self, sent: Any = b"SELECT a FROM t WHERE x = 'Ann'", text: str = QUERY) -> None:
        context = SimpleNamespace(root_connection=SimpleNamespace(info=self.info))
        self.sampler.note(self.cursor(sent), text, context, 0.5, 0)

    def take(self, after_s: float = 10) -> tuple[int, int]:
        """Executions and samples since the last time."""
        self.now_s += after_s
        found = self.sampler.take()
        return sum(f.executions for f in found), sum(len(f.samples) for f in found)


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Application:
    return Application(monkeypatch)


def sent(number: int) -> bytes:
    return b"SELECT a FROM t WHERE x = %d" % number


# -- bounds -------------------------------------------------------------------------------------


def test_a_class_gives_a_few_samples_and_then_fewer(application: Application) -> None:
    for number in range(20):
        application.execute(sent(number))
    assert application.take() == (20, 6)
    for number in range(20):
        application.execute(sent(number))
    assert application.take() == (20, 0)
    application.take(580)
    for number in range(20):
        application.execute(sent(number))
    assert application.take() == (20, 2)


def test_times_are_added_up(application: Application) -> None:
    for number in range(4):
        application.execute(sent(number))
    (found,) = application.sampler.take()
    assert (found.fingerprint, found.search_path) == (CLASS, "public")
    assert (found.executions, found.total_s) == (4, 2.0)
    assert [sample.text for sample in found.samples] == [sent(n).decode() for n in range(4)]
    assert application.sampler.take() == []


def test_the_same_text_is_told_once(application: Application) -> None:
    for _ in range(3):
        application.execute()
    assert application.take() == (3, 1)


def test_all_classes_together_give_so_many_a_minute(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_module, "ALL_PER_MINUTE", 10)
    application.sampler = Sampler(application.sampler._reader, "public")
    for number in range(8):
        for _ in range(5):
            application.execute(b"SELECT a%d" % number, f"SELECT a{number}")
    # Each class is counted from its first sample on.
    assert application.take() == (10, 2)
    for number in range(8):
        application.execute(b"SELECT a%d" % number, f"SELECT a{number}")
    assert application.take(60)[1] == 0
    for number in range(8):
        application.execute(b"SELECT a%d" % number, f"SELECT a{number}")
    assert application.take(60)[1] == 8


def test_classes_are_bounded_and_forgotten(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling_module, "MAX_CLASSES", 3)
    for number in range(5):
        application.execute(b"SELECT a%d" % number, f"SELECT a{number}")
    assert application.take() == (3, 3)
    for _ in range(121):
        application.execute(b"SELECT a0", "SELECT a0")
        application.take()
    assert [seen.fingerprint for seen in application.sampler._classes.values()] == [
        fingerprint("SELECT a0")
    ]
    application.execute(b"SELECT a4", "SELECT a4")
    assert application.take() == (1, 1)


def test_what_is_too_long_or_unreadable_is_left_out(application: Application) -> None:
    long = b"SELECT a FROM t WHERE x = '" + b"x" * 16_384 + b"'"
    for odd in (long, b"SELECT '\xff'", b"SELECT 'Ann", b"DELETE FROM t", b"SELECT 1; SELECT 2"):
        application.execute(odd)
    assert application.take() == (0, 0)  # counted from the first sample on


def test_texts_that_there_is_no_time_to_read_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    application = Application(monkeypatch)
    budget = ParsingBudget(0.0, 0.0)
    application.sampler = Sampler(StatementReader(interpolated=True, budget=budget), "public")
    application.execute()
    assert application.take() == (0, 0)


# -- search paths -------------------------------------------------------------------------------


def test_sessions_with_different_search_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    application = Application(monkeypatch, search_path=None)
    application.execute()
    assert application.take() == (0, 0)
    for path in ("a", "b", "b"):
        application.info = {"query_steering.search_path": path}
        application.execute(f"SELECT a FROM t WHERE x = '{path}'".encode())
    found = {item.search_path: item for item in application.sampler.take()}
    assert {path: len(item.samples) for path, item in found.items()} == {"a": 1, "b": 1}
    assert (found["a"].executions, found["b"].executions) == (0, 3)


# -- silence ------------------------------------------------------------------------------------


def test_what_goes_wrong_fails_no_statement_and_tells_no_literal(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        name = None
        query = b"SELECT 'Ann'"

        @property
        def connection(self) -> Any:
            raise RuntimeError("SELECT 'Ann'")

    for _ in range(3):
        application.sampler.note(Broken(), QUERY, None, 0.5, 0)
        application.execute(sent=None)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Ann" not in caplog.text
    assert application.take() == (0, 0)


def test_a_function_that_fails_tells_no_literal(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_classes: object) -> None:
        raise OSError("SELECT 'Ann'")

    made = steering(
        create_engine(
            URL,
            plugins=["query_steering"],
            query_steering_table=Injected(),
            query_steering_samples=broken,
        )
    )
    for _ in range(2):
        made._report_samples([sampled()])
    assert caplog.text.count("samples were lost: OSError") == 1
    assert "Ann" not in caplog.text


def test_a_forked_process_does_not_report_what_its_parent_noted(application: Application) -> None:
    noted: list[SampledClass] = []
    made = steering(
        create_engine(
            URL,
            plugins=["query_steering"],
            query_steering_table=Injected(),
            query_steering_samples=noted.extend,
        )
    )
    made._sampler = application.sampler
    application.execute()
    made._begin()
    made.report()
    assert noted == []
    application.execute(sent(1))
    made.report()
    assert [sample.text for item in noted for sample in item.samples] == [sent(1).decode()]


def test_arguments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(exc.ArgumentError, match="query_steering_samples is 5"):
        create_engine(
            URL,
            plugins=["query_steering"],
            query_steering_table=Injected(),
            query_steering_samples=5,
        )
    made = create_engine(
        f"{URL}?plugin=query_steering&query_steering_table={tmp_path}/table.json"
        f"&query_steering_samples={tmp_path}/samples.jsonl"
    )
    assert steering(made)._sampler is not None
    assert str(made.url) == URL


# -- the spool ----------------------------------------------------------------------------------


def sampled(text: str = "SELECT 'Ann'") -> SampledClass:
    return SampledClass(CLASS, "public", 3, 0.5, (SampledStatement(text, 1000.5),))


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_text_travels(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    SampleSpoolWriter(path)([sampled(text)])
    take_samples(path)
    assert take_samples(path) == ([sampled(text)], 0)


def test_a_spool_is_private_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    SampleSpoolWriter(path)([sampled()])
    assert path.stat().st_mode & 0o777 == 0o600
    writer = SampleSpoolWriter(path, max_bytes=path.stat().st_size + 10)
    with pytest.raises(OSError, match="is full") as raised:
        writer([sampled()])
    assert "Ann" not in str(raised.value)
    take_samples(path)
    writer([sampled()])
    assert "Ann" not in repr(take_samples(path))


def make_open(path: Path) -> None:
    path.touch(0o644)
    path.chmod(0o644)


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.touch(0o600)
    path.symlink_to(target)


@pytest.mark.parametrize("make", [make_open, make_link, os.mkfifo, os.mkdir])
def test_what_others_put_in_the_spools_place_is_not_written_to(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "samples.jsonl"
    make(path)
    with pytest.raises(OSError) as raised:  # noqa: PT011 - of several kinds
        SampleSpoolWriter(path)([sampled()])
    assert "Ann" not in str(raised.value)
    assert not any(b"Ann" in file.read_bytes() for file in tmp_path.iterdir() if file.is_file())


@pytest.mark.parametrize("make", [make_link, os.mkfifo])
def test_what_others_put_in_the_spools_place_is_not_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "samples.jsonl"
    make(path)
    for _ in range(3):
        assert take_samples(path) == ([], 0)
    assert not os.path.lexists(path)
    SampleSpoolWriter(path)([sampled()])
    take_samples(path)
    assert take_samples(path) == ([sampled()], 0)


def test_a_reader_that_dies_finds_the_lines_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "samples.jsonl"
    SampleSpoolWriter(path)([sampled()])
    take_samples(path)
    with monkeypatch.context() as patched:
        patched.setattr(spool_file, "_read", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            take_samples(path)
    assert take_samples(path) == ([sampled()], 0)


def test_lines_that_are_no_samples_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    SampleSpoolWriter(path)([sampled()])
    good = json.loads(path.read_text())
    sample = good["samples"][0]
    bad: list[Any] = [
        None, [], {}, {**good, "version": 9}, {**good, "parser": 9}, {**good, "fingerprint": "x"},
        {**good, "fingerprint": 5}, {**good, "search_path": "a%b"}, {**good, "search_path": None},
        {**good, "executions": 1.5}, {**good, "executions": -1}, {**good, "executions": True},
        {**good, "total_s": float("nan")}, {**good, "samples": {}}, {**good, "samples": [5]},
        {**good, "samples": [sample] * 101}, {**good, "samples": [{**sample, "text": 5}]},
        {**good, "samples": [{**sample, "text": "x" * 16_385}]},
        {**good, "samples": [{**sample, "seen_at_s": 1e300}]},
    ]  # fmt: skip
    with path.open("a") as file:
        for item in bad:
            file.write(json.dumps(item) + "\n")
        file.write("[" * 100_000 + "\nnot json\n")
        file.write(json.dumps(good)[:-5])
    take_samples(path)
    assert take_samples(path) == ([sampled()], len(bad) + 3)
