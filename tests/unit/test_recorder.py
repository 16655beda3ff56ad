"""The recorder: windows as stored records, query texts learnt once, the present index."""

from __future__ import annotations

import pytest

from backend.domain.clock import ManualClock
from backend.domain.load import SampleQuality
from backend.domain.modes import Arm, Phase
from backend.domain.records import QueryClassRecord, WindowRecord
from backend.recorder import RECENT_WINDOWS, TOP_CLASSES, Recorder
from backend.sample_filter import IndexChain, Reference
from tests.windows import START, key, window

GOOD = SampleQuality(0.9, ("a reason",), {"load": 0.9})


class Store:
    def __init__(self):
        self.windows: list[WindowRecord] = []
        self.classes: list[QueryClassRecord] = []

    def add_window(self, record):
        self.windows.append(record)
        return len(self.windows)

    def add_query_classes(self, classes):
        self.classes.extend(classes)


class Target:
    def __init__(self):
        self.asked: list[list] = []
        self.unknown: set = set()

    def query_texts(self, keys):
        self.asked.append(list(keys))
        return {k: f"SELECT {k.queryid}" for k in keys if k not in self.unknown}


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def target():
    return Target()


@pytest.fixture
def recorder(store, target):
    return Recorder(store, target, ManualClock(START))


BASE = window({1: (100, 2.0), 2: (10, 50.0)})
CHAIN = IndexChain(Reference.from_windows([BASE]), 0.8)


def _record(recorder, found, **changes):
    given = {"phase": Phase.LEARNING, "config": {"work_mem": 4096}, "chain": CHAIN, **changes}
    recorder.record(found, GOOD, **given)


def test_a_window_is_stored_with_its_published_index(recorder, store):
    found = window(
        {1: (100, 1.0), 2: (10, 25.0)}, rates={"wal_bytes": 5.0}, gauges={"connections_active": 2}
    )
    _record(recorder, found, arm=Arm.CANDIDATE, trial_id=4, deployed=False)
    (record,) = store.windows
    assert (record.started_at, record.ended_at, record.duration_s) == (
        found.started_at, found.ended_at, 10,
    )  # fmt: skip
    assert record.index == pytest.approx(0.8 * 0.5)
    assert record.coverage == pytest.approx(1.0)
    assert (record.quality, record.quality_reasons) == (0.9, ("a reason",))
    assert (record.calls_per_s, record.mean_ms) == (11, pytest.approx(350 / 110))
    assert (record.phase, record.arm, record.trial_id) == (Phase.LEARNING, Arm.CANDIDATE, 4)
    assert record.config == {"work_mem": 4096}
    assert record.rates == {"wal_bytes": 5.0}
    assert record.gauges == {"connections_active": 2}
    # The classes that cost the most time come first.
    assert [q.key for q in record.queries] == [str(key(2)), str(key(1))]
    assert record.queries[0].mean_ms == pytest.approx(25.0)


def test_before_the_baseline_there_is_no_index(recorder, store):
    _record(recorder, BASE, chain=None)
    assert store.windows[0].index is None
    assert store.windows[0].coverage == 0
    assert recorder.present_index is None


def test_an_empty_window_is_stored_too(recorder, store):
    _record(recorder, window({}))
    record = store.windows[0]
    assert (record.index, record.mean_ms, record.calls_per_s, record.queries) == (None, None, 0, ())


def test_only_the_most_expensive_classes_are_stored(recorder, store):
    many = window({n: (10, float(n + 1)) for n in range(TOP_CLASSES + 20)} | {900: (0, 0.0)})
    _record(recorder, many)
    queries = store.windows[0].queries
    assert len(queries) == TOP_CLASSES
    assert queries[0].key == str(key(TOP_CLASSES + 19))
    assert str(key(0)) not in {q.key for q in queries}


def test_classes_that_did_not_run_are_not_stored(recorder, store):
    _record(recorder, window({1: (10, 1.0), 2: (0, 0.0)}))
    assert [q.key for q in store.windows[0].queries] == [str(key(1))]


def test_the_present_index_is_the_mean_of_the_newest_windows(recorder):
    factors = [3.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    for factor in factors:
        _record(recorder, window({1: (100, 2.0 * factor), 2: (10, 50.0 * factor)}))
    expected = 0.8 * sum(factors[-RECENT_WINDOWS:]) / RECENT_WINDOWS
    assert recorder.present_index == pytest.approx(expected)


def test_candidates_do_not_show_in_the_present_index(recorder):
    _record(recorder, BASE)
    _record(recorder, window({1: (100, 200.0), 2: (10, 5000.0)}), deployed=False)
    assert recorder.present_index == pytest.approx(0.8)


def test_after_a_change_the_present_index_begins_anew(recorder):
    _record(recorder, BASE)
    recorder.forget_recent()
    assert recorder.present_index is None


def test_a_text_is_asked_for_once(recorder, store, target):
    _record(recorder, window({1: (10, 1.0), 2: (10, 1.0)}))
    _record(recorder, window({1: (10, 1.0)}))
    _record(recorder, window({2: (10, 1.0), 3: (10, 1.0)}))
    assert [sorted(keys) for keys in target.asked] == [[key(1), key(2)], [key(3)]]
    assert {c.key: c.text for c in store.classes} == {str(key(n)): f"SELECT {n}" for n in (1, 2, 3)}
    assert all(c.first_seen_at == START for c in store.classes)


def test_a_class_without_a_text_does_no_harm(recorder, store, target):
    target.unknown = {key(1)}
    _record(recorder, window({1: (10, 1.0), 2: (10, 1.0)}))
    assert [c.key for c in store.classes] == [str(key(2))]
    assert len(store.windows) == 1
