"""Settings files of every kind: empty, missing, binary, hostile."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.config import Settings, load_settings
from backend.errors import ConfigError
from tests.settings_texts import loader


@pytest.fixture
def load(tmp_path, monkeypatch):
    return loader(tmp_path, monkeypatch)


@pytest.mark.parametrize("text", ["", "# nothing\n", "safety:\n", "level0:\n  knob:\n", "mode:\n"])
def test_empty_files_and_sections_are_all_defaults(load, text):
    assert load(text) == Settings()


def test_an_empty_section_takes_the_environment(load):
    assert load("safety:\n", {"AUTOPILOT_SAFETY__QUERY_TIMEOUT": "3"}).safety.query_timeout == 3


def test_a_missing_file_is_told_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"no settings file at .*nowhere") as raised:
        load_settings(tmp_path / "nowhere.yaml", environ={})
    assert "config.yaml.example" in str(raised.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \x00"])
def test_a_file_that_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "binary.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_settings(path, environ={})


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path, environ={})


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "42"])
def test_a_file_without_sections_is_refused(load, text):
    with pytest.raises(ConfigError, match="not sections of settings"):
        load(text)


def test_what_is_not_yaml_is_told_by_line(load):
    with pytest.raises(ConfigError, match="line 2, column 1: not YAML"):
        load("safety:\n\tquery_timeout: 3\n")


@pytest.mark.parametrize(
    "text",
    [
        "mode: !!python/object/apply:os.system ['touch {marker}']",
        "!!python/object/new:os.system ['touch {marker}']",
        "mode: !!python/name:os.system",
        "mode: !!python/object/apply:subprocess.check_output [[touch, '{marker}']]",
    ],
)
def test_yaml_makes_no_python_objects(load, tmp_path, text):
    marker = tmp_path / "made"
    with pytest.raises(ConfigError):
        load(text.format(marker=marker))
    assert not marker.exists()


def test_deep_nesting_is_refused_and_not_a_crash(load):
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load("mode: " + "[" * 20_000)


def test_references_that_explode_make_a_short_message(load):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 12):
        refs = ", ".join([f"*a{n - 1}"] * 10)
        lines.append(f"a{n}: &a{n} [{refs}]")
    lines += ["level1:", "  window_s: *a11"]
    with pytest.raises(ConfigError) as raised:
        load("\n".join(lines))
    assert len(str(raised.value)) < 2000


def test_a_file_that_holds_itself_is_refused(load):
    with pytest.raises(ConfigError):
        load("&me\nlevel0: *me\n")


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*Settings.model_fields, "knob", "password", "port", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_the_command_line_holds_is_accepted_or_refused_in_words(junk):
    overrides = junk if isinstance(junk, dict) else {"safety": junk}
    try:
        found = load_settings(None, environ={}, overrides=overrides)
    except ConfigError:
        return  # anything else fails the test
    assert isinstance(found, Settings)
