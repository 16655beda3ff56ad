"""Records become figures that Plotly accepts and that say what they should."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go
import pytest

from backend.domain.modes import Arm, Phase, TrialKind
from dashboard import figures, figures_learning, figures_server, figures_trials
from dashboard import metric_names as names
from dashboard.format import Viewer
from dashboard.phases import summarise
from dashboard.query_stats import query_stats
from tests.dashboard.fake_store import FakeStore

VIEWERS = [Viewer(), Viewer(dark=True, narrow=True)]


@pytest.fixture(scope="module")
def run() -> FakeStore:
    return FakeStore()


def every_figure(run: FakeStore, viewer: Viewer) -> dict[str, figures.Figure]:
    windows, queries = run.windows(limit=1000), run.query_windows(limit=300)
    intervals, learning = run.client_intervals(), run.learning()
    trials = run.trials()
    trial = trials[3] if trials else None
    return {
        "index": figures_server.index_figure(windows, trials, run.policy_versions(), viewer),
        "latency": figures_server.latency_figure(intervals, windows, viewer),
        "means": figures_server.latency_figure([], windows, viewer),
        "throughput": figures_server.throughput_figure(intervals, windows, viewer),
        "calls": figures_server.throughput_figure([], windows, viewer),
        "cpu": figures_server.resource_figure(windows, (names.CPU, names.MEMORY), viewer, "cpu"),
        "disk": figures_server.resource_figure(windows, (names.DISK_READ,), viewer, "disk"),
        "blocks": figures_trials.blocks_figure(trial, viewer),
        "arms": figures_trials.trial_windows_figure(
            run.windows(trial_id=4, limit=100), 0.3, viewer
        ),
        "queries": figures_trials.query_trend_figure(
            queries, [s.key for s in query_stats(queries, trials)], {}, viewer
        ),
        "reward": figures_learning.step_figure(
            learning,
            lambda r: r.reward,
            viewer,
            name="r",
            y_title="r",
            revision="r",
            waiting="w",
            smooth=True,
        ),
        "terms": figures_learning.reward_terms_figure(learning, viewer),
        "quality": figures_learning.quality_figure(windows, 0.5, viewer),
    }


@pytest.mark.parametrize("viewer", VIEWERS, ids=["light", "dark"])
def test_plotly_accepts_every_figure_of_a_full_run(run, viewer):
    for name, figure in every_figure(run, viewer).items():
        valid = go.Figure(figure)
        assert len(valid.data) > 0, name
        assert valid.layout.paper_bgcolor == "rgba(0,0,0,0)", name
        assert valid.layout.uirevision, name


@pytest.mark.parametrize("viewer", VIEWERS, ids=["light", "dark"])
def test_an_empty_store_gives_figures_that_say_what_will_come(viewer):
    for name, figure in every_figure(FakeStore(empty=True), viewer).items():
        assert figure["data"] == [], name
        assert figure["layout"]["annotations"][0]["text"], name
        go.Figure(figure)


def index_of(run: FakeStore, **changed: object) -> dict[str, figures.Figure]:
    """The traces of the index figure by name."""
    given = {
        "windows": run.windows(limit=1000),
        "trials": run.trials(),
        "versions": run.policy_versions(),
        "viewer": Viewer(),
    }
    figure = figures_server.index_figure(**{**given, **changed})
    return {trace["name"]: trace for trace in figure["data"]}


def test_the_index_figure_shades_phases_and_marks_promotions(run):
    windows = run.windows(limit=1000)
    figure = figures_server.index_figure(windows, run.trials(), run.policy_versions(), Viewer())
    bands = [s for s in figure["layout"]["shapes"] if s["type"] == "rect"]
    assert len(bands) == len({w.phase for w in windows})
    traces = index_of(run)
    proven = [v for v in run.policy_versions() if v.trial_id is not None]
    assert len(traces["promotion"]["x"]) == len(proven) == 4
    candidates = sum(w.arm is Arm.CANDIDATE and w.index is not None for w in windows)
    assert len(traces["another, in a trial"]["x"]) == candidates > 0
    known = sum(w.index is not None for w in windows)
    assert len(traces["deployed"]["x"]) == known - candidates


def test_in_a_probation_the_candidate_is_drawn_as_what_is_deployed(run):
    trials = [replace(t, kind=TrialKind.PROBATION) if t.id == 4 else t for t in run.trials()]
    mine = [w for w in run.windows(limit=1000) if w.trial_id == 4 and w.index is not None]
    values = index_of(run, trials=trials)["deployed"]["y"]
    assert all((w.index in values) == (w.arm is Arm.CANDIDATE) for w in mine)
    assert {w.arm for w in mine} == {Arm.CANDIDATE, Arm.INCUMBENT}


def test_a_deployed_version_says_what_changed_and_an_undone_one_is_no_promotion(run):
    versions = [v for v in run.policy_versions() if v.id <= 5]
    last = versions[-1]
    undone = replace(
        last,
        id=last.id + 1,
        parent_id=last.id,
        trial_id=None,
        config={k: v for k, v in last.config.items() if k != "max_wal_size"},
    )
    traces = index_of(run, versions=[*versions, undone])
    assert len(traces["promotion"]["x"]) == len(versions) - 1
    steering = replace(undone, id=undone.id + 1, parent_id=undone.id, steering=())
    assert index_of(run, versions=[*versions, undone, steering]) == traces
    assert traces["promotion"]["customdata"][1] == (
        "version 3: effective_io_concurrency, random_page_cost"
    )
    assert traces["change by hand, or undone"]["customdata"] == [
        f"version {undone.id}: max_wal_size"
    ]


def test_rates_of_bytes_have_one_unit_on_the_axis_and_under_the_pointer(run):
    window = replace(run.windows(limit=1)[0], rates={"host_read_bytes": 32.0 * 1024**2})
    figure = figures_server.resource_figure([window], (names.DISK_READ,), Viewer(), "disk")
    (trace,) = figure["data"]
    assert figure["layout"]["yaxis"]["title"]["text"] == "MB/s"
    assert trace["y"] == [32.0]
    assert trace["customdata"] == ["32\u00a0MB/s"]


def test_an_interrupted_phase_is_two_bands(run):
    window = run.windows(limit=1)[0]
    rows = [
        replace(window, phase=p)
        for p in (Phase.BASELINE, Phase.LEARNING, Phase.LEARNING, Phase.BASELINE)
    ]
    assert [s[0] for s in figures.phase_spans(rows)] == [
        Phase.BASELINE,
        Phase.LEARNING,
        Phase.BASELINE,
    ]


def test_percentiles_come_from_the_client_and_means_are_labelled(run):
    viewer = Viewer()
    client = figures_server.latency_figure(run.client_intervals(), run.windows(), viewer)
    assert {t["name"] for t in client["data"]} == {"p99", "p95", "mean", "p50 (median)"}
    server = figures_server.latency_figure([], run.windows(), viewer)
    assert [t["name"] for t in server["data"]] == ["mean (pg_stat_statements)"]


def test_thinning_keeps_the_newest_interval(run):
    rows = run.client_intervals()
    few = figures_server.thinned(rows, 50)
    assert len(few) <= 50
    assert few[-1] is rows[-1]


def test_phases_are_summarised_without_candidates(run):
    rows = summarise(run.windows(limit=1000), run.client_intervals(), run.trials())
    assert [r.phase for r in rows] == [Phase.BASELINE, Phase.LEARNING, Phase.OPTIMISED]
    assert rows[0].index == pytest.approx(1.0, abs=0.02)
    assert rows[-1].index is not None
    assert rows[-1].index < 0.8
    spoilt = [
        replace(w, index=9.0) if w.arm is Arm.CANDIDATE else w for w in run.windows(limit=1000)
    ]
    assert summarise(spoilt, [], run.trials())[1].index == rows[1].index


def test_what_the_clients_saw_of_a_candidate_is_not_the_phases(run):
    windows, intervals = run.windows(limit=1000), run.client_intervals()
    tried = [w for w in windows if w.arm is Arm.CANDIDATE and w.phase is Phase.LEARNING]
    slow = [
        replace(i, p95_ms=1e6)
        if any(w.started_at <= i.started_at < w.ended_at for w in tried)
        else i
        for i in intervals
    ]
    assert sum(i.p95_ms == 1e6 for i in slow) > 10
    shown = summarise(windows, slow, run.trials())[1]
    assert shown.p95_ms == summarise(windows, intervals, run.trials())[1].p95_ms
    everything_slow = [replace(i, p95_ms=1e6) for i in intervals]
    assert summarise(windows, everything_slow, run.trials())[1].p95_ms == 1e6


def test_phases_that_take_turns_do_not_count_each_others_time(run):
    window = run.windows(limit=1)[0]
    length = window.ended_at - window.started_at
    rows = [
        replace(
            window,
            phase=phase,
            arm=None,
            started_at=window.started_at + number * length,
            ended_at=window.ended_at + number * length,
        )
        for number, phase in enumerate((Phase.LEARNING, Phase.OPTIMISED, Phase.LEARNING))
    ]
    lasted = {r.phase: r.duration_s for r in summarise(rows, [], [])}
    assert lasted == {
        Phase.LEARNING: pytest.approx(2 * length.total_seconds()),
        Phase.OPTIMISED: pytest.approx(length.total_seconds()),
    }


def test_a_baseline_without_an_index_is_the_reference(run):
    rows = [
        replace(w, index=None) if w.phase is Phase.BASELINE else w for w in run.windows(limit=1000)
    ]
    assert summarise(rows, [], run.trials())[0].index == 1.0


def test_query_classes_are_ordered_by_total_time_and_compared_with_the_start(run):
    stats = query_stats(run.query_windows(limit=1000), run.trials())
    assert [s.total_ms for s in stats] == sorted((s.total_ms for s in stats), reverse=True)
    assert sum(s.share for s in stats) == pytest.approx(1.0)
    assert all(s.change is not None and -0.4 < s.change < -0.15 for s in stats)
    few = query_stats(run.query_windows(limit=10), run.trials())
    assert all(s.change is None for s in few)
    assert query_stats([], []) == []


def test_names_are_not_markup(run):
    hostile = figures.line(Viewer(), [], [], "<b>&", "#000", str)
    assert hostile["name"] == "&lt;b&gt;&amp;"


def test_a_sparkline_is_a_picture_and_nothing_without_two_points():
    assert figures.sparkline([1.0, None, 2.0], "#000", "#fff").startswith("data:image/svg+xml,")
    assert figures.sparkline([1.0, None], "#000", "#fff") == ""


def test_rolling_mean():
    assert figures_learning.rolling_mean([1.0, 3.0, 5.0], over=2) == [1.0, 2.0, 4.0]
