"""The command line of the live comparison: what is refused, and what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import ConfigError
from benchmarks import knob_live
from benchmarks.live import methods


@pytest.mark.parametrize(
    "options",
    [["--blocks", "1"], ["--minutes", "0"], ["--seeds", "-1"], ["--workload", "none"],
     ["--clients", "0"], ["--rate", "inf"], ["--stop-after", "0"]],
)  # fmt: skip
def test_options_out_of_bounds_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        knob_live.parse(["--results", "r.jsonl", *options])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        knob_live.parse(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert all(name in text for name in methods.NAMES)


def test_unknown_methods_are_named() -> None:
    with pytest.raises(ConfigError, match="smack"):
        methods.check_names(["ours", "smack"])
    with pytest.raises(ConfigError, match="no method"):
        methods.check_names([])
    assert methods.check_names(["ours", "random", "ours"]) == ("ours", "random")


def test_a_peer_that_is_not_installed_is_told_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods._PACKAGES, "tpe", "no_such_package_here")
    with pytest.raises(ConfigError, match="no_such_package_here") as caught:
        methods.check_names(["tpe"])
    assert "requirements-bench.txt" in str(caught.value)


def test_the_products_own_folder_is_refused(tmp_path: Path) -> None:
    workload = knob_live.LiveWorkload.named("mixed")
    settings = knob_live.settings_for(tmp_path, workload, allow_restart=True)
    assert settings.level1.allow_restart
    assert settings.workload.max_concurrency == workload.clients
    (tmp_path / "telemetry.db").touch()
    with pytest.raises(ConfigError, match="product's own"):
        knob_live.settings_for(tmp_path, workload, allow_restart=False)
