"""The audit of the packages tells how many were looked at, and fails for what was found."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import dependency_audit

CLEAN = {"name": "rich", "version": "15.0.0", "vulns": []}
LEFT_OUT = {"name": "numpy", "skip_reason": "Dependency not found: numpy (2.3.1)"}
HARMFUL = {
    "name": "pyyaml",
    "version": "5.3",
    "vulns": [{"id": "CVE-2020-14343", "fix_versions": ["5.4"]}],
}


@pytest.mark.parametrize("packages", [[], [LEFT_OUT], [LEFT_OUT, LEFT_OUT]])
def test_nothing_audited_is_never_told_as_clean(packages: list[Any]) -> None:
    told, is_clean = dependency_audit.verdict({"dependencies": packages})
    assert "NOTHING WAS AUDITED" in told
    assert is_clean  # nobody here can do anything about it


def test_what_was_left_out_is_named() -> None:
    told, is_clean = dependency_audit.verdict({"dependencies": [CLEAN, LEFT_OUT]})
    assert told == "pip-audit: 1 of 2 packages audited, findings: 0\nNOT AUDITED: numpy"
    assert is_clean


def test_a_finding_fails_though_others_were_left_out() -> None:
    told, is_clean = dependency_audit.verdict({"dependencies": [CLEAN, LEFT_OUT, HARMFUL]})
    assert not is_clean
    assert "2 of 3 packages audited, findings: 1" in told
    assert "pyyaml 5.3: CVE-2020-14343 (mended in: 5.4)" in told


def test_without_a_finding_it_is_clean() -> None:
    told, is_clean = dependency_audit.verdict({"dependencies": [CLEAN]})
    assert (told, is_clean) == ("pip-audit: 1 of 1 packages audited, findings: 0", True)


def test_a_service_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no route to host\n")

    monkeypatch.setattr(dependency_audit.subprocess, "run", unreachable)
    told, is_clean = dependency_audit.audit()
    assert "NOTHING WAS AUDITED" in told
    assert "no route to host" in told
    assert is_clean


def test_what_pip_audit_wrote_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        output = next(option for option in command if option.startswith("--output="))
        Path(output.partition("=")[2]).write_text(
            '{"dependencies": [{"name": "a", "version": "1", "vulns": '
            '[{"id": "X-1", "fix_versions": []}]}]}'
        )
        return subprocess.CompletedProcess(command, 1, "", "Found 1 known vulnerability\n")

    monkeypatch.setattr(dependency_audit.subprocess, "run", writes)
    told, is_clean = dependency_audit.audit()
    assert "a 1: X-1 (mended in: no version)" in told
    assert not is_clean
