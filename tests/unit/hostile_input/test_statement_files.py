"""Files of SQL and statement logs of any content: read, counted as left out, or refused."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import SteeringError
from backend.steering.client.statements import MAX_TEXT_LENGTH
from backend.steering.statements.samples import Gathered
from backend.steering.statements.sql_files import MAX_FILE_BYTES, MAX_SAMPLES, read_sql_files
from backend.steering.statements.statement_logs import MAX_BYTES, read_statement_logs

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
PREFIX = "2026-01-01 00:00:00.123 UTC [42] shop@app LOG:  duration: 1.5 ms  "
SCRAPS = st.lists(
    st.sampled_from(
        ["SELECT 1", "SELECT $1", "DELETE FROM t", ";", "\n", "'", '"', "$$", "$q$", "E'", "U&'",
         "/*", "*/", "--", "\\", "\\copy t FROM PROGRAM 'x'", "\\!", "\\i /etc/passwd", "\\.",
         "SET search_path = a, \"b;c\"", "BEGIN", "ROLLBACK", "COPY t FROM stdin;\n", "\x00",
         "\ufeff", "\u2028", "\r", ":x", ":'x'", "(", ")", "BEGIN ATOMIC ", "END", "é"]
    )
    | st.text(max_size=5),
    max_size=25,
).map("".join)  # fmt: skip
LINES = st.sampled_from(
    [PREFIX + "statement: SELECT 1", PREFIX + "execute x: SELECT $1", PREFIX + "plan:",
     "\tQuery Text: SELECT 1", "DETAIL:  Parameters: $1 = 'a''b'", "DETAIL:  parameters: $1 = '",
     "$1 = NULL, $99999 = 'x'", '{"error_severity":"LOG","message":"duration: 1 ms  plan:\\n{"}',
     '{"message": 1}', "[" * 3000, '"a","b', "2026-01-01 00:00:00.1 UTC,\"u\",\"d\",1,,,", "\x00",
     "\ufeff", "statement: SELECT 1", PREFIX + "statement: " + "(" * 30_000, "," * 100]
) | SCRAPS  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("statements")


def are_sound(found: Gathered) -> None:
    """No sample holds what would not be one statement of bounded length."""
    for sample in found.samples:
        assert 0 < len(sample.text) <= MAX_TEXT_LENGTH
        assert "\x00" not in sample.text
    assert len(found.samples) <= MAX_SAMPLES


@settings(max_examples=200)
@given(SCRAPS.map(str.encode) | st.binary(max_size=200))
def test_any_file_of_sql(folder: Path, content: bytes) -> None:
    file = folder / "any.sql"
    file.write_bytes(content)
    told = ""
    try:
        are_sound(read_sql_files([file], search_path="public", at=NOW))
    except SteeringError as error:
        told = str(error)
    assert not told or str(file) in told


@settings(max_examples=200)
@given(
    st.lists(LINES, max_size=8).map(lambda lines: "\n".join([*lines, ""]).encode())
    | st.binary(max_size=200),
    st.sampled_from(["any.log", "any.csv", "any.json"]),
    st.sampled_from([None, "shop", "x'; --"]),
)
def test_any_log(folder: Path, content: bytes, name: str, database: str | None) -> None:
    file = folder / name
    file.write_bytes(content)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    found, reached = read_statement_logs(
        [file], {}, search_path="public", at=NOW, database=database
    )
    are_sound(found)
    assert all(0 <= place <= len(content) for place in reached.values())
    json.dumps([use.executions for use in found.uses])


def test_of_a_huge_file_no_more_is_read_than_may_be_there(folder: Path) -> None:
    """A terabyte that takes no place on the disk."""
    file = folder / "huge.sql"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(SteeringError, match=f"more than {MAX_FILE_BYTES} bytes"):
        read_sql_files([file], search_path="public", at=NOW)
    file.unlink()


def test_of_a_huge_log_the_newest_part_is_read(folder: Path) -> None:
    file = folder / "huge.log"
    with file.open("wb") as sparse:
        sparse.write(b"first line\n")
        sparse.truncate(1 << 40)
        sparse.seek(1 << 40)
        sparse.write(f"\n{PREFIX}statement: SELECT 42\n".encode())
    found, reached = read_statement_logs([file], {}, search_path="public", at=NOW)
    are_sound(found)
    assert MAX_BYTES < 1 << 30
    assert min(reached.values()) > (1 << 40) - MAX_BYTES
    file.unlink()


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "/proc/self/mem"])
def test_what_is_no_file_is_refused(name: str) -> None:
    with pytest.raises(SteeringError, match=name):
        read_sql_files([Path(name)], search_path="public", at=NOW)
