"""Statements from files of SQL, as psql would read them."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import SteeringError
from backend.steering.client import fingerprint
from backend.steering.statements import sql_files
from backend.steering.statements.samples import Gathered, plain_query
from backend.steering.statements.sql_files import read_sql_files
from backend.steering.statements.sql_text import Piece, UnclosedError, pieces

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def read(*paths: Path, search_path: str = "public") -> Gathered:
    return read_sql_files(paths, search_path=search_path, at=NOW)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.sql"


SCRIPT = r"""-- what the shop asks; it's "long"
\set ON_ERROR_STOP on
\echo it's
SELECT 'a;b', "c;d", $$e;'f$$, $t$g;$$h$t$, E'i\';j', 'k''l' /* m; /* n; */ it's */ FROM t;
SELECT 1
\set x 5
 + 1;
SELECT 2 \gx
COPY t FROM stdin;
SELECT 'not this;
\.
SELECT 3\; SELECT 4;
CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 41; SELECT 42; END;
INSERT INTO t VALUES (1);
SELECT :x;
SELECT /*+ SeqScan(t) */ * FROM t;
;
SELECT 'the end' FROM t -- without a semicolon;"""


def test_a_script_is_read_as_psql_reads_it(file: Path) -> None:
    file.write_text(SCRIPT)
    found = read(file)
    assert [sample.text for sample in found.samples] == [
        "SELECT 'a;b', \"c;d\", $$e;'f$$, $t$g;$$h$t$, E'i\\';j', 'k''l'   FROM t",
        "SELECT 1\n\n + 1",
        "SELECT 2",
        "SELECT 3",
        "SELECT 4",
        "SELECT 'the end' FROM t",
    ]
    assert {(s.source, s.seen_at, s.key.search_path) for s in found.samples} == {
        ("file", NOW, "public")
    }
    assert found.samples[1].key.fingerprint == fingerprint("SELECT $1 + $2")
    assert found.skipped == {
        "psql's own commands": 4,
        "not a plain query": 3,
        "not readable as SQL": 1,
        "with a hint comment": 1,
    }
    assert f"3 not a plain query (first in {file}, line 9)" in found.left_out()
    assert f"1 not readable as SQL (first in {file}, line 15)" in found.left_out()


def test_pieces_know_their_lines() -> None:
    found = list(pieces("\n/* a\n*/ SELECT\n1; --\n\nSELECT 2;\\q now\n\nSELECT\n'x\ny'; SELECT 3"))
    assert found == [
        Piece("SELECT\n1", 3),
        Piece("SELECT 2", 6),
        Piece("\\q now", 6, is_command=True),
        Piece("SELECT\n'x\ny'", 8),
        Piece("SELECT 3", 10),
    ]


def test_the_search_path_is_followed(file: Path) -> None:
    file.write_text(
        """
        SELECT 0;
        /* ours */ SET search_path TO Shop, "$user", 'pu "blic', select, "Two";
        SELECT 1;
        BEGIN; SET LOCAL search_path = here; SELECT 2; COMMIT; SELECT 3;
        BEGIN; SET search_path = gone; SELECT 4; ROLLBACK; SELECT 5;
        BEGIN; SET SCHEMA 'kept'; SELECT 6; COMMIT; SELECT 7;
        RESET search_path; SELECT 8;
        SET search_path = ''; SELECT 9;
        SET search_path TO DEFAULT; SELECT 10;
        SET search_path = x; RESET ALL; SELECT 11;
        SET search_path = x; DISCARD ALL; SELECT 12;
        SET work_mem = '1MB'; SELECT 13;
        SET search_path = "Öther"; SELECT 14;
        """.replace("select,", '"select",')
    )
    found = read(file)
    shop = 'shop, "$user", "pu ""blic", "select", "Two"'
    assert [sample.key.search_path for sample in found.samples] == [
        "public", shop, "here", shop, "gone", shop, "kept", "kept", "public", '""',
        *["public"] * 4,
    ]  # fmt: skip
    assert found.skipped["under a search path that no steering table may hold"] == 1


def test_folders_are_read_with_their_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, sql in {"z.sql": "SELECT 1", "b/y.SQL": "SELECT 2", "b/x.txt": "SELECT 3"}.items():
        (tmp_path / name).write_text(sql)
    assert [s.text for s in read(tmp_path).samples] == ["SELECT 2", "SELECT 1"]
    assert len(read(tmp_path, tmp_path / "z.sql").samples) == 2
    assert len(read(tmp_path / "b" / "x.txt").samples) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SELECT 1;\nSELECT 'open", r"shop.sql, line 2: a quoted text or comment begins here"),
        (b'SELECT 1;\n\n SELECT "open', "line 3: a quoted"),
        (b"SELECT $a$ open $$ $b$", "line 1: a quoted"),
        (b"SELECT 1\n/* open /* */", "line 2: a quoted"),
        (b"SELECT E'open\\'", "line 1: a quoted"),
        (b"SELECT 1;\nSELECT '\xff'", "line 2: it is not UTF-8"),
        (b"SELECT 1; " * 60, "has more than 500 bytes"),
        (b"SELECT 1;" * 6, "line 1: this is more than 5 queries"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(
    file: Path, data: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_files, "MAX_FILE_BYTES", 500)
    monkeypatch.setattr(sql_files, "MAX_SAMPLES", 5)
    file.write_bytes(data)
    with pytest.raises(SteeringError, match=why) as raised:
        read(file)
    assert "open" not in str(raised.value).replace(str(file.parent), "")


def test_a_walk_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bottom = tmp_path / "a" / "b" / "c"
    bottom.mkdir(parents=True)
    (bottom / "q.sql").write_text("SELECT 1")
    (bottom / "up").symlink_to(tmp_path)
    (tmp_path / "link.sql").symlink_to(bottom)
    assert len(read(tmp_path).samples) == 1  # links to folders lead nowhere
    monkeypatch.setattr(sql_files, "MAX_DEPTH", 3)
    with pytest.raises(SteeringError, match="more than 3 folders deep"):
        read(tmp_path)
    monkeypatch.setattr(sql_files, "MAX_ENTRIES", 2)
    with pytest.raises(SteeringError, match="more than 2 files and folders"):
        read(tmp_path)


def test_files_have_a_bound_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / f"{name}.sql").write_text("SELECT 1")
    monkeypatch.setattr(sql_files, "MAX_TOTAL_LENGTH", 15)
    with pytest.raises(SteeringError, match=r"b\.sql.*more than 15 characters in all"):
        read(tmp_path)


def test_paths_that_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SteeringError, match=r"missing.sql is no file"):
        read(tmp_path / "missing.sql")
    with pytest.raises(SteeringError, match=r"holds no file \*\.sql"):
        read(tmp_path)
    monkeypatch.setattr(sql_files, "MAX_FILES", 1)
    for name in ("a.sql", "b.sql"):
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(SteeringError, match="more than 1 files"):
        read(tmp_path)


@pytest.mark.parametrize("sql", ["1+" * 8000 + "1", "(" * 4000 + "1" + ")" * 4000, "1," * 9000])
def test_hostile_statements_are_left_out(file: Path, sql: str) -> None:
    file.write_text(f"SELECT {sql}; SELECT 1;\0")
    found = read(file)
    assert [s.text for s in found.samples if len(s.text) < 99] == ["SELECT 1"]


SQL = st.text(alphabet="abeE'\"$-/*\\;\n 1,()", max_size=60)


@given(SQL)
def test_no_text_is_lost_or_made_up(text: str) -> None:
    found = []
    with contextlib.suppress(UnclosedError):
        found.extend(pieces(text))
    for piece in found:
        first = next(char for char in piece.text if not char.isspace())
        assert first in text.split("\n")[piece.line - 1]
        assert 1 <= piece.line <= text.count("\n") + 1


@given(st.lists(st.text(max_size=20), min_size=1, max_size=5), st.data())
def test_literals_of_any_kind_stay_whole(values: list[str], data: Any) -> None:
    def quoted(value: str) -> str:
        value = value.replace("\0", "")
        kind = data.draw(st.sampled_from(["plain", "escaped", "dollar"]))
        if kind == "escaped":
            return "E'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
        if kind == "dollar" and "$q" not in value and not value.endswith("$"):
            return f"$q${value}$q$"
        return "'" + value.replace("'", "''") + "'"

    statements = [f"SELECT {quoted(value)} AS x" for value in values]
    found = [piece.text for piece in pieces(";\n".join(statements))]
    assert found == statements
    for statement in statements:
        if "/*+" not in statement:
            assert plain_query(statement) == statement
