"""Routes, the JSON API, the refresh of parts, error and empty states."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from plotly.utils import PlotlyJSONEncoder

import dashboard
from backend.config import Settings
from backend.domain.modes import ChangeState, CommandKind, CommandState, Phase, TrialKind
from backend.errors import StoreError
from dashboard import callbacks, layouts, trial_table
from dashboard.baseline import Baseline, BaselineMemory
from dashboard.cache import CachedReader
from dashboard.format import Viewer
from dashboard.live import View, changed, digest
from dashboard.operator_commands import make_command
from dashboard.pages import PAGES, overview
from dashboard.pages.knobs import batch_of, batches, is_changed
from dashboard.services import QualityFloors, Services
from dashboard.trial_table import interval_bar, interval_text
from tests.dashboard.conftest import Client, settings
from tests.dashboard.fake_store import HOSTILE, FakeStore

PARTS = [(page, part) for page in PAGES for part in page.parts]
IDS = [part for _page, part in PARTS]


def view(store: FakeStore, viewer: Viewer | None = None, **choices: object) -> View:
    return View(
        store,
        viewer or Viewer(),
        datetime.now(timezone.utc),
        {k.replace("_", "-"): v for k, v in choices.items()},
    )


def text_of(value: object) -> str:
    return json.dumps(value, cls=PlotlyJSONEncoder)


# -- health, status, metrics ------------------------------------------------------------------


def test_healthz_tells_the_state_of_the_run(store, client):
    store.beat()
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "ok",
        "mode": "auto",
        "phase": "optimised",
        "trials": store.status().trials,
        "index": store.status().index,
    }


def test_healthz_before_the_tuner_wrote_anything():
    store = FakeStore(empty=True)
    answer = Client(dashboard.create_app(store, store, settings())).get("/healthz")
    assert answer.status_code == 200
    assert answer.json == {
        "status": "starting",
        "mode": None,
        "phase": None,
        "trials": 0,
        "index": None,
    }


def test_healthz_says_when_the_tuner_is_silent(store, client):
    store._status = replace(store.status(), at=datetime.now(timezone.utc) - timedelta(seconds=11))
    assert client.get("/healthz").json["status"] == "stale"


def test_an_unreadable_store_is_503_with_the_reason(store):
    client = Client(dashboard.create_app(store, store, settings(refresh_interval_s=0.001)))
    store.failure = "disk I/O error"
    for path in ("/healthz", "/api/status", "/metrics", "/plain"):
        answer = client.get(path)
        assert answer.status_code == 503, path
        assert "disk I/O error" in answer.json["reason"]
    refused = client.post("/api/commands", {"kind": "pause", "payload": {}})
    assert refused.status_code == 503


def test_metrics_are_prometheus_text(store, client):
    text = client.get("/metrics").text
    assert f"autopilot_latency_index {store.status().index}" in text
    assert 'autopilot_trials{verdict="accept"} 12.0' in text
    assert 'autopilot_mode{mode="auto"} 1.0' in text
    assert "autopilot_up 1.0" in text


def test_metrics_count_the_query_classes_that_steering_knows(store, client):
    text = client.get("/metrics").text
    assert "autopilot_steered_query_classes 2.0" in text
    assert 'autopilot_query_classes{state="verified"} 3.0' in text
    assert 'autopilot_query_classes{state="withdrawn"} 1.0' in text
    store._steering_status = None
    assert "autopilot_steered_query_classes 0.0" in client.get("/metrics").text


def test_metrics_say_when_the_tuner_is_silent(store, client):
    store._status = replace(store.status(), at=datetime.now(timezone.utc) - timedelta(seconds=11))
    assert "autopilot_up 0.0" in client.get("/metrics").text


def test_status_is_json(store, client):
    body = client.get("/api/status").json
    assert body["phase"] == "optimised"
    assert body["limits"]["cpu_limit_percent"] == 98.0
    datetime.fromisoformat(body["started_at"])
    assert body["steering"]["classes"] == {
        "known": 8,
        "explored": 5,
        "steered": 2,
        "withdrawn": 1,
    }
    assert body["steering"]["explorer"]["role"] == "autopilot_explorer"


def test_status_before_the_tuner_wrote_anything_is_null():
    store = FakeStore(empty=True)
    client = Client(dashboard.create_app(store, store, settings()))
    assert client.get("/api/status").json is None


# -- commands ---------------------------------------------------------------------------------


def test_a_command_is_queued_and_can_be_followed(store, client):
    answer = client.post(
        "/api/commands", {"kind": "set_knobs", "payload": {"knobs": {"work_mem": 8192}}}
    )
    assert answer.status_code == 202
    number = answer.json["id"]
    assert client.get(f"/api/commands/{number}").json["state"] == "queued"
    store.work()
    done = client.get(f"/api/commands/{number}").json
    assert done["state"] == "done"
    assert done["actor"] == "human@api"
    assert {k.name: k.value for k in store.knob_statuses()}["work_mem"] == 8192


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        ({"kind": "set_knobs", "payload": {"knobs": {"fsync": False}}}, 422, "fsync"),
        ({"kind": "set_knobs", "payload": {"knobs": {"work_mem": 1}}}, 422, "64"),
        ({"kind": "shutdown", "payload": {}}, 422, "shutdown"),
        ({"kind": "pause", "payload": {}, "actor": "root"}, 400, "actor"),
        (["pause"], 400, "JSON object"),
    ],
)
def test_bad_commands_are_refused_with_the_reason(store, client, body, code, word):
    answer = client.post("/api/commands", body)
    assert answer.status_code == code
    assert word in answer.json["reason"]
    assert store.commands() == []


def test_an_unknown_command_is_404(client):
    assert client.get("/api/commands/12345").status_code == 404


def test_a_refusal_by_the_tuner_keeps_its_reason(store, client):
    number = client.post(
        "/api/commands", {"kind": "set_knobs", "payload": {"knobs": {"work_mem": 524288}}}
    ).json["id"]
    store.work()
    answer = client.get(f"/api/commands/{number}").json
    assert answer["state"] == CommandState.REFUSED.value
    assert "memory budget" in answer["result"]


# -- pages ------------------------------------------------------------------------------------


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


def test_the_plain_page_escapes_and_tells_the_essentials(store, client):
    store._status = replace(store.status(), activity=HOSTILE)
    html = client.get("/plain").text
    assert "<script>window" not in html
    assert "&lt;script&gt;" in html
    assert "work_mem" in html
    assert "optimised" in html


def test_an_error_page_for_people_and_json_for_scripts(client):
    page = client.get("/vendor/icons/none.svg", Accept="text/html")
    assert page.status_code == 404
    assert "<h1>404</h1>" in page.text
    assert client.get("/vendor/icons/none.svg").json["status"] == "error"


def test_the_shell_has_all_pages_and_the_theme_before_the_first_paint(client):
    html = client.get("/decisions").text
    assert html.index("/assets/js/theme.js") < html.index("/vendor/bootstrap.min.css")
    assert "/assets/css/app.css" in html
    assert "noscript" in html
    layout = text_of(client.get("/_dash-layout").json)
    for page in PAGES:
        assert f'"href": "{page.path}"' in layout


# -- states of the shell ----------------------------------------------------------------------


def test_banners(store):
    assert "starting" in text_of(layouts.banner(None, False, Viewer()))
    status = store.status()
    assert layouts.banner(status, False, Viewer()) is None
    assert "does not answer since" in text_of(layouts.banner(status, True, Viewer()))
    finished = replace(status, phase=Phase.FINISHED)
    assert layouts.banner(finished, True, Viewer()) is None
    frozen = layouts.banners(replace(status, frozen=True), False, Viewer())
    assert "Frozen" in text_of(frozen)
    assert "no space" in text_of(layouts.banner(replace(status, fault="no space"), False, Viewer()))


def test_batches_are_newest_first_and_kept_together(store):
    grouped = batches(store.changes())
    assert [b[0].batch_id for b in grouped] == ["trial-16", "trial-12", "trial-8", "trial-4"]
    assert [len(b) for b in grouped] == [1, 1, 2, 1]


def test_the_changes_of_a_command_are_found_and_an_undo_is_not_taken_for_them(store):
    number = store.submit(
        make_command(
            "set_knobs", {"knobs": {"work_mem": 8192}}, store.knob_statuses(), "alice@dashboard"
        )
    )
    command = store.command(number)
    assert batch_of(command, store.changes()) == []
    store.work()
    made = batch_of(command, store.changes())
    assert [(c.knob, c.after_value) for c in made] == [("work_mem", 8192)]
    store.submit(make_command("roll_back", {"batch_id": made[0].batch_id}, [], "alice@dashboard"))
    store.work()
    assert [c.state for c in batch_of(command, store.changes())] == [ChangeState.ROLLED_BACK]


def test_notes_of_success_leave_and_refusals_stay(store):
    number = store.submit(make_command("pause", {}, [], "alice@dashboard"))
    store.finish(number, CommandState.DONE, "done")
    record = store.command(number)
    assert not callbacks._is_over(record)
    late = replace(record, finished_at=datetime.now(timezone.utc) - timedelta(minutes=1))
    assert callbacks._is_over(late)
    assert not callbacks._is_over(replace(late, state=CommandState.REFUSED))


# -- reading the store ------------------------------------------------------------------------


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


def test_no_third_party_file_is_ours():
    names = [p.name for p in dashboard.app.paths.static_folder().rglob("*") if p.is_file()]
    assert not [n for n in names if re.search(r"bootstrap|plotly|\.min\.", n)]
