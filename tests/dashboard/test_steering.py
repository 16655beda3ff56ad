"""Query steering on the pages: the strip, the table, the switch, the details."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from backend.domain.modes import CommandState, Mode
from backend.domain.steering import SteeringState
from dashboard import steering_detail, steering_head, steering_switch, steering_table
from dashboard import steering_words as words
from dashboard.operator_commands import make_command
from dashboard.pages import PAGES
from tests.dashboard import fake_steering as fake
from tests.dashboard.fake_steering import HOSTILE, record_of
from tests.dashboard.fake_store import FakeStore
from tests.dashboard.parts import text_of, view

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)
QUERIES = next(p for p in PAGES if p.slug == "queries")


def buttons(component: object) -> dict[str, dict]:
    """The switch's buttons by their word."""
    found: dict[str, dict] = {}

    def walk(value: object) -> None:
        if isinstance(value, dict):
            props = value.get("props", {})
            if value.get("type") == "Button" and "switch-button" in props.get("className", ""):
                found[props["children"]] = props
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(json.loads(text_of(component)))
    return found


def test_the_strip_tells_what_goes_on_and_what_it_cost(store):
    text = text_of(steering_head.head(view(store)))
    assert "Exploring" in text
    assert store.steering_status().activity in text
    assert "6\u00a0min 42\u00a0s of 39\u00a0min 20\u00a0s spent" in text
    assert "at most 20\u00a0%" in text
    assert "autopilot_explorer" in text
    assert "Saved an hour" in text


def test_a_hindrance_is_told(store):
    store._steering_status = replace(store.steering_status(), hindrance="CPU use is 91 %")
    text = text_of(steering_head.head(view(store)))
    assert "Resting" in text
    assert "CPU use is 91 %" in text


def test_between_two_turns_it_waits(store):
    store._steering_status = replace(store.steering_status(), activity="", where="stand-by")
    text = text_of(steering_head.head(view(store)))
    assert "Waiting for its turn" in text
    assert "on the stand-by" in text


def test_exploration_that_is_off_says_how_to_turn_it_on(store):
    store.beat(mode=Mode.OBSERVE)
    store._steering_status = replace(store.steering_status(), enabled=False, hindrance="foreign")
    text = text_of(steering_head.head(view(store)))
    assert "Exploration is off" in text
    assert "steering.explore: true" in text
    assert "steering.dsn" in text
    assert "In mode observe nothing is steered but what you pin" in text


def test_saved_time_that_is_not_known_is_not_told(store):
    store._timings = []
    assert "Saved an hour" not in text_of(steering_head.head(view(store)))


def test_without_a_class_the_table_says_how_to_give_statements():
    text = text_of(steering_table.steered_table(view(FakeStore(empty=True))))
    for way in ("query_steering_samples", "steering.statements", "steering.logs"):
        assert way in text


def test_the_table_orders_by_gain_and_folds_what_has_no_finding(store):
    text = text_of(steering_table.steered_table(view(store)))
    places = [
        text.index(json.dumps(record_of(store, key).text, ensure_ascii=False)[1:-1])
        for key in (fake.PINNED, fake.STEERED, fake.WITHDRAWN, fake.EXPLORING, fake.WAITING)
    ]
    assert places == sorted(places)
    assert "3 more classes: 1 waiting, 1 default plan is best, 1 not tried" in text


def test_evidence_and_service_are_in_numbers(store):
    store._steered = [record_of(store, fake.STEERED)]
    text = text_of(steering_table.steered_table(view(store)))
    assert "128\u00a0ms" in text
    assert "47.9\u00a0ms" in text
    assert "\u221263\u00a0%" in text
    assert "24 pairs of 6 statements" in text
    assert "90 + 1\u202f800 runs since" in text


def test_too_few_executions_are_no_ratio(store):
    store._steered = [record_of(store, fake.STEERED)]
    store._timings = [t for t in store._timings if t.key == fake.STEERED][:4]
    text = text_of(steering_table.steered_table(view(store)))
    assert "too few executions of the default plan (6)" in text


@pytest.mark.parametrize(
    "changes",
    [{"hint_set": "an_older_one"}, {"started_at": NOW - timedelta(days=9)}],
    ids=["another hint set", "before it was verified"],
)
def test_only_timings_under_what_was_verified_count(store, changes):
    store._steered = [record_of(store, fake.STEERED)]
    store._timings = [replace(t, **changes) for t in store._timings]
    assert "runs since" not in text_of(steering_table.steered_table(view(store)))


def test_hostile_text_of_steering_is_only_text(store):
    chosen = words.class_id(fake.SWITCHED_OFF)
    parts = (
        steering_table.steered_table(view(store)),
        steering_detail.detail(view(store, queries_selected=chosen), {}),
    )
    for part in parts:
        text = text_of(part)
        assert json.dumps(HOSTILE)[1:-1] in text
        for name in ("dangerously_allow_html", "dangerouslySetInnerHTML", '"Markdown"'):
            assert name not in text


