"""What a run was asked to do survives the way from the supervisor to its processes."""

from __future__ import annotations

import os

import pytest

from backend.commands.options import settings_of
from backend.domain.modes import Mode
from backend.errors import ConfigError
from backend.run_options import ENVIRONMENT_KEY, FAST_MODE_FACTOR, RunOptions


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(),
        RunOptions(
            config_path="a b/ö.yaml",
            overrides={"mode": "auto", "dashboard": {"port": 8051}, "workload": {"seed": 3}},
            duration_days=1.5,
            fast_mode=True,
            from_defaults=True,
            begun_at=1700000000.25,
            supervisor_pid=4711,
        ),
    ],
)
def test_options_come_back_as_they_went(options):
    assert RunOptions.from_environment(options.to_environment()) == options


def test_the_rest_of_the_environment_goes_along(monkeypatch):
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    environment = RunOptions().to_environment()
    assert environment["SOMETHING_ELSE"] == "1"
    assert ENVIRONMENT_KEY not in os.environ


def test_a_mode_of_the_vocabulary_travels_as_its_word():
    options = RunOptions(overrides={"mode": Mode.ADVISE})
    back = RunOptions.from_environment(options.to_environment())
    assert back.settings().mode is Mode.ADVISE


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"config_path": null, "unknown": 1}', '{"overrides": 5}']
)
def test_what_no_supervisor_wrote_is_refused(text):
    with pytest.raises(ConfigError, match=ENVIRONMENT_KEY):
        RunOptions.from_environment({ENVIRONMENT_KEY: text})


def test_without_a_supervisor_there_are_no_options():
    with pytest.raises(ConfigError, match="is not set"):
        RunOptions.from_environment({})


def test_durations_are_simulated_days():
    assert RunOptions().duration_s is None
    assert RunOptions(duration_days=1).duration_s == 86400
    fast = RunOptions(duration_days=1, fast_mode=True)
    assert fast.time_scale == FAST_MODE_FACTOR == 100
    assert fast.duration_s == 864


def test_the_command_line_wins_over_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("DATABASE_URL", raising=False)
    path = tmp_path / "c.yaml"
    path.write_text("dashboard: {port: 1111}\nlogging: {level: DEBUG}\n", encoding="utf-8")
    found = RunOptions(str(path), {"dashboard": {"port": 2222}}).settings()
    assert found.dashboard.port == 2222
    assert found.logging.level == "DEBUG"
    with pytest.raises(ConfigError, match=r"dashboard\.prt"):
        RunOptions(str(path), {"dashboard": {"prt": 1}}).settings()


def test_an_empty_dsn_is_no_word_for_the_embedded_server() -> None:
    """``--dsn "$SERVER"`` with nothing in the variable must not start another server."""
    with pytest.raises(ConfigError, match="--dsn is empty"):
        settings_of(None, None, " ")
