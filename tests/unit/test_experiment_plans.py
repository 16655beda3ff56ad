"""Experiment plans and promotions in the store: one waits, one is in force, and when they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.approval import Approval
from backend.config import SafetySection
from backend.daily_limits import CHANGES, TRIALS, DailyLimits
from backend.domain.clock import ManualClock
from backend.domain.experiment_plans import ExperimentPlanRecord, KnobRange, PlanState
from backend.domain.modes import TrialKind
from backend.domain.policies import PolicyVersionRecord
from backend.errors import ConfigError
from backend.experiment_plan import ExperimentPlans
from backend.freeze import is_frozen, throw
from backend.policy_versions import AUTOPILOT
from backend.telemetry import SqlStore, open_store
from tests.contracts import records as full
from tests.fake_server import CATALOG

SPACE = CATALOG.space()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as opened:
        yield opened


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def draft(clock: ManualClock, **fields: object) -> ExperimentPlanRecord:
    plan = ExperimentPlanRecord(
        clock.now(),
        "autopilot",
        "7",
        (KnobRange("work_mem", 4096.0, 65536.0, unit="kB"),),
        5,
        clock.now() + timedelta(days=1),
    )
    return replace(plan, **fields)  # type: ignore[arg-type]


# -- plans ------------------------------------------------------------------------------------


def test_one_waits_and_one_is_in_force(store: SqlStore, clock: ManualClock) -> None:
    plans = ExperimentPlans(store, clock)
    first = plans.propose(draft(clock))
    second = plans.propose(draft(clock))
    assert plans.waiting == second
    assert store.experiment_plans()[0].reason == f"replaced by experiment plan {second.id}"
    approved = plans.approve(second.id or 0, "bob")
    assert (plans.approved, plans.waiting) == (approved, None)
    assert (approved.decided_by, approved.decided_at) == ("bob", clock.now())
    third = plans.propose(draft(clock))
    plans.approve(third.id or 0, "bob")
    states = [plan.state for plan in store.experiment_plans()]
    assert states == [PlanState.OVER, PlanState.OVER, PlanState.APPROVED]
    with pytest.raises(ConfigError, match="no experiment plan 1 waits"):
        plans.approve(first.id or 0, "bob")


def test_an_expired_draft_cannot_be_approved(store: SqlStore, clock: ManualClock) -> None:
    plans = ExperimentPlans(store, clock)
    number = plans.propose(draft(clock)).id or 0
    clock.advance(86_400)
    with pytest.raises(ConfigError, match="expired at"):
        plans.approve(number, "bob")
    assert (plans.waiting, plans.approved) == (None, None)


def test_an_approval_can_be_withdrawn_once(store: SqlStore, clock: ManualClock) -> None:
    plans = ExperimentPlans(store, clock)
    number = plans.propose(draft(clock)).id or 0
    plans.approve(number, "bob")
    assert plans.decline(number, "ann").decided_by == "ann"
    with pytest.raises(ConfigError, match="is over, or never was"):
        plans.decline(number, "ann")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, ""),
        ({"begun": 5}, "its 5 trials are used up"),
        ({"server_id": "8"}, "another server"),
        ({"knobs": (KnobRange("gone", 1.0, 2.0),)}, "gone may not be tried here"),
        ({"knobs": (KnobRange("work_mem", 1.0, 2.0, unit="kB"),)}, "work_mem = 1.0 is outside"),
        ({"knobs": (KnobRange("work_mem", 4096.0, 8192.0, unit="8kB"),)}, "work_mem is in kB"),
        ({"knobs": (KnobRange("work_mem", choices=("a",), unit="kB"),)}, "the plan's is not"),
        ({"knobs": (KnobRange("jit", choices=("maybe",)),)}, "neither on nor off"),
    ],
)
def test_why_a_plan_is_over(clock: ManualClock, fields: dict[str, object], told: str) -> None:
    why = draft(clock, **fields).why_over(clock.now(), "7", SPACE)
    assert told in why
    assert bool(told) is bool(why)


def test_it_is_over_the_moment_it_expires(clock: ManualClock) -> None:
    plan = draft(clock)
    assert not plan.why_over(plan.expires_at - timedelta(seconds=1), "7", SPACE)
    assert "it expired at" in plan.why_over(plan.expires_at, "7", SPACE)


RANGE = KnobRange("work_mem", 4096.0, 65536.0, unit="kB")


@given(st.integers(-(10**9), 10**9), st.integers(4096, 65536))
def test_what_is_moved_into_a_range_lies_inside_and_moves_no_further(
    value: int, other: int
) -> None:
    moved = RANGE.nearest(value, 0)
    assert RANGE.holds(moved)
    assert type(moved) is int
    assert abs(moved - value) <= abs(other - value)
    assert RANGE.nearest(moved, 0) == moved


def test_a_choice_that_is_not_allowed_leaves_what_stands() -> None:
    only_off = KnobRange("jit", choices=(False,))
    assert only_off.nearest(True, True) is True
    assert only_off.nearest(False, True) is False
    assert not only_off.holds(0)


# -- promotions -------------------------------------------------------------------------------


def test_a_promotion_waits_for_one_word(store: SqlStore, clock: ManualClock) -> None:
    approval = Approval(store, clock)
    assert approval.told == ""
    approval.ask_for(12, 3, 1)
    assert "the promotion of trial 12 waits" in approval.told
    assert not approval.grant(13, "bob")
    assert approval.grant(12, "bob")
    assert not approval.grant(12, "bob")
    assert "is approved, and deployed as soon as" in approval.told
    assert approval.decline(12, "ann")  # not deployed yet: another word still counts
    assert approval.promotion is None
    assert not approval.grant(12, "bob")


# -- the freeze switch ------------------------------------------------------------------------


def test_the_switch_says_who_and_why(store: SqlStore, clock: ManualClock) -> None:
    assert not is_frozen(store)
    throw(store, clock, True, "ann", "  the sale\n begins  ")
    switch = store.freeze()
    assert switch is not None
    assert (switch.actor, switch.reason, is_frozen(store)) == ("ann", "the sale begins", True)
    throw(store, clock, False, "bob")
    assert not is_frozen(store)
    assert [event.kind for event in store.events()] == ["freeze", "freeze"]


def test_a_store_of_before_the_switch_stays_frozen(store: SqlStore, clock: ManualClock) -> None:
    store.save_status(replace(full.STATUS, frozen=True))
    assert is_frozen(store)
    throw(store, clock, False, "bob")
    assert not is_frozen(store)


# -- limits of a day --------------------------------------------------------------------------


def version(author: str, at: datetime, trial_id: int | None) -> PolicyVersionRecord:
    return PolicyVersionRecord(at, author, {}, trial_id=trial_id)


def test_only_promotions_and_trials_of_the_autopilot_today_count(
    store: SqlStore, clock: ManualClock
) -> None:
    now = clock.now()
    yesterday = now - timedelta(days=1)
    for author, at, trial_id in (
        (AUTOPILOT, now, 1),
        (AUTOPILOT, yesterday, 2),
        (AUTOPILOT, now, None),  # a rollback
        ("ann", now, None),
    ):
        store.add_policy_version(version(author, at, trial_id))
    for kind in (TrialKind.PROBE, TrialKind.PROMOTION, TrialKind.RECHECK, TrialKind.PROBATION):
        store.save_trial(replace(full.TRIAL, kind=kind, created_at=now))
    store.save_trial(replace(full.TRIAL, created_at=yesterday))
    safety = SafetySection(max_changes_per_day=3, max_trials_per_day=3)
    limits = DailyLimits(safety, store, clock)
    assert limits.left == {CHANGES: 2, TRIALS: 1}
    limits.began(TrialKind.RECHECK)
    assert limits.left[TRIALS] == 1
    assert not limits.hindrance
    limits.began(TrialKind.PROBE)
    assert "today's 3 trials are used up" in limits.hindrance
    limits.promoted()
    limits.promoted()
    assert not limits.may_promote
    clock.advance(86_400)
    assert limits.left == {CHANGES: 3, TRIALS: 3}
    assert limits.may_promote
