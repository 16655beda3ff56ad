"""``kill -9`` at every step of a deployment: the old state stands, or the new, never a mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.killed_deployments import DEEDS

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
Lives = list[Mapping[str, Any]]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Lives]:
    """What stood after each death, by what was being done; the last one lived on."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.faults.killed_deployments",
            str(tmp_path_factory.mktemp("k")),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Lives] = {}
    for line in done.stdout.splitlines():
        told = json.loads(line)
        found.setdefault(told["deed"], []).append(told)
    return found


def state(told: Mapping[str, Any]) -> tuple[object, ...]:
    return told["knobs"], told["hint_sets"], told["weights"], told["updates"], told["versions"]


@pytest.mark.parametrize("deed", DEEDS)
def test_what_was_deployed_or_what_is_deployed(lives: Mapping[str, Lives], deed: str) -> None:
    told = lives[deed]
    before, after = state(told[0]), state(told[-1])
    assert before != after
    assert told[0]["died"]
    assert not told[-1]["died"]
    assert all(state(life) in (before, after) for life in told)
    # Once the new state stands it is not lost any more, however late the death.
    turned = [state(life) == after for life in told]
    assert turned == sorted(turned)


@pytest.mark.parametrize("deed", DEEDS)
def test_server_register_and_version_agree(lives: Mapping[str, Lives], deed: str) -> None:
    assert all(life["consistent"] and life["open"] == 0 for life in lives[deed])


@pytest.mark.parametrize("deed", DEEDS)
def test_there_were_enough_moments_to_die(lives: Mapping[str, Lives], deed: str) -> None:
    assert len(lives[deed]) > 8
