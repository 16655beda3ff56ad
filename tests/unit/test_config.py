"""Settings: where they come from, what is refused and how, and what never shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from backend.config import Settings, example_yaml, load_settings
from backend.config_document import render
from backend.config_workload import WorkloadSection
from backend.domain.modes import Mode
from backend.domain.workload import PARAMETER_LIMITS, STATEMENT_CLASSES
from backend.errors import ConfigError
from backend.workload.mixes import MIXES
from backend.workload.runner import WorkloadSettings
from backend.workload.scope import PARAMETER_RANGES
from backend.workload.statements import STATEMENTS

ROOT = Path(__file__).resolve().parents[2]
SECRET = "hunter2-correct-horse"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load settings from a text and an environment, in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def load_from(text: str | None = None, env: dict[str, str] | None = None, **more: Any):
        path = None
        if text is not None:
            path = tmp_path / "some.yaml"
            path.write_text(text, encoding="utf-8")
        return load_settings(path, environ=env or {}, **more)

    return load_from


def leaves(
    model: type[BaseModel] = Settings, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting with its place."""
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, (*path, name))
        else:
            yield (*path, name), info


LEAVES = list(leaves())


# -- precedence -----------------------------------------------------------------------------


def test_without_anything_the_defaults_hold(load):
    found = load()
    assert found == Settings()
    assert found.is_embedded
    assert found.effective_mode is Mode.AUTO


def test_the_order_is_file_environment_url_command_line(load):
    file = "database: {host: from-file, port: 1, user: from-file, dbname: from-file}\nmode: observe"
    env = {
        "AUTOPILOT_DATABASE__HOST": "from-env",
        "AUTOPILOT_DATABASE__PORT": "2",
        "AUTOPILOT_DATABASE__USER": "from-env",
    }
    url = {"DATABASE_URL": "postgresql://from-url@from-url/"}
    command = {"database": {"host": "from-command"}}

    found = load(file).database
    assert (found.host, found.port, found.user) == ("from-file", 1, "from-file")
    found = load(file, env).database
    assert (found.host, found.port, found.dbname) == ("from-env", 2, "from-file")
    found = load(file, {**env, **url}).database
    assert (found.host, found.port, found.user) == ("from-url", 2, "from-url")
    found = load(file, {**env, **url}, overrides=command).database
    assert (found.host, found.user, found.dbname) == ("from-command", "from-url", "from-file")


def test_a_dsn_wins_over_the_environments_url(load):
    env = {"DATABASE_URL": "postgresql://a@one/x"}
    assert load(env=env, dsn="postgresql://b@two:6543/y").database.host == "two"


def test_the_working_directorys_file_is_read_where_it_exists(load, tmp_path):
    (tmp_path / "config.yaml").write_text("safety: {query_timeout: 7}", encoding="utf-8")
    assert load().safety.query_timeout == 7


def test_nested_keys_lists_and_mappings_come_through_the_environment(load):
    found = load(
        env={
            "AUTOPILOT_LEVEL0__KNOB__HIDDEN_LAYERS": "[32, 16]",
            "AUTOPILOT_WORKLOAD__QUERY_DISTRIBUTION": '{"order_by_id": 2}',
            "AUTOPILOT_MODE": "advise",
            "AUTOPILOT_LEVEL1__ENABLED": "false",
        }
    )
    assert found.level0.knob.hidden_layers == (32, 16)
    assert found.workload.query_distribution == {"order_by_id": 2.0}
    assert found.mode is Mode.ADVISE
    assert not found.level1.enabled


def test_other_peoples_variables_are_left_alone(load):
    assert load(env={"AUTOPILOT_RUN": "{}", "AUTOPILOT": "x", "HOME": "/"}) == Settings()


def test_a_foreign_server_starts_in_observe(load):
    found = load(env={"DATABASE_URL": "postgresql://u@db.example:5433/app"})
    assert found.effective_mode is Mode.OBSERVE
    assert not found.is_embedded
    assert load("mode: auto\ndatabase: {host: x}").effective_mode is Mode.AUTO


