"""The steering table, its file, and which of its entries a statement gets."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backend.db_connector import STATEMENT_TAG
from backend.steering.client import (
    QuerySteeringPlugin,
    SteeringEntry,
    SteeringTable,
    TableError,
    TableFile,
    parse_table,
    write_table,
)
from backend.steering.client.background import REPORT_INTERVAL_S
from backend.steering.client.choosing import Chooser
from backend.steering.client.messages import TAG, messages_for
from backend.steering.client.planner_settings import SETTINGS, refusal
from backend.steering.client.plugin import DEFAULT_SHARE
from backend.steering.client.spool import MAX_SPOOL_BYTES
from backend.steering.client.statements import (
    MAX_TEXT_LENGTH,
    PARSER,
    PARSING_SHARE,
    ParsingBudget,
    StatementReader,
)
from backend.steering.client.table import FORMAT, MAX_ENTRIES, MAX_FILE_BYTES, MODES
from backend.steering.client.timings import BUCKETS_PER_OCTAVE
from tests.query_steering import LOOK_ENTRY, LOOK_SQL, OTHER_ENTRY, entry_for

HINT_SETS = Path(__file__).resolve().parents[2] / "backend/catalog/postgresql/hint_sets.yaml"
LATE_S = 4e9  # in the year 2096: no run of the tests lasts until then


def document(**changes: Any) -> bytes:
    """A table file as JSON, with changes to its one entry, or (upper case) to itself."""
    entry = {
        "fingerprint": "0123456789abcdef",
        "search_path": "public",
        "mode": "auto",
        "hint_set": "no_nestloop",
        "settings": {"enable_nestloop": "off"},
        "under": {"enable_nestloop": "on"},
        "functions": ["count"],
    }
    whole = {
        "format": FORMAT, "version": 1, "parser": PARSER, "expires_at_s": LATE_S,
        "entries": [entry],
    }  # fmt: skip
    for key, value in changes.items():
        (whole if key.isupper() else entry)[key.lower()] = value
    return json.dumps(whole).encode()


# -- the file -----------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    entries = (LOOK_ENTRY, OTHER_ENTRY, entry_for("SELECT 1", mode="off", search_path="a, 'b'"))
    write_table(path, entries, expires_at_s=LATE_S)
    assert parse_table(path.read_bytes()) == SteeringTable(entries, LATE_S)
    assert os.listdir(tmp_path) == ["table.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_written_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.json"
    write_table(path, [LOOK_ENTRY], expires_at_s=LATE_S)

    def full(_descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_table(path, [], expires_at_s=LATE_S)
    assert parse_table(path.read_bytes()).entries == (LOOK_ENTRY,)
    assert os.listdir(tmp_path) == ["table.json"]


def test_the_document_of_these_tests_is_a_table() -> None:
    assert [entry.hint_set for entry in parse_table(document()).entries] == ["no_nestloop"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"FORMAT": "something else"}, "not a query_steering table"),
        ({"VERSION": 2}, "version is 2, this query_steering reads 1; install"),
        ({"VERSION": None}, "version is None"),
        ({"PARSER": 3}, "grammar of PostgreSQL 3, those of this pglast of"),
        ({"EXPIRES_AT_S": "never"}, "expires_at_s"),
        ({"EXPIRES_AT_S": True}, "expires_at_s"),
        ({"ENTRIES": {}}, "not a list"),
        ({"ENTRIES": [1]}, "not an object"),
        ({"fingerprint": "0123"}, "fingerprint '0123' is malformed"),
        ({"fingerprint": "0123456789abcdef\n"}, "fingerprint"),
        ({"fingerprint": None}, "no fingerprint"),
        ({"search_path": "a%b"}, "search_path"),
        ({"search_path": "a\\b"}, "search_path"),
        ({"search_path": "a\x00"}, "search_path"),
        ({"search_path": "ü"}, "search_path"),
        ({"mode": "always"}, "mode 'always' is none of auto, pin, off"),
        ({"hint_set": "a b"}, "hint_set"),
        ({"functions": "count"}, "functions"),
        ({"functions": [1]}, "functions"),
        ({"functions": ["a b"]}, "function 'a b'"),
        ({"settings": {}}, "empty"),
        ({"settings": []}, "settings"),
        ({"settings": {"enable_nestloop": False}}, "settings"),
        ({"settings": {"enable_nestloop": "off'; DROP TABLE t; --"}}, "outside the values"),
        ({"settings": {"enable_nestloop": "off\n"}}, "outside the values"),
        ({"settings": {"session_authorization": "postgres"}}, "not a planner setting"),
        ({"settings": {"statement_timeout": "0"}}, "not a planner setting"),
        ({"under": {}}, "under which value of enable_nestloop"),
        ({"under": {"enable_nestloop": "on", "x'": "1"}}, "not a planner setting"),
        ({"under": {"enable_nestloop": "perhaps"}}, "write it as SHOW enable_nestloop prints it"),
    ],
)
def test_one_wrong_part_and_nothing_of_a_table_is_used(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(TableError, match=why):
        parse_table(document(**changes))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_no_table(data: bytes) -> None:
    with pytest.raises(TableError):
        parse_table(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_are_a_table_or_an_error_that_says_so(data: bytes) -> None:
    with pytest.raises(TableError):
        parse_table(data)


def test_a_table_has_bounds() -> None:
    with pytest.raises(TableError, match="more than"):
        parse_table(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(TableError, match="under one search_path"):
        SteeringTable((LOOK_ENTRY, LOOK_ENTRY))
    many = tuple(entry_for("SELECT 1", search_path=f"s{i}") for i in range(MAX_ENTRIES + 1))
    with pytest.raises(TableError, match="more than 2000"):
        SteeringTable(many)


# -- settings -----------------------------------------------------------------------------------


def test_every_hint_set_of_the_catalogue_may_be_served() -> None:
    catalogue = yaml.load(HINT_SETS.read_text(encoding="utf-8"), yaml.BaseLoader)
    assert len(catalogue["toggles"]) > 20
    for toggle in catalogue["toggles"]:
        under = dict.fromkeys(toggle["settings"], "on")
        for name, kind in SETTINGS.items():
            if name in under and not kind.is_value("on"):
                under[name] = "4MB" if kind.is_value("4MB") else "1"
        assert refusal(toggle["settings"], under) is None, toggle["name"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("work_mem", ["64kB", "256MB", "1GB"], ["32kB", "2GB", "64", "64mb", "1.5GB", "-1kB"]),
        ("random_page_cost", ["1.1", "4", "1e+02"], ["0", "-1", "1e+09", "nan", "inf", "٣"]),
        ("join_collapse_limit", ["1", "12"], ["0", "1.5", "100", "1 "]),
        ("geqo", ["on"], ["off"]),
        ("max_parallel_workers_per_gather", ["0", "8"], ["9"]),
    ],
)
def test_values_have_bounds(name: str, good: list[str], bad: list[str]) -> None:
    assert [value for value in good if not SETTINGS[name].may_be_set(value)] == []
    assert [value for value in bad if SETTINGS[name].may_be_set(value)] == []


@pytest.mark.parametrize(
    ("name", "shown", "not_shown"),
    [
        ("min_parallel_table_scan_size", ["8MB", "8kB", "0"], ["8", "", "00", "0 kB"]),
        ("min_parallel_index_scan_size", ["512kB", "0"], ["-1"]),
        ("work_mem", ["4MB", "2TB"], ["4096"]),
    ],
)
def test_a_value_in_force_is_one_that_the_server_prints(
    name: str, shown: list[str], not_shown: list[str]
) -> None:
    """A server prints nothing without a unit but the amount 0."""
    assert [value for value in shown if not SETTINGS[name].is_value(value)] == []
    assert [value for value in not_shown if SETTINGS[name].is_value(value)] == []


@given(st.text(max_size=30))
def test_no_value_holds_what_would_have_to_be_quoted(text: str) -> None:
    if any(kind.may_be_set(text) or kind.is_value(text) for kind in SETTINGS.values()):
        assert text.replace(".", "").replace("+", "").replace("-", "").replace("_", "").isalnum()
        assert text.isascii()


# -- the file that is watched -------------------------------------------------------------------


def test_a_file_is_read_again_when_it_was_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "table.json"
    source = TableFile(path)
    for _ in range(3):
        assert source.refresh().entries == ()
    assert len(caplog.records) == 1  # the file is missing: said once

    write_table(path, [LOOK_ENTRY], expires_at_s=LATE_S)
    first = source.refresh()
    assert first.entries == (LOOK_ENTRY,)
    assert source.refresh() is first
    write_table(path, [OTHER_ENTRY], expires_at_s=LATE_S)
    assert source.refresh().entries == (OTHER_ENTRY,)

    caplog.clear()
    path.write_bytes(document(VERSION=7))
    for _ in range(3):
        assert source.refresh().entries == ()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "version is 7" in caplog.text
    write_table(path, [LOOK_ENTRY], expires_at_s=LATE_S)
    assert source.refresh() == first


def test_what_is_not_a_file_is_not_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for a writer
    assert TableFile(pipe).refresh().entries == ()
    assert "not a file" in caplog.text


# -- choosing -----------------------------------------------------------------------------------


def chooser(*entries: SteeringEntry, search_path: str | None = None) -> Chooser:
    return Chooser(SteeringTable(entries), StatementReader(interpolated=True), search_path)


def test_a_statement_gets_the_entry_of_its_fingerprint() -> None:
    found = chooser(LOOK_ENTRY, OTHER_ENTRY).choose(
        "select current_setting('jit')   AS work_mem, %(x)s AS x"
    )
    assert found is not None
    assert found.entry is LOOK_ENTRY
    assert chooser(OTHER_ENTRY).choose("SELECT current_setting('jit') AS work_mem, %s AS x") is None


def test_an_entry_for_functions_that_the_statement_does_not_name_is_not_chosen() -> None:
    sql = "SELECT current_setting('work_mem') AS work_mem, %(x)s AS x"
    assert chooser(LOOK_ENTRY).choose(sql) is not None
    assert chooser(entry_for(LOOK_SQL, functions=frozenset(["upper"]))).choose(sql) is None
    assert chooser(entry_for(LOOK_SQL, mode="off")).is_idle


def test_several_search_paths_need_to_be_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    entries = [entry_for("SELECT 1", search_path=path) for path in ("a", "b")]
    assert chooser(*entries).is_idle
    assert "query_steering_search_path" in caplog.text
    found = chooser(*entries, search_path="b").choose("SELECT 5")
    assert found is not None
    assert found.entry is entries[1]
    assert chooser(*entries, search_path="c").is_idle


def test_a_class_that_is_given_up_is_chosen_no_more() -> None:
    both = chooser(LOOK_ENTRY, OTHER_ENTRY)
    sql = "SELECT current_setting('work_mem') AS work_mem, %(x)s AS x"
    found = both.choose(sql)
    assert found is not None
    both.give_up(found)
    assert both.choose(sql) is None
    assert not both.is_idle
    # A table with the same entry says nothing new, one with another entry does.
    reader = StatementReader(interpolated=True)
    for entry, chosen in ((LOOK_ENTRY, False), (entry_for(LOOK_SQL, hint_set="another"), True)):
        again = Chooser(SteeringTable((entry,)), reader, refused=both.refused)
        assert (again.choose(sql) is not None) == chosen


def test_without_time_for_new_texts_a_statement_is_left_alone_for_now() -> None:
    reader = StatementReader(interpolated=True, budget=ParsingBudget(share=0, burst_s=0))
    assert Chooser(SteeringTable((LOOK_ENTRY,)), reader).choose("SELECT 1") is None
    reader = StatementReader(interpolated=True, budget=ParsingBudget(share=0, burst_s=1e-9))
    starved = Chooser(SteeringTable((entry_for("SELECT 1"),)), reader)
    # The first text takes all there is; it is forgotten, not remembered as one to leave alone.
    assert [starved.choose("SELECT 1") for _ in range(2)] == [None, None]
    assert starved._chosen.cache_info().currsize == 0


# -- messages -----------------------------------------------------------------------------------


def test_the_texts_carry_the_tag_by_which_the_product_knows_its_own() -> None:
    assert TAG == STATEMENT_TAG


@given(
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=20).filter(
        lambda path: not set("%\\") & set(path)
    )
)
def test_no_text_holds_a_percent_sign_or_an_open_quote(search_path: str) -> None:
    messages = messages_for(entry_for("SELECT 1", search_path=search_path))
    for text in vars(messages).values():
        assert "%" not in text
        assert text.count("'") % 2 == 0
        assert ";" not in text.rstrip(";\n").replace(search_path.replace("'", "''"), "")


# -- the page -----------------------------------------------------------------------------------


def test_the_page_describes_the_file_and_the_arguments() -> None:
    page = (HINT_SETS.parents[3] / "docs/steering-plugin.md").read_text(encoding="utf-8")
    example = json.loads(page.partition("```json\n")[2].partition("```")[0])
    example["parser"] = PARSER
    assert len(parse_table(json.dumps(example).encode()).entries) == 1
    for key in (*example, *example["entries"][0], *MODES):
        assert f"`{key}`" in page or key in ("format", "version", "entries")
    assert set(re.findall(r"^\| `(query_steering_\w+)` \|", page, re.M)) == set(
        QuerySteeringPlugin.ARGUMENTS
    )
    assert f"| {DEFAULT_SHARE:g} |" in page
    assert f"more\n  than {MAX_TEXT_LENGTH:,} characters" in page
    assert f"at most {MAX_ENTRIES:,} entries and {MAX_FILE_BYTES // 1024**2} MB" in page
    assert f"up to {MAX_SPOOL_BYTES // 1024**2} MB" in page
    assert f"2^(i/{BUCKETS_PER_OCTAVE})" in page
    assert f"Every {REPORT_INTERVAL_S:g} seconds" in page
    assert f"at most {PARSING_SHARE:.0%} of the time".replace("%", " %") in page
