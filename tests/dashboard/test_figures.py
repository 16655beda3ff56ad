"""Records become figures that Plotly accepts and that say what they should."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go
import pytest

from backend.domain.modes import Arm, Phase
from dashboard import figures, figures_learning, figures_trials
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
    trial = run.trials()[3] if run.trials() else None
    return {
        "index": figures.index_figure(windows, run.policy_versions(), viewer),
        "latency": figures.latency_figure(intervals, windows, viewer),
        "means": figures.latency_figure([], windows, viewer),
        "throughput": figures.throughput_figure(intervals, windows, viewer),
        "calls": figures.throughput_figure([], windows, viewer),
        "cpu": figures.resource_figure(windows, (names.CPU, names.MEMORY), viewer, "cpu"),
        "disk": figures.resource_figure(windows, (names.DISK_READ,), viewer, "disk"),
        "blocks": figures_trials.blocks_figure(trial, viewer),
        "arms": figures_trials.trial_windows_figure(run.windows(trial_id=4, limit=100), viewer),
        "queries": figures_trials.query_trend_figure(
            queries, [s.key for s in query_stats(queries)], {}, viewer
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


def test_the_index_figure_shades_phases_and_marks_promotions(run):
    figure = figures.index_figure(run.windows(limit=1000), run.policy_versions(), Viewer())
    bands = [s for s in figure["layout"]["shapes"] if s["type"] == "rect"]
    assert len(bands) == len({w.phase for w in run.windows(limit=1000)})
    promotions = next(t for t in figure["data"] if t["name"] == "promotion")
    assert len(promotions["x"]) == len(run.policy_versions()) - 1
    deployed = next(t for t in figure["data"] if t["name"] == "deployed")
    tried = next(t for t in figure["data"] if t["name"] == "candidate in a trial")
    candidates = sum(
        w.arm is Arm.CANDIDATE and w.index is not None for w in run.windows(limit=1000)
    )
    assert len(tried["x"]) == candidates > 0
    known = sum(w.index is not None for w in run.windows(limit=1000))
    assert len(deployed["x"]) == known - candidates


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
    client = figures.latency_figure(run.client_intervals(), run.windows(), viewer)
    assert {t["name"] for t in client["data"]} == {"p99", "p95", "mean", "p50 (median)"}
    server = figures.latency_figure([], run.windows(), viewer)
    assert [t["name"] for t in server["data"]] == ["mean (pg_stat_statements)"]


def test_thinning_keeps_the_newest_interval(run):
    rows = run.client_intervals()
    few = figures.smooth(rows, 50)
    assert len(few) <= 50
    assert few[-1] is rows[-1]


def test_phases_are_summarised_without_candidates(run):
    rows = summarise(run.windows(limit=1000), run.client_intervals())
    assert [r.phase for r in rows] == [Phase.BASELINE, Phase.LEARNING, Phase.OPTIMISED]
    assert rows[0].index == pytest.approx(1.0, abs=0.02)
    assert rows[-1].index is not None
    assert rows[-1].index < 0.8
    spoilt = [
        replace(w, index=9.0) if w.arm is Arm.CANDIDATE else w for w in run.windows(limit=1000)
    ]
    assert summarise(spoilt, [])[1].index == rows[1].index


def test_a_baseline_without_an_index_is_the_reference(run):
    rows = [
        replace(w, index=None) if w.phase is Phase.BASELINE else w for w in run.windows(limit=1000)
    ]
    assert summarise(rows, [])[0].index == 1.0


def test_query_classes_are_ordered_by_total_time_and_compared_with_the_start(run):
    stats = query_stats(run.query_windows(limit=1000))
    assert [s.total_ms for s in stats] == sorted((s.total_ms for s in stats), reverse=True)
    assert sum(s.share for s in stats) == pytest.approx(1.0)
    assert all(s.change is not None and -0.4 < s.change < -0.15 for s in stats)
    few = query_stats(run.query_windows(limit=10))
    assert all(s.change is None for s in few)
    assert query_stats([]) == []


def test_names_are_not_markup(run):
    hostile = figures.line(Viewer(), [], [], "<b>&", "#000", str)
    assert hostile["name"] == "&lt;b&gt;&amp;"


def test_a_sparkline_is_a_picture_and_nothing_without_two_points():
    assert figures.sparkline([1.0, None, 2.0], "#000", "#fff").startswith("data:image/svg+xml,")
    assert figures.sparkline([1.0, None], "#000", "#fff") == ""


def test_rolling_mean():
    assert figures_learning.rolling_mean([1.0, 3.0, 5.0], over=2) == [1.0, 2.0, 4.0]
