"""Every part of every page, built over an in-memory store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

import pytest

import dashboard
from backend.config import Settings
from backend.domain.modes import CommandKind, TrialKind
from dashboard import layouts, trial_table
from dashboard.format import Viewer
from dashboard.live import View, changed, digest
from dashboard.pages import PAGES
from dashboard.pages.knobs import is_changed
from dashboard.services import QualityFloors
from dashboard.trial_table import interval_bar, interval_text
from tests.dashboard.fake_store import HOSTILE, FakeStore
from tests.dashboard.parts import text_of, view

PARTS = [(page, part) for page in PAGES for part in page.parts]
IDS = [part for _page, part in PARTS]


@pytest.mark.parametrize(("page", "part"), PARTS, ids=IDS)
@pytest.mark.parametrize("empty", [False, True], ids=["full", "empty"])
@pytest.mark.parametrize(
    "viewer", [Viewer(), Viewer(dark=True, narrow=True)], ids=["wide", "narrow"]
)
def test_every_part_is_built(page, part, empty, viewer):
    value = page.parts[part](view(FakeStore(empty=empty), viewer))
    assert digest(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.slug)
def test_every_part_of_a_page_is_in_its_frame(page):
    held = text_of(page.frame())
    ids = [part.rsplit(".", 1)[0] for part in page.parts] + [i for i, _ in page.choices]
    for component_id in ids:
        assert f'"id": "{component_id}"' in held, component_id


def components(value: object) -> Iterator[dict]:
    """Every component of a page, as the browser gets it."""
    if isinstance(value, dict):
        if "namespace" in value:
            yield value
        yield from (c for item in value.values() for c in components(item))
    elif isinstance(value, list):
        yield from (c for item in value for c in components(item))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.slug)
def test_every_list_to_choose_from_has_a_label(page):
    found = list(components(json.loads(text_of(page.frame()))))
    labelled = {c["props"].get("htmlFor") for c in found if c["type"] == "Label"}
    chosen = {c["props"]["id"] for c in found if c["type"] == "Select"}
    assert chosen - labelled == set()


def test_the_floors_of_quality_are_those_of_the_settings():
    defaults = Settings()
    assert QualityFloors() == QualityFloors(
        training=defaults.level0.knob.quality_floor, trial=defaults.level1.min_quality
    )


def test_the_learning_page_counts_what_is_below_the_floor_that_is_set(store):
    tiles = next(p for p in PAGES if p.slug == "learning").parts["learning-tiles.children"]
    low = sum(w.quality < 0.4 for w in store.windows(limit=1000))
    assert low > 0
    seen = View(store, Viewer(), datetime.now(timezone.utc), {}, QualityFloors(0.4, 0.4))
    assert f"{low} of 310 windows are below 0.4" in text_of(tiles(seen))
    assert "0 of 310 windows are below 0.2" in text_of(tiles(view(store)))


def test_every_kind_of_trial_and_command_is_told_in_words():
    assert set(trial_table.KIND_MEANINGS) == set(TrialKind)
    assert set(layouts.COMMAND_NAMES) == set(CommandKind)


def test_a_probe_has_no_interval(store):
    promotion = next(t for t in store.trials() if t.kind is TrialKind.PROMOTION and t.blocks > 1)
    probe = replace(promotion, kind=TrialKind.PROBE, ci_low=promotion.effect, blocks=1)
    probe = replace(probe, ci_high=probe.effect)
    assert "one block, no interval" in text_of(interval_bar(probe, 0.1))
    assert " to " in text_of(interval_bar(promotion, 0.1))
    assert interval_text(replace(promotion, ci_low=float("nan"))) is None


def test_what_the_server_worked_out_itself_is_not_changed(store):
    knob = replace(store.knob_statuses()[0], default=-1, value=512, source="override")
    assert not is_changed(knob)
    assert is_changed(replace(knob, source="configuration file"))


def test_usual_rollbacks_are_not_shown_as_a_limit_that_is_passed(store):
    limits = next(p for p in PAGES if p.slug == "safety").parts["safety-limits.children"]
    store.beat(limits={"max_error_rate": 0.02, "cpu_limit_percent": 98.0})
    last = store._windows[-1]
    store._windows[-1] = replace(last, gauges={**last.gauges, "rollback_ratio": 0.05})
    assert "strong bad" not in text_of(limits(view(store)))
    store._windows[-1] = replace(last, gauges={**last.gauges, "host_cpu_percent": 99.0})
    assert "strong bad" in text_of(limits(view(store)))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.slug)
def test_an_unreadable_store_shows_the_reason_in_place(page):
    store = FakeStore()
    store.failure = "disk I/O error"
    values, _digests = changed(page.parts, view(store), {})
    texts = [
        text_of(v) for part, v in zip(page.parts, values, strict=True) if part.endswith(".children")
    ]
    assert any("disk I/O error" in text for text in texts)


def test_only_what_changed_is_sent(store):
    page = next(p for p in PAGES if p.slug == "overview")
    now = datetime.now(timezone.utc)
    first, held = changed(page.parts, View(store, Viewer(), now), {})
    assert all(v is not dashboard.app.dash.no_update for v in first)
    again, _ = changed(page.parts, View(store, Viewer(), now), held)
    assert all(v is dashboard.app.dash.no_update for v in again)
    store.beat(activity="something new")
    third, _ = changed(page.parts, View(store, Viewer(), now), held)
    sent = [
        p for p, v in zip(page.parts, third, strict=True) if v is not dashboard.app.dash.no_update
    ]
    assert sent == ["overview-activity.children"]


def test_hostile_text_stays_text(store):
    for page in PAGES:
        for part, builder in page.parts.items():
            value = text_of(builder(view(store)))
            for name in ("dangerously_allow_html", "dangerouslySetInnerHTML", '"Markdown"'):
                assert name not in value, part
    queries = next(p for p in PAGES if p.slug == "queries")
    assert json.dumps(HOSTILE)[1:-1] in text_of(
        queries.parts["queries-classes.children"](view(store))
    )
