"""Query steering in words and numbers: hint sets, standing, counts, the time saved."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from backend.domain.modes import Mode
from backend.domain.steering import (
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from dashboard import steering_head, steering_table
from dashboard import steering_words as words
from dashboard.steering_numbers import LIVES_S, ServiceMemory, class_counts
from tests.dashboard import fake_steering as fake
from tests.dashboard.fake_steering import buckets_of, record_of
from tests.dashboard.fake_store import FakeStore
from tests.dashboard.parts import text_of, view

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)


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
