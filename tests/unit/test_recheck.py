"""Rechecks: what an earlier tuner noted is found again, and who is asked and who gives way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from backend.domain.modes import Arm, TrialKind
from backend.domain.records import EventRecord
from backend.recheck import NOTED, _noted_before
from tests.windows import START

DETAIL: Mapping[str, Any] = {
    "version": 3,
    "workload": 1,
    "at": START.isoformat(),
    "index": 0.7,
    "due_at": (START + timedelta(days=1)).isoformat(),
    "why_due": "a long time has passed",
    "gauges": {"live_tuples": 1e6},
}


class Store:
    def __init__(self, *details: Mapping[str, Any], kind: str = NOTED) -> None:
        self._events = [EventRecord(START, "info", kind, "", detail=detail) for detail in details]

    def events(self, *, limit: int) -> list[EventRecord]:
        return self._events


def found(*details: Mapping[str, Any], kind: str = NOTED) -> dict[tuple[int, int], float]:
    noted = _noted_before(Store(*details, kind=kind))  # type: ignore[arg-type]
    return {key: one.index for key, one in noted.items()}


def test_the_newest_note_of_each_version_and_workload_counts() -> None:
    other = {**DETAIL, "workload": 2, "index": 0.9, "due_at": None}
    assert found(DETAIL, other, {**DETAIL, "index": 0.8}) == {(3, 1): 0.8, (3, 2): 0.9}
    noted = _noted_before(Store(DETAIL))[3, 1]  # type: ignore[arg-type]
    assert noted.due_at == START + timedelta(days=1)
    assert noted.gauges == {"live_tuples": 1e6}
    assert found(DETAIL, kind="trial") == {}


@pytest.mark.parametrize(
    "damage",
    [
        {"index": "fast"}, {"index": 0.0}, {"index": float("nan")}, {"at": "yesterday"},
        {"version": None}, {"gauges": None}, {"gauges": {"live_tuples": "many"}}, {"due_at": 5},
    ],
)  # fmt: skip
def test_a_damaged_note_is_none(damage: Mapping[str, Any]) -> None:
    assert found({**DETAIL, **damage}) == {}
    assert found({name: value for name, value in DETAIL.items() if name not in damage}) == {}


def test_only_what_tries_something_new_is_an_experiment() -> None:
    trying = [kind for kind in TrialKind if kind.is_experiment]
    assert trying == [TrialKind.PROBE, TrialKind.PROMOTION]
    assert TrialKind.RECHECK.deployed_arm is Arm.CANDIDATE
    assert (Arm.CANDIDATE.other, Arm.INCUMBENT.other) == (Arm.INCUMBENT, Arm.CANDIDATE)
