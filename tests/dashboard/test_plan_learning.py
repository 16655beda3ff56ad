"""The plan agent on the page Learning, and the plans tried in a class's details."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from backend.domain.plans import RunOutcome
from backend.domain.steering import RunPurpose
from dashboard import plan_learning, steering_detail
from dashboard import steering_words as words
from dashboard.pages import PAGES
from dashboard.steering_tried import tried_plans, tried_table
from tests.dashboard import fake_steering as fake
from tests.dashboard.parts import text_of, view

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)
LEARNING = next(p for p in PAGES if p.slug == "learning")


def test_the_plan_agents_numbers_are_told_in_words(store):
    last = store.learning(agent="plan")[-1]
    store._learning[-1] = replace(
        last, reward=0.6931, reward_terms={"trust": 0.75, "shortfall": 0.4055}
    )
    text = text_of(plan_learning.summary(view(store)))
    for shown in ('"200"', "\u221250.0\u00a0%", "75.0\u00a0%", "1.5 times"):
        assert shown in text


def test_updates_are_counted_on_after_a_restart(store):
    steps = [record.step for record in plan_learning.records(view(store))]
    assert steps == [100 * (turn + 1) for turn in range(40)]


def test_figures_of_the_plan_agent_are_over_its_own_updates(store):
    for part in plan_learning.PARTS:
        if part.endswith(".figure"):
            figure = LEARNING.parts[part](view(store))
            assert figure["data"][0]["x"][-1] == 4000, part
            assert figure["layout"]["xaxis"]["title"]["text"] == "updates"
    assert len(LEARNING.parts["learning-reward.figure"](view(store))["data"][0]["x"]) == 140


@pytest.mark.parametrize("enabled", [True, False])
def test_before_the_first_learning_it_says_what_is_missing(store, enabled):
    store._learning = [r for r in store._learning if r.agent == "knob"]
    store._steering_status = replace(store.steering_status(), enabled=enabled)
    text = text_of(plan_learning.summary(view(store)))
    assert "It learns from statements that were tried under other plans; none yet" in text
    assert ("steering.explore: true" in text) is not enabled


def test_plans_are_ordered_by_their_ratio_and_bounds_come_last():
    plans = tried_plans(fake.plan_runs(NOW), fake.STEERED)
    assert [round(p.ratio, 2) for p in plans] == [
        *(0.38, 0.55, 0.71, 0.93, 1.04, 1.2, 1.9, 3.5, 12.0),
        *(4.0, 8.0),
    ]
    assert [p.stopped for p in plans] == [False] * 9 + [True] * 2


def test_runs_of_one_plan_are_one_median_and_ended_runs_count_more_than_bounds():
    run = fake.plan_runs(NOW)[0]
    runs = [replace(run, latency_s=run.default_latency_s * ratio) for ratio in (0.5, 0.6, 9.0)]
    runs.append(replace(run, outcome=RunOutcome.TIMED_OUT, latency_s=99.0))
    (plan,) = tried_plans(runs, fake.STEERED)
    assert plan.ratio == pytest.approx(0.6)
    assert not plan.stopped


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": RunOutcome.FAILED},
        {"purpose": RunPurpose.VERIFICATION},
        {"hint_set": "default"},
        {"default_latency_s": None},
        {"key": fake.PINNED},
    ],
)
def test_runs_that_compare_nothing_are_left_out(changes):
    runs = [replace(run, **changes) for run in fake.plan_runs(NOW)]
    assert tried_table(runs, fake.STEERED) is None


def test_the_details_show_the_fastest_and_the_slowest_plans(store):
    chosen = words.class_id(fake.STEERED)
    text = text_of(steering_detail.detail(view(store, queries_selected=chosen), {}))
    assert "11 other plans tried, the 4 fastest and the 4 slowest of them" in text
    assert "\u221262\u00a0%" in text
    assert "over 1.02\u00a0s, stopped" in text
    assert "random_page_cost 4.5" not in text
    other = words.class_id(fake.PINNED)
    assert "Plans tried" not in text_of(
        steering_detail.detail(view(store, queries_selected=other), {})
    )
