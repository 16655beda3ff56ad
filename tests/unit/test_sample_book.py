"""The book of statements that the explorer may try."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from backend.domain.steering import ClassKey, StatementSample
from backend.steering.client import SampledClass, SampledStatement, SampleSpoolWriter, fingerprint
from backend.steering.statements.sample_book import (
    USE_HALF_LIFE_S,
    SampleBook,
    samples_from_plug_ins,
)
from backend.steering.statements.samples import ClassUse, sample_of

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
PATH = '"$user", public'


def sample(sql: str, minutes: float = 0, source: str = "plug-in") -> StatementSample:
    return sample_of(sql, PATH, START + timedelta(minutes=minutes), source)


def use(key: ClassKey, executions: int, total_s: float, minutes: float = 0) -> ClassUse:
    return ClassUse(key, executions, executions, total_s, START + timedelta(minutes=minutes))


def texts(samples: Sequence[StatementSample]) -> list[str]:
    return [item.text for item in samples]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "steering" / "kept-samples.json"


A, B, C = (sample(f"SELECT {column} FROM t WHERE x = 'Ann'") for column in "abc")


def test_the_newest_different_statements_of_a_class_are_kept(path: Path) -> None:
    book = SampleBook(path, per_class=3)
    key = sample("SELECT 1").key
    book.add([sample(f"SELECT {number}") for number in range(5)])
    assert texts(book.samples(key)) == ["SELECT 4", "SELECT 3", "SELECT 2"]
    book.add([sample("SELECT 2", 1)])
    assert texts(book.samples(key)) == ["SELECT 2", "SELECT 4", "SELECT 3"]
    assert book.samples(A.key) == ()


def test_the_most_valuable_class_comes_first(path: Path) -> None:
    book = SampleBook(path)
    book.add([A, B, C], [use(A.key, 1000, 0.5), use(B.key, 2, 30.0)])
    book.add([], [ClassUse(C.key, 5000, 0, 0.0, START)])  # no time is known
    book.add([], [use(ClassKey("0" * 16, PATH), 9, 99.0)])  # no statement is known
    assert book.keys() == [B.key, A.key, C.key]
    assert [book.weight(item.key) for item in (B, A, C)] == [30.0, 0.5, 0.0]
    assert book.weight(ClassKey("0" * 16, PATH)) == 0


def test_executions_without_a_time_count_with_the_mean_of_the_others(path: Path) -> None:
    book = SampleBook(path)
    book.add([A], [ClassUse(A.key, 100, 10, 2.0, START)])
    assert book.weight(A.key) == pytest.approx(20.0)


def test_no_use_is_too_much_for_the_file(path: Path) -> None:
    book = SampleBook(path)
    book.add([A, B], [use(A.key, 2**52, 1e300), use(B.key, 1, 1.0)])
    assert SampleBook(path).keys() == book.keys() == [A.key, B.key]


def test_what_runs_no_more_loses_its_weight(path: Path) -> None:
    book = SampleBook(path)
    book.add([A, B], [use(A.key, 10, 8.0), use(B.key, 1, 1.0)])
    later = 2 * USE_HALF_LIFE_S / 60
    book.add([], [use(B.key, 1, 2.5, later)])
    assert book.weight(A.key) == pytest.approx(2.0)
    assert book.weight(B.key) == pytest.approx(2.75)
    assert book.keys() == [B.key, A.key]
    assert SampleBook(path).keys() == [B.key, A.key]


def test_the_text_holds_no_literal_and_no_comment(path: Path) -> None:
    book = SampleBook(path)
    query = sample(
        "SELECT 'Ann' AS x, 4711, n.b FROM /* for Ann */ t AS n -- Ann\nWHERE id IN (1, 2) AND "
        "c = DATE '2001-02-03' AND d @> $$Ann$$ AND e = E'\\x41nn' LIMIT 99"
    )
    book.add([query])
    assert book.text(query.key) == (
        "SELECT $1 AS x, $2, n.b FROM   t AS n  \nWHERE id IN ($3, $4) AND c = DATE $5 "
        "AND d @> $6 AND e = $7 LIMIT $8"
    )
    columns = sample(
        "SELECT * FROM json_table(j, '$.Ann' COLUMNS (a int PATH '$.Ann')) WHERE b = 'B'"
    )
    book.add([columns])
    assert "Ann" not in book.text(columns.key)
    with pytest.raises(KeyError):
        book.text(A.key)


def test_classes_are_bounded_and_what_an_operator_named_stays(path: Path) -> None:
    book = SampleBook(path, max_classes=2)
    named = sample("SELECT named FROM t", source="file")
    book.add([named])
    book.add([A, B, C], [use(A.key, 1, 1.0), use(B.key, 1, 3.0), use(C.key, 1, 2.0)])
    assert book.keys() == [B.key, named.key]
    book.add([sample(f"SELECT file_{number} FROM t", source="file") for number in range(9)])
    assert len(book.keys()) == 2


def test_the_file_is_bounded(path: Path) -> None:
    book = SampleBook(path, max_bytes=4000)
    for number in range(20):
        found = sample(f"SELECT c_{number} FROM t WHERE x = '{'x' * 400}'")
        book.add([found], [use(found.key, 1, float(number))])
    assert path.stat().st_size < 4500
    assert 3 < len(book.keys()) < 10
    assert book.weight(book.keys()[0]) == 19
    assert SampleBook(path, max_bytes=4000).keys() == book.keys()


def test_it_is_kept_over_a_restart_for_its_owner_alone(path: Path) -> None:
    book = SampleBook(path)
    book.add([A, sample("SELECT a FROM t WHERE x = 'Böb'", 1)], [use(A.key, 2, 1.0)])
    book.add([B, C], log_positions={"1:2": 3})
    assert path.stat().st_mode & 0o777 == 0o600
    again = SampleBook(path)
    assert again.keys() == book.keys()
    for item in (A, B, C):
        assert again.samples(item.key) == book.samples(item.key)
        assert again.weight(item.key) == book.weight(item.key)
    assert again.log_positions() == {"1:2": 3}
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_counts_alone_are_saved_once_a_minute(path: Path) -> None:
    book = SampleBook(path)
    book.add([A], [use(A.key, 1, 1.0)])
    book.add([], [use(A.key, 1, 1.0, 0.5)])
    assert SampleBook(path).weight(A.key) == 1.0
    book.add([], [use(A.key, 1, 1.0, 1.5)])
    assert SampleBook(path).weight(A.key) == pytest.approx(3.0, rel=0.01)


def damaged(path: Path, change: Any) -> None:
    SampleBook(path).add([A], [use(A.key, 1, 1.0)])
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


CHANGES = {
    "no classes": lambda d: d.pop("classes"),
    "another version": lambda d: d.update(version=99),
    "another grammar": lambda d: d.update(parser=9),
    "classes that are none": lambda d: d.update(classes=["Ann"]),
    "a class without statements": lambda d: d["classes"][0].update(samples=[]),
    "a text that is none": lambda d: d["classes"][0]["samples"][0].update(text=5),
    "a text that is too long": lambda d: d["classes"][0]["samples"][0].update(text="a" * 20_000),
    "a text that writes": lambda d: d["classes"][0]["samples"][0].update(text="DELETE FROM Ann"),
    "a time without zone": lambda d: d["classes"][0].update(used_at="2026-01-01T00:00:00"),
    "no time": lambda d: d["classes"][0]["samples"][0].update(seen_at="Ann"),
    "a count below zero": lambda d: d["classes"][0].update(executions=-1),
    "no number": lambda d: d["classes"][0].update(total_s=float("nan")),
    "positions that are none": lambda d: d.update(log_positions={"a": "Ann"}),
    "positions in a list": lambda d: d.update(log_positions=[]),
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_a_damaged_file_is_an_empty_book(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged(path, CHANGES[what])
    book = SampleBook(path)
    assert book.keys() == []
    assert book.log_positions() == {}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "Ann" not in caplog.text
    book.add([B])
    assert SampleBook(path).keys() == [B.key]


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000, b"null", b'"Ann"'])
def test_a_file_that_is_no_book(path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    assert SampleBook(path).keys() == []
    assert len(caplog.records) == 1
    assert "Ann" not in caplog.text


def test_threads_may_use_it_together(path: Path) -> None:
    book = SampleBook(path, per_class=4, max_classes=8)
    errors: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(12):
                found = sample(f"SELECT c_{name}_{number % 5} FROM t WHERE x = {number}")
                book.add([found], [use(found.key, 1, 1.0)])
                assert len(book.keys()) <= 8
                assert book.weight(found.key) >= 0
                book.samples(found.key)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(book.keys()) == 8
    assert SampleBook(path).keys() == book.keys()


# -- from the plug-in's spool -------------------------------------------------------------------


def sampled(sql: str, *texts: str, executions: int = 5, total_s: float = 0.5) -> SampledClass:
    samples = tuple(SampledStatement(text, 1_700_000_000.0) for text in texts)
    return SampledClass(fingerprint(sql), PATH, executions, total_s, samples)


def test_the_spool_goes_into_the_book(tmp_path: Path, path: Path) -> None:
    spool = tmp_path / "samples.jsonl"
    writer = SampleSpoolWriter(spool)
    writer([sampled("SELECT a FROM t WHERE x = $1", "SELECT a FROM t WHERE x = 'Ann';")])
    assert samples_from_plug_ins(spool).samples == []  # set aside, and read by the next call
    # A list has another look in the text than as a parameter; the plug-in's class counts.
    writer(
        [sampled("SELECT b FROM t WHERE x = ANY($1)", "SELECT b FROM t WHERE x = ANY(ARRAY[1])")]
    )
    found = samples_from_plug_ins(spool)
    book = SampleBook(path)
    book.add(found.samples, found.uses)
    assert book.keys() == [A.key]
    assert texts(book.samples(A.key)) == ["SELECT a FROM t WHERE x = 'Ann'"]
    assert book.samples(A.key)[0].source == "plug-in"
    assert book.weight(A.key) == 0.5
    found = samples_from_plug_ins(spool)
    book.add(found.samples, found.uses)
    (listed,) = set(book.keys()) - {A.key}
    assert listed.fingerprint == fingerprint("SELECT b FROM t WHERE x = ANY($1)")


def test_what_may_not_be_tried_stays_out(tmp_path: Path) -> None:
    spool = tmp_path / "samples.jsonl"
    writer = SampleSpoolWriter(spool)
    for text in (
        "DELETE FROM t",
        "SELECT 1; SELECT 2",
        "SELECT 'x",
        "SELECT random()",
        "SELECT $1",
    ):
        writer([sampled("SELECT 1", text)])
    with spool.open("a") as file:
        file.write("not json\n")
    samples_from_plug_ins(spool)
    found = samples_from_plug_ins(spool)
    assert found.samples == []
    assert found.skipped == {
        "not a plain query": 2,
        "not one statement": 1,
        "not readable as SQL": 1,
        "with parameters whose values are not known": 1,
        "lines that are no samples, or of another pglast": 1,
    }
