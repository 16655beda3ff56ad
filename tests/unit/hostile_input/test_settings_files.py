"""Settings and plan files of any content: read, or refused in words, within bounded means."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backend.config import Settings, load_settings
from backend.errors import ConfigError
from backend.experiment_plan_file import read_file
from backend.strict_yaml import MAX_BYTES

SECRET = "hunter2-correct-horse"
LONGEST_MESSAGE = 5000

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["0x" + "f" * 5000, "1:1:1", "!!binary x", "\x1b[31m", "2026-99-99"])
)
KEYS = (
    st.sampled_from([*Settings.model_fields, "host", "port", "password", "dsn", "users", "x"])
    | st.text(max_size=8)
    | st.integers()
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=15,
)
SCRAPS = st.lists(
    st.sampled_from(
        ["&a ", "*a", "<<: ", "? ", ": ", "- ", "{", "}", "[", "]", "!!", "!!set ", "!!omap ",
         "!!timestamp ", "!!float ", "!!int ", "|\n", ">\n", "'", '"', "\\ud800", "%YAML 9.9\n",
         "---\n", "...\n", "\t", "\n", "\n  ", "#", "mode", "database", "safety", "0x", "1e999",
         "9" * 5000, "\x00", "\x85", "\u2028", "\ufeff", "a"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "some.yaml"


def refusal(file: Path, content: bytes) -> str:
    """What is told about a settings file; empty where it was read."""
    file.write_bytes(content)
    try:
        load_settings(file, environ={})
    except ConfigError as error:
        told = str(error)
        assert told
        assert len(told) < LONGEST_MESSAGE
        assert told.replace("\n", " ").isprintable()
        return told
    return ""


def bomb(levels: int, line: str, last: str) -> bytes:
    """Lines of which each holds ten references to the one before."""
    lines = ["a0: &a0 {k: v}" if "<<" in line else "a0: &a0 [x]"]
    for n in range(1, levels):
        refs = ", ".join([f"*a{n - 1}"] * 10)
        lines.append(line.format(n=n, refs=refs))
    return "\n".join([*lines, last.format(n=levels - 1)]).encode()


@settings(max_examples=150)
@given(st.binary(max_size=200))
@example("database: {port: ü}".encode("utf-16"))
@example("mode: ä".encode("latin-1"))
@example(b"mode: auto\x00")
@example(b"\xef\xbb\xbfmode: auto\n")
def test_any_bytes(file: Path, content: bytes) -> None:
    refusal(file, content)


@settings(max_examples=300)
@given(SCRAPS)
@example("level1: {window_s: " + "9" * 5000 + "}")
@example("level1: {window_s: 0x" + "f" * 9000 + "}")
@example("level1: {window_s: " + ":".join(["59"] * 2000) + "}")
@example('database: {"\\e[31mx": 1}')
@example('mode: "\\ud800"')
@example("[a]: b")
def test_any_scraps_of_yaml(file: Path, text: str) -> None:
    refusal(file, text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150)
@given(DOCUMENTS)
def test_any_document(file: Path, document: Any) -> None:
    refusal(file, yaml.safe_dump(document).encode())


@pytest.mark.parametrize(
    "document",
    [
        {"dashboard": {"users": {"ann": SECRET}}},
        {"dashboard": {"users": {"ann": {"role": "operator", "pasword": SECRET}}}},
        {"dashboard": {"users": {"ann": {"role": "operator", "password": [SECRET]}}}},
        {"dashboard": {"users": SECRET}},
        {"dashboard": SECRET},
        {"database": SECRET},
        {"database": {"pasword": SECRET}},
        {"database": {"password": [SECRET]}},
        {"database": {"password": {"a": SECRET}}},
        {"database": {"host": "h", "parameters": {"password": SECRET}}},
        {"database": {"host": "h", "parameters": SECRET}},
        {"steering": {"dsn": f"postgres://u:{SECRET}@h:port/d"}},
        {"steering": {"dsn": [SECRET]}},
        {"paths": {"telemetry_db": f"postgresql://u:{SECRET}@h:port/d"}},
        {SECRET.replace("-", "_"): {"a: b": SECRET}},
    ],
)
def test_no_secret_is_repeated_wherever_it_was_put(file: Path, document: Any) -> None:
    told = refusal(file, yaml.safe_dump(document).encode())
    assert told
    assert SECRET not in told


@pytest.mark.parametrize("read", [load_settings, read_file])
@pytest.mark.parametrize(
    ("line", "last"),
    [
        ("a{n}: &a{n} [{refs}]", "level1: {{window_s: *a{n}}}"),
        ("a{n}: &a{n} {{<<: [{refs}]}}", "level1: {{<<: *a{n}}}"),
        ("a{n}: &a{n} !!set {{? [{refs}]}}", "mode: *a{n}"),
        ("&a{n} [{refs}]: a{n}", "mode: *a{n}"),
    ],
)
def test_references_never_multiply(file: Path, read: Any, line: str, last: str) -> None:
    """A hundred levels of these would be 10^100 values."""
    file.write_bytes(bomb(100, line, last))
    with pytest.raises(ConfigError) as raised:
        read(file)
    assert "line" in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("read", [load_settings, read_file])
def test_a_key_that_is_there_twice_is_told_with_its_place(file: Path, read: Any) -> None:
    file.write_text(f"safety:\n  query_timeout: 3\n  query_timeout: {SECRET}\n")
    with pytest.raises(ConfigError, match=r"line 3.*second time") as raised:
        read(file)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("read", [load_settings, read_file])
def test_of_a_huge_file_no_more_is_read_than_may_be_there(file: Path, read: Any) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(ConfigError, match=f"larger than {MAX_BYTES} bytes"):
        read(file)
    file.unlink()


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "!!set {? "])
def test_any_depth(file: Path, opening: str) -> None:
    assert refusal(file, b"mode: " + (opening * 20_000).encode()[: MAX_BYTES - 100])


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(
            ["DATABASE", "DATABASE__PORT", "DATABASE__PORT__X", "MODE", "SAFETY__", "", "__",
             "LEVEL1__WINDOW_S", "DASHBOARD__USERS", "DATABASE__PARAMETERS"]
        ).map("AUTOPILOT_{}".format)
        | st.sampled_from(["DATABASE_URL", "PGHOST", "PGPORT", "PGUSER", "PGSSLMODE"]),
        SCALARS.map(str) | SCRAPS | st.sampled_from(["[" * 100_000, "[" + "9" * 5000 + "]"]),
        max_size=4,
    )
)  # fmt: skip
def test_any_environment(variables: dict[str, str]) -> None:
    told = ""
    try:
        load_settings(environ=variables)
    except ConfigError as error:
        told = str(error)
    assert len(told) < LONGEST_MESSAGE


def test_this_python_refuses_to_write_out_huge_numbers_so_the_examples_bite() -> None:
    with pytest.raises(ValueError, match="digits"):
        str(10**5000)
    assert sys.get_int_max_str_digits() == 4300
