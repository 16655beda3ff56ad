"""The command line around the pages' login: hashes are made unseen, an open door is refused."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import run
from backend.errors import ConfigError
from backend.settings.dashboard import DashboardSettings
from dashboard.auth.accounts import Accounts

PASSWORD = "correct horse battery"


def test_a_password_becomes_the_hash_that_the_settings_take() -> None:
    result = CliRunner().invoke(run.app, ["password"], input=f"{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0
    line = result.stdout.splitlines()[-1]
    assert PASSWORD not in result.stdout + result.stderr
    user = {"role": "operator", "password": line}
    accounts = Accounts(DashboardSettings.model_validate({"users": {"alice": user}}))
    assert accounts.verify("alice", PASSWORD)


def test_a_password_that_is_too_short_is_refused_without_repeating_it() -> None:
    result = CliRunner().invoke(run.app, ["password"], input="too-short\ntoo-short\n")
    assert isinstance(result.exception, ConfigError)
    assert "12 to 256" in str(result.exception)
    assert "too-short" not in result.stdout + result.stderr + str(result.exception)


def test_nothing_is_started_where_anybody_could_reach_the_pages(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("backend.logs.configure_logging", lambda *_: None)
    monkeypatch.setenv("AUTOPILOT_DASHBOARD__HOST", "0.0.0.0")
    result = CliRunner().invoke(run.app, ["--data-dir", str(tmp_path / "data")])
    with pytest.raises(ConfigError, match=r"dashboard\.users names nobody"):
        raise result.exception
    assert not (tmp_path / "data").exists()
