"""Statements from logs: damaged ones, large ones, rotated ones, and parameters of any kind."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pglast
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.steering import ClassKey
from backend.errors import SteeringError
from backend.steering.client import fingerprint
from backend.steering.statements import statement_logs
from backend.steering.statements.samples import Gathered, NotASampleError
from backend.steering.statements.statement_logs import fill_in, read_statement_logs

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
PREFIX = "2026-01-01 00:00:00.123 UTC [42] shop@app "


def read(
    *paths: Path, positions: dict[str, int] | None = None, at_rest: bool = True
) -> tuple[list[str], Gathered, dict[str, int]]:
    for path in paths:
        for file in path.iterdir() if path.is_dir() else [path]:
            if at_rest and file.is_file():
                os.utime(file, (1_700_000_000, 1_700_000_000))
    found, reached = read_statement_logs(paths, positions or {}, search_path="public", at=NOW)
    return [sample.text for sample in found.samples], found, reached


def line(text: str, ms: float = 1.5) -> str:
    return f"{PREFIX}LOG:  duration: {ms} ms  statement: {text}\n"


def csv_line(text: str, detail: str = "") -> str:
    fields = [""] * 26
    fields[0], fields[2], fields[11] = "2026-01-01 00:00:00.123 UTC", "shop", "LOG"
    fields[13], fields[14] = f"duration: 1.5 ms  statement: {text}", detail
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(fields)
    return written.getvalue()


def json_line(text: str) -> str:
    message = f"duration: 1.5 ms  statement: {text}"
    return json.dumps({"error_severity": "LOG", "dbname": "shop", "message": message}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "postgresql.log"


# -- lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "app=shop,db=x:", "[42-1] LOG shop@x ", "<2026-01-01 UTC>"])
def test_any_prefix_will_do(log: Path, prefix: str) -> None:
    log.write_text(
        f"{prefix} LOG:  duration: 2.5 ms  execute S_1/C_2: SELECT a\n\tFROM t\n\t WHERE b = $1\n"
        f"{prefix} DETAIL:  parameters: $1 = 'x: y'\n"
        f"{prefix} STATEMENT:  SELECT 'not this'\n"
        f"{prefix} ERROR:  LOG:  statement: SELECT 'nor this'\n"
        "some other program's words\n\tSELECT 'nor this'\n"
        f"{prefix} LOG:  statement: SELECT 2\n"
        f"{prefix} LOG:  duration: 1.5 ms  execute fetch from S_1/C_2: SELECT a FROM t\n"
        f"{prefix} LOG:  duration: 1.5 ms\n"
    )
    texts, found, _ = read(log)
    assert texts == ["SELECT a\nFROM t\n WHERE b = 'x: y'", "SELECT 2"]
    first, second = found.uses
    assert (first.executions, first.timed, first.total_s) == (1, 1, 0.0025)
    assert (second.executions, second.timed) == (1, 0)
    assert first.key == ClassKey(fingerprint("SELECT a FROM t WHERE b = $1"), "public")
    assert found.skipped == {}


def test_a_forged_duration_is_none(log: Path) -> None:
    log.write_text(line("SELECT 1").replace("1.5", "9" * 400))
    assert read(log)[0] == []


def test_executions_are_added_up_and_the_newest_statements_kept(log: Path) -> None:
    log.write_text("".join(line(f"SELECT {number}", ms=1000) for number in range(30)))
    texts, found, _ = read(log)
    assert texts == [f"SELECT {number}" for number in range(18, 30)]
    (use,) = found.uses
    assert (use.executions, use.timed, use.total_s) == (30, 30, pytest.approx(30.0))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("DELETE FROM t", "not a plain query"),
        ("SELECT 1; SELECT 2", "not one statement"),
        ("SELECT $1", "with parameters whose values are not known"),
        ("SELECT 'open", "not readable as SQL"),
        ("SELECT /*+ x */ 1", "with a hint comment"),
        ("SELECT /* autopilot */ set_config('a', 'b', true);\n\tSELECT 1", "the autopilot's own"),
        (f"SELECT '{'x' * 20_000}'", "longer than 16384 characters"),
        ("SELECT " + "1+" * 8000 + "1", "not readable as SQL"),
    ],
)
def test_what_is_left_out_and_why(log: Path, text: str, why: str) -> None:
    log.write_text(line(text) + line("SELECT 1"))
    texts, found, _ = read(log)
    assert texts == ["SELECT 1"]
    assert found.skipped == {why: 1}


def test_an_entry_that_is_still_being_written_waits(log: Path) -> None:
    first, second = line("SELECT 1"), line("SELECT 2\n\tFROM t")
    log.write_text(first + second[:-9])
    texts, _, reached = read(log, at_rest=False)
    assert texts == []  # the first may have had a DETAIL
    log.write_text(first + second)
    texts, _, reached = read(log, positions=reached, at_rest=False)
    assert texts == ["SELECT 1"]
    texts, _, reached = read(log, positions=reached)
    assert texts == ["SELECT 2\nFROM t"]
    log.write_text(first + second + line("SELECT 3") + "2026 half a li")
    texts, _, reached = read(log, positions=reached)
    assert texts == ["SELECT 3"]


@pytest.mark.parametrize("make", [csv_line, json_line])
def test_a_record_that_is_still_being_written_waits(log: Path, make: object) -> None:
    assert callable(make)
    whole = make("SELECT 1") + make('SELECT "a\nb", \'""\'')
    for end in (len(whole) - 1, len(whole) - 30):
        log.write_text(whole[:end])
        texts, found, reached = read(log)
        assert (texts, dict(found.skipped)) == (["SELECT 1"], {})
        log.write_text(whole)
        texts, found, _ = read(log, positions=reached)
        assert (texts, dict(found.skipped)) == (['SELECT "a\nb", \'""\''], {})


@pytest.mark.parametrize(
    ("make", "damage"),
    [
        (line, b'\xff\xfe\n\tx\n' + line("SELECT '\u00e9'").encode("latin-1")),
        (csv_line, csv_line("SELECT '\u00e9'").encode("latin-1")),
        (csv_line, b'2026-01-01 00:00:00.123 UTC,"a",b\n'),
        (csv_line, b'2026-01-01 00:00:00.123 UTC,"a"b",""\n'),
        (json_line, b'{"message": 5}\n[]\nnull\n'),
        (json_line, b"{" * 100_000 + b"\n\xff\n"),
        (json_line, b'{"error_severity": "LOG", "message": "duration: 1 ms  plan:\\n{}"}\n'),
    ],
)  # fmt: skip
def test_damage_costs_what_is_damaged(log: Path, make: object, damage: bytes) -> None:
    assert callable(make)
    log.write_bytes(make("SELECT 1").encode() + damage + make("SELECT 2").encode())
    texts, found, _ = read(log)
    assert texts == ["SELECT 1", "SELECT 2"]
    assert sum(found.skipped.values()) >= 1


@pytest.mark.parametrize("make", [line, csv_line])
def test_an_entry_without_end_costs_no_more_than_its_bytes(log: Path, make: object) -> None:
    assert callable(make)
    endless = make("SELECT '" + "\n\t'" * 300_000).rstrip("\n'\"")
    log.write_text(make("SELECT 1") + endless + "\n" + make("SELECT 2"))
    texts, found, _ = read(log)
    assert texts == ["SELECT 1", "SELECT 2"]
    assert sum(found.skipped.values()) >= 1


@given(st.binary(max_size=300))
def test_no_bytes_are_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    log = tmp_path_factory.getbasetemp() / "any.log"
    for make in (line, csv_line, json_line):
        log.write_bytes((make("SELECT 1") + make("DELETE FROM t")).encode() + data + b"\n")
        texts, _, reached = read(log)
        assert texts[:1] == ["SELECT 1"]
        assert max(reached.values()) <= log.stat().st_size


# -- large, rotated and missing logs ------------------------------------------------------------


@pytest.mark.parametrize("make", [line, csv_line, json_line])
def test_of_a_large_log_the_newest_part_is_read(
    log: Path, make: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(make)
    monkeypatch.setattr(statement_logs, "MAX_BYTES", 1000)
    log.write_text("".join(make(f"SELECT\n\t{number}") for number in range(100)))
    texts, found, reached = read(log)
    assert 1 <= len(texts) < 12
    assert texts[-1].split() == ["SELECT", "99"]
    assert found.skipped == {"older parts of large logs": 1}
    assert max(reached.values()) == log.stat().st_size


def test_a_log_that_was_renamed_or_emptied(log: Path) -> None:
    log.write_text(line("SELECT 1"))
    _, _, reached = read(log)
    log.write_text(line("SELECT 1") + line("SELECT 2"))
    log.rename(log.with_name("postgresql.log.1"))
    log.write_text(line("SELECT 'new'"))
    (log.parent / "postgresql.log.0").write_text(line("SELECT 'never begun'"))
    read(log.with_name("postgresql.log.1"))  # comes to rest
    texts, _, reached = read(log, positions=reached)
    assert texts == ["SELECT 2", "SELECT 'new'"]
    log.write_text(line("SELECT 3"))  # as copytruncate does
    texts, _, reached = read(log, positions=reached)
    assert texts == ["SELECT 3"]
    log.write_text("")
    assert read(log, positions=reached)[0] == []


def test_a_folder_of_logs(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv_line("SELECT 1", "parameters: $1 = 'x'"))
    (tmp_path / "b.json").write_text(json_line("SELECT a"))
    (tmp_path / "c.log").write_text(line("SELECT b"))
    (tmp_path / "d.txt").write_text(line("SELECT c"))
    (tmp_path / "folder.log").mkdir()
    os.mkfifo(tmp_path / "pipe.log")
    texts, _, reached = read(tmp_path)
    assert sorted(texts) == ["SELECT 1", "SELECT a", "SELECT b"]
    assert read(tmp_path, positions=reached)[0] == []
    assert json.loads(json.dumps(reached)) == reached


def test_a_log_that_is_missing_is_told(log: Path) -> None:
    with pytest.raises(SteeringError, match=r"postgresql\.log cannot be read: No such file"):
        read_statement_logs([log], {}, search_path="public", at=NOW)


# -- parameters ---------------------------------------------------------------------------------


def logged(values: list[str | None]) -> str:
    """As the server logs them."""
    shown = ("NULL" if value is None else "'" + value.replace("'", "''") + "'" for value in values)
    return ", ".join(f"${number} = {value}" for number, value in enumerate(shown, 1))


VALUE = st.none() | st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)


@given(
    st.lists(VALUE.filter(lambda v: v is None or not v.endswith("...")), min_size=1, max_size=12)
)
def test_parameters_become_the_literals_that_they_were(values: list[str | None]) -> None:
    columns = ", ".join(f"${number}::text" for number in range(1, len(values) + 1))
    text = fill_in(f"SELECT 'é $1', \"$2\", {columns} /* $1 */", logged(values))
    (raw,) = pglast.parse_sql(text)
    constants = [target.val.arg for target in raw.stmt.targetList[2:]]  # type: ignore[union-attr]
    assert [None if c.isnull else c.val.sval for c in constants] == values
    assert raw.stmt.targetList[0].val.val.sval == "é $1"  # type: ignore[union-attr]


def test_parameters_of_any_order_and_number() -> None:
    values = logged([str(number) for number in range(1, 13)])
    assert fill_in("SELECT $12, $1, $1, U&$2", values) == "SELECT '12', '1', '1', U& '2'"
    assert fill_in("SELECT $13", values) == "SELECT $13"
    assert fill_in("SELECT 1", "") == "SELECT 1"


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ("$1 = 'open", "cannot be read"),
        ("$1 = 5", "cannot be read"),
        ("$1 = 'a' $2 = 'b'", "cannot be read"),
        ("$1 = 'a', and so on", "cannot be read"),
        ("$1 = 'abc...'", "cut short"),
        (f"$1 = '{'x' * 5000}'", "longer than 16384"),
    ],
)
def test_parameters_that_are_not_whole(parameters: str, why: str) -> None:
    with pytest.raises(NotASampleError, match=why):
        fill_in("SELECT $1, $1, $1, $1", parameters)
