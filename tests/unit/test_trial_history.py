"""Trials that a killed tuner left behind get a verdict, and the count goes on."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from backend.domain.clock import SystemClock
from backend.domain.modes import TrialKind, TrialState, Verdict
from backend.domain.records import TrialRecord
from backend.telemetry import open_store
from backend.trial_history import ORPHANED, TrialHistory

THEN = datetime(2026, 1, 2, tzinfo=timezone.utc)


def trial(state: TrialState, verdict: Verdict | None, *reasons: str) -> TrialRecord:
    return TrialRecord(
        TrialKind.PROBE, state, "agent", THEN, {"work_mem": None}, {"work_mem": 8192},
        verdict=verdict, reasons=reasons, finished_at=THEN if verdict else None,
    )  # fmt: skip


@pytest.mark.parametrize("state", [s for s in TrialState if s is not TrialState.FINISHED])
def test_a_trial_without_an_end_is_aborted_and_counted(tmp_path: Path, state: TrialState):
    store = open_store(f"sqlite:///{tmp_path}/telemetry.db")
    try:
        done = store.save_trial(trial(TrialState.FINISHED, Verdict.ACCEPT, "-20%"))
        left = store.save_trial(trial(state, None, "first block: -5%"))

        assert TrialHistory(store, SystemClock()).verdicts == {"accept": 1, "aborted": 1}

        orphan, kept = store.trial(left), store.trial(done)
        assert orphan is not None
        assert orphan.state is TrialState.FINISHED
        assert orphan.verdict is Verdict.ABORTED
        assert orphan.reasons == ("first block: -5%", ORPHANED)
        assert orphan.finished_at is not None
        assert kept is not None
        assert kept.reasons == ("-20%",)
        assert kept.finished_at == THEN
        assert TrialHistory(store, SystemClock()).verdicts == {"accept": 1, "aborted": 1}
    finally:
        store.close()
