"""What waits for an operator in mode ``approve``, for the page tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from backend.domain.experiment_plans import ExperimentPlanRecord, KnobRange, PromotionRecord
from backend.domain.modes import Mode, TrialKind, Verdict
from backend.domain.records import HoursRecord
from tests.dashboard.fake_steering import HOSTILE
from tests.dashboard.fake_store import FakeStore

NIGHTS = "Mon-Fri 01:00-05:00 Europe/Berlin"


def plan(store: FakeStore, **fields: object) -> ExperimentPlanRecord:
    """A draft of the tuner's own."""
    draft = ExperimentPlanRecord(
        created_at=store.now - timedelta(minutes=20),
        author="autopilot",
        server_id="1",
        knobs=(
            KnobRange("work_mem", 1024.0, 65536.0, unit="kB"),
            KnobRange("random_page_cost", 1.0, 8.0),
            KnobRange("jit", choices=(False, True)),
        ),
        trials=60,
        expires_at=store.now + timedelta(days=7),
        hours=(NIGHTS,),
        note=f"what the expert rules advise {HOSTILE}",
        id=len(store._plans) + 1,
    )
    return replace(draft, **fields)


def wait(store: FakeStore) -> tuple[ExperimentPlanRecord, PromotionRecord]:
    """Let a plan and a promotion wait."""
    proven = next(
        t
        for t in reversed(store.trials())
        if t.kind is TrialKind.PROMOTION and t.verdict is Verdict.ACCEPT
    )
    assert proven.id is not None
    promotion = PromotionRecord(proven.id, 5, 1, store.now - timedelta(minutes=3), id=1)
    store._plans.append(plan(store))
    store._promotions.append(promotion)
    store.beat(
        mode=Mode.APPROVE,
        hindrance=f"the promotion of trial {proven.id} waits for approval",
        trial_hours=HoursRecord((NIGHTS,), False, store.now + timedelta(hours=5)),
        restart_hours=HoursRecord((), True),
        left_today={"max_changes_per_day": 47, "max_trials_per_day": 0},
    )
    return store._plans[-1], promotion
