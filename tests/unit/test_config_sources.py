"""Where settings come from: file, environment, URL, command line, in that order."""

from __future__ import annotations

import pytest

from backend.config import Settings
from backend.domain.modes import Mode
from tests.settings_texts import loader


@pytest.fixture
def load(tmp_path, monkeypatch):
    return loader(tmp_path, monkeypatch)


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