# -- the file -------------------------------------------------------------------------------


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


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("safety: {query_timeout: 0}", ["safety.query_timeout", "greater than 0", "got 0"]),
        ("database: {port: 70000}", ["database.port", "65535", "got 70000"]),
        ("database: {max_connections: 2}", ["database.max_connections", "equal to 3", "got 2"]),
        ("dashboard: {port: web}", ["dashboard.port", "valid integer", "got 'web'"]),
        ("mode: wild", ["mode", "'observe'", "'auto'", "got 'wild'"]),
        ("workload: {name: other}", ["workload.name", "'oltp'", "got 'other'"]),
        ("level0: {knob: {gamma: 1}}", ["level0.knob.gamma", "less than 1", "got 1"]),
        ("safety: {rollback_threshold: .inf}", ["safety.rollback_threshold", "finite", "got inf"]),
        ("level1: {alpha: .nan}", ["level1.alpha", "finite", "got nan"]),
        ("level0: {knob: {hidden_layers: [8, 0]}}", ["level0.knob.hidden_layers.1", "got 0"]),
        ("level0: {knob: {hidden_layers: []}}", ["level0.knob.hidden_layers", "at least 1"]),
        ("level2: {bounds: {gamma: [0, .inf]}}", ["level2.bounds.gamma", "finite"]),
        (
            "level1: {min_blocks: 9, max_blocks: 4}",
            ["level1.max_blocks = 4", "level1.min_blocks = 9"],
        ),
    ],
)
def test_a_bad_value_is_named_with_its_key_and_bound(load, text, words):
    with pytest.raises(ConfigError) as raised:
        load(text)
    for word in (*words, "config.yaml.example"):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [("saftey: {}", "saftey"), ("safety: {querry: 1}", "safety.querry"), ("7: 1", "7")],
)
def test_an_unknown_key_is_named(load, text, key):
    with pytest.raises(ConfigError, match=rf"\b{key}\b"):
        load(text)


def test_an_unknown_key_of_the_environment_is_named(load):
    with pytest.raises(ConfigError, match=r"safety\.querry"):
        load(env={"AUTOPILOT_SAFETY__QUERRY": "1"})


@pytest.mark.parametrize(
    "env",
    [
        {"AUTOPILOT_SAFETY": "x", "AUTOPILOT_SAFETY__QUERY_TIMEOUT": "1"},
        {"AUTOPILOT_MODE": "observe", "AUTOPILOT_MODE__X": "1"},
        {"AUTOPILOT_SAFETY": "x"},
        {"AUTOPILOT_SAFETY__": "x"},
        {"AUTOPILOT_LEVEL0__KNOB__HIDDEN_LAYERS": "[1, "},
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(load, env):
    with pytest.raises(ConfigError):
        load(env=env)


@pytest.mark.parametrize("key", ["mode", "level1"])
def test_settings_cannot_be_changed_later(key):
    with pytest.raises(ValueError, match="frozen"):
        setattr(Settings(), key, None)


# -- the demo's workload --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("query_distribution: {order_by_nid: 2}", ["order_by_nid", "order_by_id, customer_by"]),
        ("query_distribution: {order_by_id: -1}", ["order_by_id", "equal to 0", "-1"]),
        ("parameter_ranges: {rank: [0, 1]}", ["'rank'", "period_age_days, customer_rank"]),
        ("parameter_ranges: {product_rank: [0.5, 2]}", ["product_rank = (0.5, 2)", "(0, 1)"]),
        ("parameter_ranges: {product_rank: [0.5, 0.1]}", ["(0.5, 0.1)", "lower bound first"]),
    ],
)
def test_what_the_workload_would_refuse_is_refused_with_the_settings(load, text, words):
    with pytest.raises(ConfigError) as raised:
        load(f"workload: {{{text}}}")
    assert text.partition(":")[0] in raised.value.message
    for word in words:
        assert word in raised.value.message
    assert "[key]" not in raised.value.message
    assert "Value error" not in raised.value.message
    assert raised.value.remedy