def test_classes_of_telemetry_say_how_they_are_steered(store):
    text = text_of(QUERIES.parts["queries-classes.children"](view(store)))
    for key in (fake.STEERED, fake.PINNED, fake.WITHDRAWN, fake.SWITCHED_OFF, fake.BEST):
        assert json.dumps(words.class_id(key)) in text
        assert f'"{words.standing(record_of(store, key), Mode.AUTO).word}"' in text
    assert text.count('"badge-button"') == 5


def test_the_switch_shows_the_mode_and_offers_the_others(store):
    found = buttons(steering_switch.switch(record_of(store, fake.STEERED), None, "list"))
    assert [name for name, b in found.items() if b["aria-pressed"] == "true"] == ["auto"]
    assert [name for name, b in found.items() if not b.get("disabled")] == ["pin", "off"]
    wanted = json.loads(found["pin"]["id"]["payload"])
    assert wanted == {
        "fingerprint": fake.STEERED.fingerprint,
        "search_path": fake.STEERED.search_path,
        "mode": "pin",
    }
    assert "even when the autopilot is not in mode auto" in found["pin"]["id"]["confirm"]
    assert found["off"]["id"]["confirm"] == ""


def test_without_evidence_there_is_nothing_to_pin(store):
    found = buttons(steering_switch.switch(record_of(store, fake.EXPLORING), None, "list"))
    assert found["pin"]["disabled"]
    assert "needs a hint set that was proven faster" in found["pin"]["aria-label"]
    assert not found["off"].get("disabled")


def test_pinning_a_withdrawn_class_repeats_why_it_was_withdrawn(store):
    record = record_of(store, fake.WITHDRAWN)
    confirm = buttons(steering_switch.switch(record, None, "list"))["pin"]["id"]["confirm"]
    assert record.reason in confirm


def test_a_command_on_its_way_locks_the_switch_and_its_refusal_is_shown_for_a_while(store):
    record = record_of(store, fake.EXPLORING)
    payload = {
        "fingerprint": record.key.fingerprint,
        "search_path": record.key.search_path,
        "mode": "pin",
    }
    number = store.submit(make_command("steer", payload, [], "alice@dashboard"))
    waiting = steering_switch.newest_commands(view(store))[record.key]
    assert all(
        b["disabled"] for b in buttons(steering_switch.switch(record, waiting, "l")).values()
    )
    assert "pin: queued" in text_of(steering_switch.answer(waiting, view(store)))
    store.work()
    refused = steering_switch.newest_commands(view(store))[record.key]
    assert refused.state is CommandState.REFUSED
    shown = text_of(steering_switch.answer(refused, view(store)))
    assert "pin: refused" in shown
    assert store.command(number).result in shown
    assert not buttons(steering_switch.switch(record, refused, "list"))["off"].get("disabled")
    later = replace(view(store), now=refused.finished_at + timedelta(hours=1))
    assert steering_switch.answer(refused, later) is None


def test_the_details_show_plans_settings_and_where_the_class_is_seen(store):
    chosen = words.class_id(fake.PINNED)
    text = text_of(QUERIES.parts["queries-detail.children"](view(store, queries_selected=chosen)))
    evidence = record_of(store, fake.PINNED).evidence
    for shown in (evidence.default_plan, evidence.steered_plan):
        assert json.dumps(shown, ensure_ascii=False)[1:-1] in text
    assert "SET enable_nestloop = 'off';\\nSET work_mem = '64MB';" in text
    assert record_of(store, fake.PINNED).query_keys[0] in text
    assert evidence.verified_at.strftime("%d %b %Y %H:%M:%S UTC+00:00") in text


@pytest.mark.parametrize("state", [SteeringState.WAITING, SteeringState.REFUSED])
def test_the_details_of_a_class_without_evidence_say_so(store, state):
    record = next(r for r in store.steered_classes() if r.state is state)
    chosen = words.class_id(record.key)
    text = text_of(steering_detail.detail(view(store, queries_selected=chosen), {}))
    assert "Nothing was proven faster" in text
    assert "Not yet seen in pg_stat_statements" in text
    assert "Steered plan" not in text


def test_a_class_that_is_gone_says_so(store):
    assert "No such class" in text_of(
        steering_detail.detail(view(store, queries_selected="0 public"), {})
    )


def test_events_of_steering_are_on_the_safety_page(store):
    safety = next(p for p in PAGES if p.slug == "safety")
    text = text_of(safety.parts["safety-events.children"](view(store)))
    assert "hint_set_served" in text
    assert "hint_set_withdrawn" in text
