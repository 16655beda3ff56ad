"""What waits for an operator, the freeze switch, hours and what is left of the day's limits."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from backend.domain.experiment_plans import PlanState, PromotionState
from backend.domain.modes import Mode
from backend.domain.records import FreezeRecord, HoursRecord
from dashboard import decisions_waiting, layouts
from dashboard.format import Viewer
from dashboard.live import View
from dashboard.operator_commands import CommandError, make_command
from dashboard.pages import decisions, safety
from tests.dashboard import fake_control
from tests.dashboard.fake_steering import HOSTILE
from tests.dashboard.fake_store import FakeStore
from tests.dashboard.parts import text_of, view

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)
FROZEN = FreezeRecord(True, "alice@command-line", NOW, f"the sale begins {HOSTILE}")


def buttons(store: FakeStore) -> str:
    text = text_of(decisions_waiting.waiting(view(store)))
    return text.replace("\\", "").replace("\u00a0", " ")


def test_a_promotion_waits_with_its_evidence(store):
    _, promotion = fake_control.wait(store)
    trial = store.trial(promotion.trial_id)
    shown = buttons(store)
    assert f"Promotion of trial {promotion.trial_id}" in shown
    assert all(name in shown for name in trial.after)
    assert "of what stands" in shown
    assert "not slower" in shown
    assert f'{{"trial_id": {promotion.trial_id}}}' in shown
    assert "Nothing new is tried now" in shown


def test_its_dialog_has_the_same_answers_and_other_trials_have_none(store):
    _, promotion = fake_control.wait(store)
    other = next(t.id for t in store.trials() if t.id != promotion.trial_id)
    for chosen, answered in ((promotion.trial_id, True), (other, False)):
        dialog = text_of(decisions.detail(view(store, decisions_selected=chosen)))
        assert ("Deploy it" in dialog) is answered


def test_an_approved_promotion_says_what_it_waits_for(store):
    _, promotion = fake_control.wait(store)
    approved = replace(promotion, state=PromotionState.APPROVED, decided_by="bob@dashboard")
    store._promotions = [approved]
    shown = buttons(store)
    assert "by bob@dashboard: deployed as soon as the load is that of workload 1" in shown
    assert "Deploy it" not in shown


@pytest.mark.parametrize("state", [PromotionState.DEPLOYED, PromotionState.VOID])
def test_what_is_settled_waits_no_more(store, state):
    _, promotion = fake_control.wait(store)
    store._promotions = [replace(promotion, state=state)]
    assert "Promotion of trial" not in buttons(store)


def test_a_draft_shows_its_ranges_and_asks(store):
    plan, _ = fake_control.wait(store)
    shown = buttons(store)
    assert "1 MB" in shown
    assert "64 MB" in shown
    assert fake_control.NIGHTS in shown
    assert f'{{"plan_id": {plan.id}}}' in shown
    assert "Approve the plan" in shown


def test_a_plan_in_force_can_be_withdrawn_and_one_that_is_over_says_why(store):
    in_force = fake_control.plan(store, state=PlanState.APPROVED, begun=12, decided_by="bob")
    over = fake_control.plan(store, id=7, state=PlanState.OVER, reason="its 60 trials are used up")
    store._plans = [over, in_force]
    store.beat(mode=Mode.APPROVE)
    shown = buttons(store)
    assert "12 of 60 begun" in shown
    assert "Withdraw the approval" in shown
    assert "Approve the plan" not in shown
    assert "Experiment plan 7 is over: its 60 trials are used up." in shown


def test_where_nothing_waits_it_says_so(store):
    assert "In mode approve trials run inside" in buttons(store)
    store.beat(mode=Mode.APPROVE)
    assert "Nothing waits for you" in buttons(store)


@pytest.mark.parametrize("mode", list(Mode))
def test_every_page_shows_the_mode_whatever_holds_it_up(store, mode):
    closed = HoursRecord((fake_control.NIGHTS,), False, NOW)
    store.beat(mode=mode, paused=True, trial_hours=closed, hindrance="outside the hours")
    chips = text_of(layouts.chips(store.status(), False, FROZEN))
    for word in (mode.value, "frozen", "paused", "outside hours"):
        assert f'"{word}"' in chips


def test_who_has_frozen_it_and_why_is_on_every_page_even_without_a_tuner(store):
    shown = text_of(layouts.banners(store.status(), True, Viewer(), FROZEN))
    assert "Frozen by alice@command-line" in shown
    assert "the sale begins" in shown
    assert "does not answer" in shown
    lifted = replace(FROZEN, frozen=False)
    store.beat(frozen=True)  # what the tuner said before it was lifted
    assert layouts.banners(store.status(), False, Viewer(), lifted) == []


def test_the_safety_page_tells_hours_limits_and_who_froze(store):
    fake_control.wait(store)
    store._freeze = FROZEN
    limits = dict(store.status().limits) | {"max_trials_per_day": 500}
    store.beat(limits=limits)
    state, table = text_of(safety.state(view(store))), text_of(safety.limit_table(view(store)))
    assert f"{fake_control.NIGHTS}; next from" in state
    assert "at any hour" in state
    assert "by alice@command-line" in state
    assert "47 left today" in table
    assert "0 left today" in table


def test_hours_that_are_open_say_until_when():
    open_now = HoursRecord(("daily 01:00-05:00",), True, NOW + timedelta(hours=1))
    assert "now, until" in safety.hours_text(open_now, View(FakeStore(empty=True), Viewer(), NOW))


@pytest.mark.parametrize(
    ("kind", "payload", "kept"),
    [
        ("approve_plan", {"plan_id": 3}, {"plan_id": 3}),
        ("decline_plan", {"plan_id": 3}, {"plan_id": 3}),
        ("draft_plan", {}, {}),
        ("freeze", {}, {}),
        ("freeze", {"reason": "the sale begins"}, {"reason": "the sale begins"}),
    ],
)
def test_commands_of_control(kind, payload, kept):
    assert make_command(kind, payload, (), "bob").payload == kept


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("approve_plan", {}),
        ("approve_plan", {"plan_id": "3"}),
        ("approve_plan", {"plan_id": 3, "trials": 10_000}),
        ("draft_plan", {"document": {}}),
        ("freeze", {"reason": 3}),
        ("freeze", {"reason": "x" * 301}),
        ("unfreeze", {"reason": "x"}),
    ],
)
def test_commands_of_control_that_are_refused(kind, payload):
    with pytest.raises(CommandError):
        make_command(kind, payload, (), "bob")