def test_the_workload_knows_the_words_that_settings_may_use(load):
    assert tuple(STATEMENTS) == STATEMENT_CLASSES
    assert set(PARAMETER_RANGES) == set(PARAMETER_LIMITS)
    assert get_args(WorkloadSection.model_fields["name"].annotation) == tuple(MIXES)
    found = load(
        "workload: {query_distribution: {add_review: 0, order_by_id: 2.5}, "
        "parameter_ranges: {period_age_days: [30, 330]}}"
    ).workload
    assert found.query_distribution == {"add_review": 0.0, "order_by_id": 2.5}
    assert found.parameter_ranges == {"period_age_days": (30.0, 330.0)}
    schedule = WorkloadSettings.of(found, 1.0).schedule()
    assert "add_review" not in schedule.mix.day
    assert schedule.mix.day["order_by_id"] == 2.5
    assert schedule.scope.ranges == found.parameter_ranges


# -- the database URL -----------------------------------------------------------------------


def test_a_url_names_the_server(load):
    found = load(env={"DATABASE_URL": f"postgresql://me:{SECRET}%40x@db.example:5433/app"})
    database = found.database
    assert (database.host, database.port, database.user) == ("db.example", 5433, "me")
    assert database.dbname == "app"
    assert database.password.get_secret_value() == SECRET + "@x"
    url = found.foreign_url()
    assert url.drivername == "postgresql+psycopg2"
    assert url.password == SECRET + "@x"
    assert (url.host, url.port, url.database) == ("db.example", 5433, "app")


def test_the_short_scheme_is_known_and_an_empty_url_is_none(load):
    assert load(env={"DATABASE_URL": "postgres://u@h/d"}).database.host == "h"
    assert load(env={"DATABASE_URL": ""}).is_embedded


def test_options_of_a_url_are_refused_and_not_dropped(load):
    """sslmode=require that is not read would be a connection without encryption."""
    with pytest.raises(ConfigError, match="sslmode") as raised:
        load(dsn=f"postgresql://u:{SECRET}@h/d?sslmode=require")
    assert "PGSSLMODE" in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:{SECRET}@h:port/d",
        f"mysql://u:{SECRET}@h/d",
        f"u:{SECRET}@h",
        f"postgresql://u:{SECRET}@h:99999/d",
        f"sqlite:///{SECRET}",
    ],
)
def test_a_bad_url_is_refused_without_being_repeated(load, dsn):
    with pytest.raises(ConfigError) as raised:
        load(dsn=dsn)
    assert SECRET not in str(raised.value)


# -- the store ------------------------------------------------------------------------------


def test_a_plain_path_is_a_sqlite_file(load):
    url = load("paths: {telemetry_db: some where/t.db}").store_url
    assert (url.get_backend_name(), url.database) == ("sqlite", "some where/t.db")
    url = load("paths: {telemetry_db: 'postgresql://u@h/store'}").store_url
    assert (url.get_backend_name(), url.database) == ("postgresql", "store")


def test_a_store_that_cannot_be_parsed_is_told_when_loading(load):
    with pytest.raises(ConfigError, match=r"paths\.telemetry_db") as raised:
        load(f"paths: {{telemetry_db: 'postgresql://u:{SECRET}@h:x/d'}}")
    assert SECRET not in str(raised.value)


