"""Query steering on the pages: words, numbers, the strip, the table, the switch, the details."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from plotly.utils import PlotlyJSONEncoder

from backend.domain.modes import CommandState, Mode
from backend.domain.steering import (
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from dashboard import steering_detail, steering_head, steering_switch, steering_table
from dashboard import steering_words as words
from dashboard.format import Viewer
from dashboard.live import View
from dashboard.operator_commands import make_command
from dashboard.pages import PAGES
from dashboard.steering_numbers import LIVES_S, ServiceMemory, class_counts
from tests.dashboard import fake_steering as fake
from tests.dashboard.fake_steering import HOSTILE, buckets_of
from tests.dashboard.fake_store import FakeStore

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)
QUERIES = next(p for p in PAGES if p.slug == "queries")


def view(store: FakeStore, **choices: object) -> View:
    return View(store, Viewer(), store.now, {k.replace("_", "-"): v for k, v in choices.items()})


def text_of(value: object) -> str:
    return json.dumps(value, cls=PlotlyJSONEncoder, ensure_ascii=False)


def record_of(store: FakeStore, key: object) -> SteeredClassRecord:
    return next(r for r in store.steered_classes() if r.key == key)


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


# -- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"enable_nestloop": "off"}, "no nested loops"),
        ({"enable_nestloop": "off", "work_mem": "64MB"}, "no nested loops, work_mem 64MB"),
        ({"enable_partitionwise_join": "on"}, "partitionwise joins"),
        ({"max_parallel_workers_per_gather": "0"}, "no parallel workers"),
        ({"max_parallel_workers_per_gather": "2"}, "max_parallel_workers_per_gather 2"),
        ({"jit": "off"}, "no compilation"),
    ],
)
def test_hint_sets_are_told_in_words(settings, text):
    assert words.hint_words(settings) == text


def test_a_long_hint_set_is_counted_and_told_in_the_title(store):
    settings = {
        "max_parallel_workers_per_gather": "2",
        "parallel_setup_cost": "100",
        "parallel_tuple_cost": "0.01",
        "random_page_cost": "1.1",
    }
    record = record_of(store, fake.STEERED)
    record = replace(record, evidence=replace(record.evidence, settings=settings))
    text = text_of(steering_table.state_cell(record, Mode.AUTO))
    assert '"4 settings"' in text
    assert "SET parallel_setup_cost = '100';" in text
    assert words.hint_summary({"enable_nestloop": "off"}) == "no nested loops"


def test_a_hint_set_is_sql_to_copy_whatever_the_store_holds():
    settings = {"work_mem": "64MB", 'a"; DROP TABLE x; --': "1'; DROP TABLE x; --"}
    assert words.set_lines(settings) == (
        "SET work_mem = '64MB';\nSET \"a\"\"; DROP TABLE x; --\" = '1''; DROP TABLE x; --';"
    )


@pytest.mark.parametrize(
    ("key", "mode", "word"),
    [
        (fake.STEERED, Mode.AUTO, "steered"),
        (fake.STEERED, Mode.OBSERVE, "proven"),
        (fake.STEERED, None, "proven"),
        (fake.PINNED, Mode.AUTO, "pinned"),
        (fake.PINNED, Mode.OBSERVE, "pinned"),
        (fake.WITHDRAWN, Mode.AUTO, "withdrawn"),
        (fake.SWITCHED_OFF, Mode.AUTO, "off"),
        (fake.EXPLORING, Mode.AUTO, "exploring"),
        (fake.WAITING, Mode.AUTO, "waiting"),
        (fake.BEST, Mode.AUTO, "default is best"),
        (fake.REFUSED, Mode.AUTO, "not tried"),
    ],
)
def test_where_a_class_stands(store, key, mode, word):
    assert words.standing(record_of(store, key), mode).word == word


def test_a_class_that_is_only_proven_says_why_it_is_not_steered(store):
    record = record_of(store, fake.STEERED)
    assert "mode observe" in words.standing(record, Mode.OBSERVE).reason
    assert "not running" in words.standing(record, None).reason


def test_a_pinned_class_that_no_longer_pays_is_a_warning(store):
    record = replace(record_of(store, fake.WITHDRAWN), mode=SteeringMode.PIN)
    stands = words.standing(record, Mode.AUTO)
    assert (stands.word, stands.tone) == ("pinned", "warn")
    assert record.reason in stands.reason


# -- numbers ----------------------------------------------------------------------------------


def test_classes_are_counted(store):
    classes = store.steered_classes()
    counts = class_counts(classes, store.steering_status())
    assert (counts.known, counts.explored, counts.steered, counts.withdrawn) == (8, 5, 2, 1)
    assert class_counts(classes, None).steered == 0


def test_fewer_classes_may_be_steered_than_could_be(store):
    assert '"now"' in text_of(steering_head.head(view(store)))
    store._steering_status = replace(store.steering_status(), served=0)
    assert '"now, of 2"' in text_of(steering_head.head(view(store)))


def timing(arm: str, latencies_s: list[float], minute: int) -> ServiceTimingRecord:
    started = NOW + timedelta(minutes=minute)
    return ServiceTimingRecord(
        started_at=started,
        ended_at=started + timedelta(minutes=1),
        key=fake.STEERED,
        hint_set="no_nestloop",
        arm=arm,
        executions=len(latencies_s),
        total_s=sum(latencies_s),
        buckets=buckets_of(latencies_s),
    )


def service(steered_s: float, minutes: int, default_s: float = 0.2) -> ServiceMemory:
    store = FakeStore(empty=True)
    verified = fake.evidence(NOW + timedelta(minutes=31), "no_nestloop", {}, 200.0, 100.0)
    store._steered = [
        SteeredClassRecord(fake.STEERED, "SELECT", SteeringState.VERIFIED, NOW, evidence=verified)
    ]
    for minute in range(minutes):
        store._timings.append(timing("default", [default_s] * 50, minute))
        store._timings.append(timing("steered", [steered_s] * 100, minute))
    return ServiceMemory(store)


def test_the_time_saved_is_that_of_an_hour_and_bounded_by_what_is_proven():
    saved = service(0.1, minutes=10).recall().saved
    # 100 executions a minute, each 0.1 s shorter: 600 s an hour.
    assert saved.estimate_s == pytest.approx(600, rel=0.01)
    assert 300 < saved.at_least_s < saved.estimate_s


@pytest.mark.parametrize(
    ("steered_s", "minutes"), [(0.2, 10), (0.3, 10), (0.1, 4)], ids=["same", "slower", "too short"]
)
def test_no_saved_time_is_told_that_is_not_proven(steered_s, minutes):
    assert service(steered_s, minutes).recall().saved is None


def test_timings_are_read_once_in_a_while_however_many_ask(store):
    now_s = [0.0]
    memory = ServiceMemory(store, clock=lambda: now_s[0])
    first, reads = memory.recall(), store.reads
    assert memory.recall() is first
    assert store.reads == reads
    now_s[0] = LIVES_S
    assert memory.recall() is not first


def test_a_clock_that_was_set_back_hides_no_timings_made_since():
    store, now = FakeStore(empty=True), [NOW]
    ahead = fake.evidence(NOW + timedelta(hours=3), "no_nestloop", {}, 200.0, 100.0)
    store._steered = [
        SteeredClassRecord(fake.STEERED, "SELECT", SteeringState.VERIFIED, NOW, evidence=ahead)
    ]
    store._timings = [timing("steered", [0.1] * 50, -10)]
    memory = ServiceMemory(store, clock=iter(range(0, 1000, 20)).__next__, now=lambda: now[0])
    assert memory.recall().classes == {}
    store._timings.append(timing("steered", [0.1] * 30, 1))
    now[0] = NOW + timedelta(minutes=5)
    assert memory.recall().classes[fake.STEERED].steered.executions == 30
    now[0] = NOW + timedelta(hours=9)
    assert memory.recall().classes[fake.STEERED].steered.executions == 30


# -- the strip --------------------------------------------------------------------------------


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


# -- the table --------------------------------------------------------------------------------


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


# -- the switch -------------------------------------------------------------------------------


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


# -- the details ------------------------------------------------------------------------------


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
