"""What is deployed is the incumbent of a probe, and the candidate of a probation."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from backend.domain.deployed import deployed_windows
from backend.domain.modes import Arm, Phase, TrialKind, TrialState
from backend.domain.records import TrialRecord, WindowRecord

BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def window(arm: Arm | None, trial_id: int | None = None) -> WindowRecord:
    return WindowRecord(
        started_at=BEGAN,
        ended_at=BEGAN + timedelta(seconds=10),
        duration_s=10.0,
        phase=Phase.LEARNING,
        config={},
        arm=arm,
        trial_id=trial_id,
    )


def trial(kind: TrialKind) -> TrialRecord:
    return TrialRecord(
        kind=kind,
        state=TrialState.MEASURING,
        proposer="test",
        created_at=BEGAN,
        before={},
        after={},
        id=7,
    )


@pytest.mark.parametrize(
    ("kind", "arm"),
    [
        (TrialKind.PROBE, Arm.INCUMBENT),
        (TrialKind.PROMOTION, Arm.INCUMBENT),
        (TrialKind.PROBATION, Arm.CANDIDATE),
        (TrialKind.FINAL, Arm.CANDIDATE),
    ],
)
def test_the_deployed_arm_depends_on_the_kind_of_trial(kind: TrialKind, arm: Arm) -> None:
    outside, incumbent, candidate = window(None), window(Arm.INCUMBENT, 7), window(Arm.CANDIDATE, 7)
    shown = deployed_windows([outside, incumbent, candidate], [trial(kind)])
    assert shown == [outside, incumbent if arm is Arm.INCUMBENT else candidate]


def test_in_an_unknown_trial_the_incumbent_is_deployed() -> None:
    incumbent, candidate = window(Arm.INCUMBENT, 3), window(Arm.CANDIDATE, 3)
    assert deployed_windows([incumbent, candidate], []) == [incumbent]