# -- the password ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        {"AUTOPILOT_DATABASE__PASSWORD": SECRET},
        {"DATABASE_URL": f"postgresql://u:{SECRET}@h/d"},
        {"AUTOPILOT_PATHS__TELEMETRY_DB": f"postgresql://u:{SECRET}@h/d"},
    ],
)
def test_a_password_never_shows(load, env):
    found = load(env=env)
    shown = (
        repr(found), str(found), repr(found.database), repr(found.paths),
        str(found.foreign_url()), repr(found.foreign_url()),
        str(found.store_url), repr(found.store_url),
    )  # fmt: skip
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize(
    "text",
    [
        f"database: {{password: [{SECRET}]}}",
        f"database: {{password: {{a: {SECRET}}}}}",
        f"database: {{pasword: {SECRET}}}",
        f"database: 'postgresql://u:{SECRET}@h/d'",
        f"database: {{port: 'u:{SECRET}@h'}}",
        f"databse: {{password: {SECRET}}}",
        f"paths: {{telemetry_db: ['postgresql://u:{SECRET}@h/d']}}",
        f'database:\n  password: "{SECRET}\n  port: 5\n',
        f"database:\n  password: *{SECRET}\n",
        f"database:\n  password: !{SECRET} x\n",
        f"database:\n\tpassword: {SECRET}\n",
        f"database:\n  password: {SECRET}: x: y\n",
        f"password: {SECRET}",
    ],
)
def test_a_password_shows_in_no_error(load, text):
    with pytest.raises(ConfigError) as raised:
        load(text)
    assert SECRET not in str(raised.value)
    # Nor in the traceback that a log would hold.
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


# -- the documentation ----------------------------------------------------------------------


def test_the_example_equals_the_defaults(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(example_yaml(), encoding="utf-8")
    assert load_settings(path, environ={}) == Settings()


def test_the_example_in_the_repository_is_in_step():
    text = (ROOT / "config.yaml.example").read_text(encoding="utf-8")
    assert text == example_yaml(), "run: python -m backend.config > config.yaml.example"


@pytest.mark.parametrize(("place", "info"), LEAVES, ids=[".".join(place) for place, _ in LEAVES])
def test_every_setting_is_described_and_in_the_example(place, info):
    assert info.description, f"{'.'.join(place)} has no description"
    assert info.description.endswith((".", ")."))
    found = yaml.safe_load(example_yaml())
    for key in place:
        assert key in found
        found = found[key]
    assert f"# {info.description}\n" in example_yaml()


def test_the_settings_that_users_were_promised_exist():
    promised = {
        "database": "host port user password dbname max_connections connection_timeout",
        "paths": "data_dir logs_dir policies_dir telemetry_db",
        "level0.knob": "learning_rate gamma batch_size buffer_size target_update hidden_layers",
        "level0.plan": "learning_rate gamma batch_size buffer_size target_update hidden_layers",
        "level1": "enabled update_interval min_improvement",
        "level2": "enabled evaluation_interval population_size mutation_rate crossover_rate "
        "tournament_size elite_size bounds",
        "safety": "enabled query_timeout memory_limit_gb cpu_limit_percent rollback_threshold "
        "max_consecutive_failures sandbox_enabled",
        "workload": "queries_per_hour data_scale_factor query_distribution parameter_ranges",
        "telemetry": "collection_interval retention_days",
        "dashboard": "enabled host port",
        "logging": "level",
    }
    known = {".".join(place) for place, _ in LEAVES}
    for section, keys in promised.items():
        assert {f"{section}.{key}" for key in keys.split()} <= known


def test_the_page_is_in_step():
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert text == render(), "run: python -m backend.config_document > docs/configuration.md"


@pytest.mark.parametrize(("place", "info"), LEAVES, ids=[".".join(place) for place, _ in LEAVES])
def test_every_setting_is_on_the_page_with_its_default(place, info):
    (row,) = (line for line in render().splitlines() if line.startswith(f"| `{'.'.join(place)}` |"))
    assert info.description in row
    default = info.get_default(call_default_factory=True)
    if isinstance(default, (bool, int, float)):
        assert f"| `{json.dumps(default)}` |" in row


def test_the_page_tells_the_bounds():
    page = render()
    assert "| `database.port` | `5432` | 1 to 65535 |" in page
    assert "| `level0.knob.gamma` | `0.05` | 0 to below 1 |" in page
    assert "| `level0.knob.buffer_size` | `10000` | 16 to 1000000 |" in page
    assert "`observe`, `advise`, `approve`, `auto`" in page
