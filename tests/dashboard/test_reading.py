"""How often pages read the store, and what they remember: the cache, the baseline."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from backend.domain.modes import Phase
from backend.errors import StoreError
from dashboard.baseline import Baseline, BaselineMemory
from dashboard.cache import CachedReader
from dashboard.pages import PAGES, overview
from dashboard.services import Services
from tests.dashboard.conftest import settings
from tests.dashboard.fake_store import FakeStore
from tests.dashboard.parts import text_of, view


def test_the_tiles_do_not_take_another_phase_for_the_baseline(store):
    tiles = next(p for p in PAGES if p.slug == "overview").parts["overview-tiles.children"]
    assert "vs baseline" in text_of(tiles(view(store)))
    store._windows = [w for w in store._windows if w.phase is Phase.OPTIMISED]
    shown = text_of(tiles(view(store)))
    assert "vs baseline" not in shown
    assert "no baseline" in shown


def test_the_baseline_stays_when_newer_windows_have_pushed_it_out(store, monkeypatch):
    parts = next(p for p in PAGES if p.slug == "overview").parts
    kept = [
        text_of(parts[f"overview-{name}.children"](view(store))) for name in ("phases", "tiles")
    ]
    monkeypatch.setattr(overview, "WINDOWS", 50)
    monkeypatch.setattr(overview, "INTERVALS", 100)
    assert {w.phase for w in overview._windows(view(store))} == {Phase.OPTIMISED}
    phases, tiles = (
        text_of(parts[f"overview-{name}.children"](view(store))) for name in ("phases", "tiles")
    )
    assert '"baseline"' in phases
    assert "p95 (client)" in phases
    assert "vs baseline" in tiles
    assert [text.count("vs baseline") for text in kept] == [0, tiles.count("vs baseline")]


def test_the_baseline_is_read_once_a_run():
    store = FakeStore()
    memory = BaselineMemory(store)
    assert memory.recall(None) == Baseline()
    assert memory.recall(replace(store.status(), phase=Phase.BASELINE)) == Baseline()
    status = store.status()
    found = memory.recall(status)
    assert {w.phase for w in found.windows} == {Phase.BASELINE}
    assert found.windows[0].started_at <= found.intervals[0].started_at
    assert found.intervals[-1].ended_at <= found.windows[-1].ended_at
    reads = store.reads
    assert memory.recall(status) is found
    assert store.reads == reads
    later = replace(status, started_at=status.started_at + timedelta(days=1))
    assert memory.recall(later) == Baseline()


def test_the_store_is_read_once_a_tick_however_many_ask():
    store, now_s = FakeStore(), [0.0]
    reader = CachedReader(store, 0.25, clock=lambda: now_s[0])
    for _ in range(20):
        reader.status()
        reader.trials()
    assert store.reads == 2
    now_s[0] = 0.3
    reader.status()
    assert store.reads == 3
    reader.forget()
    reader.status()
    assert store.reads == 4


def test_long_lists_are_read_again_only_when_a_window_is_new():
    store, now_s = FakeStore(), [0.0]
    reader = CachedReader(store, 0.25, clock=lambda: now_s[0])
    before = reader.query_windows(limit=100)
    now_s[0] = 1.0
    assert reader.query_windows(limit=100) is before
    store._windows.append(replace(store._windows[-1], id=9999))
    now_s[0] = 2.0
    assert reader.query_windows(limit=100)[-1].id == 9999


def test_odd_failures_arrive_as_store_errors():
    class Broken(FakeStore):
        def status(self):
            raise OSError("unplugged\nsecret second line")

    reader = CachedReader(Broken(empty=True), 0.25)
    with pytest.raises(StoreError, match="unplugged") as caught:
        reader.status()
    assert "second line" not in str(caught.value)


def test_a_page_is_never_older_than_the_interval(store):
    services = Services(store, store, settings(refresh_interval_s=2.0))
    assert services.tick_ms / 1000 + services.reader._ttl_s < 2.0
