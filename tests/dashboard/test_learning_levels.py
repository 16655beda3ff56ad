"""The three levels of the Learning page: updates and their outcomes, genomes, empty states."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import plotly.graph_objects as go
import pytest
from plotly.utils import PlotlyJSONEncoder

from backend.domain.policies import (
    EvolutionRecord,
    GenomeRecord,
    PolicyUpdateRecord,
    PolicyVersionRecord,
)
from dashboard import figures_policies as figs
from dashboard import learning_level1, learning_level2, learning_levels
from dashboard.format import Viewer
from dashboard.learning_genes import differing, title_of
from dashboard.learning_outcomes import Outcome, outcomes
from dashboard.live import View
from tests.dashboard.fake_steering import HOSTILE
from tests.dashboard.fake_store import FakeStore

NOW = datetime(2026, 11, 22, 6, 30, tzinfo=timezone.utc)
VIEWERS = [Viewer(), Viewer(dark=True, narrow=True)]


def view(store: FakeStore, **fields: object) -> View:
    return View(store, Viewer(), store.now, **fields)


def text_of(value: object) -> str:
    return json.dumps(value, cls=PlotlyJSONEncoder, ensure_ascii=False)


def update(weights: str = "", replaced: str = "", policy: str = "knob") -> PolicyUpdateRecord:
    return PolicyUpdateRecord(
        NOW, policy, bool(weights), "because", 100, 25, 0.1, 0.05, 0.15, 0.6, weights, replaced
    )


def genome(number: int, trials: float, **fields: object) -> GenomeRecord:
    return GenomeRecord(
        **{
            "at": NOW,
            "study": "s",
            "generation": 0,
            "origin": "evolved",
            "genes": {"gamma": 0.0},
            "fitness": {"trials_to_95": trials, "regret": 2.0, "spread": 0.1, "cpu_s": 5.0},
            "profile": {},
            "comparison": {},
            "id": number,
            **fields,
        }
    )


# -- what became of updates --------------------------------------------------------------------


def judged(updates: list[PolicyUpdateRecord], **weights: str) -> list[Outcome]:
    """The outcomes while these weights are deployed."""
    named = {f"{policy} policy": file for policy, file in weights.items()}
    active = PolicyVersionRecord(NOW, "autopilot", {}, id=1, weights=named)
    return [outcome for _update, outcome in outcomes(updates, [active])]


def test_an_update_whose_weights_the_deployed_version_names_is_in_force():
    assert judged([update("a"), update()], knob="a") == [Outcome.IN_FORCE, Outcome.REFUSED]


def test_an_update_that_stood_until_the_next_was_kept():
    found = judged([update("a"), update("p", policy="plan"), update("b", "a")], knob="b", plan="p")
    assert found == [Outcome.REPLACED, Outcome.IN_FORCE, Outcome.IN_FORCE]
    assert all(outcome.kept for outcome in found)


def test_an_update_whose_weights_went_again_was_undone():
    assert judged([update("a")]) == [Outcome.UNDONE]
    assert judged([update("a"), update("b", "a"), update("c", "a")], knob="c") == [
        Outcome.REPLACED,
        Outcome.UNDONE,
        Outcome.IN_FORCE,
    ]


def test_weights_that_were_gone_back_to_are_in_force_again():
    found = judged([update("a"), update("b", "a")], knob="a")
    assert found == [Outcome.IN_FORCE, Outcome.UNDONE]
    assert not found[1].kept


# -- Level 1 -----------------------------------------------------------------------------------


def test_the_updates_are_counted_by_what_became_of_them(store):
    text = text_of(learning_level1.summary(view(store)))
    for label, value in (("Tried", 8), ("Deployed", 4), ("Kept", 3), ("Undone", 1)):
        assert f'"children": "{label}"' in text
        assert f'"children": "{value}"' in text
    assert "4 knob, 4 plan" in text
    assert "+8.0\u00a0%" in text


def test_the_table_gives_the_reason_the_interval_and_what_it_rests_on(store):
    text = text_of(learning_level1.table(view(store)))
    for shown in (
        "in force", "replaced since", "undone", "not deployed", "could not be judged",
        "31 transitions are fewer than the 64", "+6.0\u00a0%", "+2.0\u00a0% to +10.0\u00a0%",
        "103 transitions", "judged on 26 held out", "639 plan runs", "56\u00a0%",
    ):  # fmt: skip
        assert shown in text, shown
    assert json.dumps(HOSTILE)[1:-1] in text


@pytest.mark.parametrize(
    ("interval_s", "since_start_s", "words"),
    [
        (
            3600.0,
            600,
            "The first is due at 22 Nov 2026 06:20:00 UTC+00:00, 1\u00a0h after the start",
        ),
        (3600.0, 7200, "It is due every 1\u00a0h, since 22 Nov 2026 04:30:00 UTC+00:00"),
        (36.0, 10, "36\u00a0s after the start"),
        (None, 600, "Level 1 is off"),
    ],
)
def test_without_updates_the_page_says_when_the_first_is_due(interval_s, since_start_s, words):
    now = datetime(2026, 11, 22, 5, 30, tzinfo=timezone.utc)
    store = FakeStore(now=now)
    store._updates = []
    store._status = replace(store._status, started_at=now - timedelta(seconds=since_start_s))
    assert words in text_of(learning_level1.summary(view(store, update_interval_s=interval_s)))


def test_before_the_tuner_has_started_the_page_says_when_updates_begin():
    text = text_of(learning_level1.summary(view(FakeStore(empty=True), update_interval_s=60.0)))
    assert "1\u00a0min after the tuner's start" in text


def test_an_update_that_is_overdue_waits_for_something_new(store):
    assert "waits for something new" in text_of(
        learning_level1.summary(view(store, update_interval_s=30.0))
    )


@pytest.mark.parametrize("viewer", VIEWERS)
def test_the_figure_of_updates_has_a_colour_for_each_outcome(store, viewer):
    found = learning_level1.judged(view(store))
    figure = figs.updates_figure(found, viewer, "later")
    go.Figure(figure)
    traces = {t["name"]: t for t in figure["data"]}
    assert set(traces) == {o.value for o in Outcome}
    assert len({t["marker"]["color"] for t in traces.values()}) == 4
    undone = traces["undone"]
    assert undone["y"] == [pytest.approx(12.0)]
    assert undone["error_y"]["array"] == [pytest.approx(8.0)]
    assert undone["error_y"]["arrayminus"] == [pytest.approx(7.0)]
    assert undone["marker"]["symbol"] == ["diamond"]
    assert sum(len(t["x"]) for t in traces.values()) == 7


def test_updates_that_could_not_be_judged_make_no_figure():
    unknown = replace(update(), gain=None, gain_low=None, gain_high=None)
    figure = figs.updates_figure([(unknown, Outcome.REFUSED)], Viewer(), "none <b>yet")
    assert figure["data"] == []
    half = replace(update("a"), gain_low=None)
    (trace,) = figs.updates_figure([(half, Outcome.IN_FORCE)], Viewer(), "")["data"]
    assert trace["error_y"]["arrayminus"] == [0.0]


# -- Level 2 -----------------------------------------------------------------------------------


def test_the_newest_study_is_summed_up_against_its_incumbent(store):
    store._genomes.insert(0, genome(99, 5.0, study="older"))
    text = text_of(learning_level2.summary(view(store)))
    assert "of genomes-4e5f6071a2b3" in text
    assert '"children": "40"' in text
    assert '"children": "5"' in text
    incumbent = next(g for g in store._genomes if g.origin == "default")
    assert f"{incumbent.fitness['trials_to_95']:.1f} with the incumbent" in text
    assert f"{100 * incumbent.fitness['regret']:.1f}\u00a0% with the incumbent" in text
    assert "+17.0\u00a0%" in text
    assert "run.py evolve --minutes 20" in text


def test_without_genomes_the_page_says_how_to_start():
    empty = view(FakeStore(empty=True))
    assert "python run.py evolve --minutes 20" in text_of(learning_level2.summary(empty))
    assert "The default genome is in force" in text_of(learning_level2.genes(empty))
    assert "Nothing was compared yet" in text_of(learning_level2.comparisons(empty))


def test_an_evolution_at_work_says_how_far_it_is(store):
    assert "at work" not in text_of(learning_level2.summary(view(store)))
    store._evolution = EvolutionRecord(
        store.now, store.now, by_itself=True, share=0.375, activity=f"evolving {HOSTILE}"
    )
    text = text_of(learning_level2.summary(view(store)))
    assert "An evolution that began by itself is at work: evolving" in text
    assert json.dumps(HOSTILE)[1:-1] in text
    assert '"width": "38%"' in text
    assert "run.py evolve" not in text
    first = FakeStore(empty=True)
    first._evolution = replace(store._evolution, at=first.now)
    assert "is at work" in text_of(learning_level2.summary(view(first)))
    store._evolution = replace(store._evolution, at=store.now - timedelta(minutes=6))  # killed
    assert "at work" not in text_of(learning_level2.summary(view(store)))


def test_what_came_of_the_last_evolution_is_told(store):
    assert "The last evolution" not in text_of(learning_level2.summary(view(store)))
    store._evolution = EvolutionRecord(
        store.now, store.now, ended_at=store.now, reason="Not deployed: there was no time"
    )
    text = text_of(learning_level2.summary(view(store)))
    assert "The last evolution ended" in text
    assert "Not deployed: there was no time" in text
    assert "at work" not in text


def test_the_deployed_genome_is_told_by_what_it_changes(store):
    text = text_of(learning_level2.genes(view(store)))
    assert "Exploration noise at first" in text
    assert "noise_start" in text
    assert '"0.3"' in text
    assert '"0.22"' in text
    assert "gamma" not in text
    assert "not in force" in text
    deployed = learning_level2.deployed_genome(view(store))
    store._status = replace(store._status, genome=deployed.id)
    text = text_of(learning_level2.genes(view(store)))
    assert "in force" in text
    assert "not in force" not in text


def test_a_deployed_incumbent_differs_in_nothing(store):
    store._genomes = [genome(1, 20.0, origin="default"), genome(2, 20.0, deployed=True)]
    assert "No gene differs" in text_of(learning_level2.genes(view(store)))


def test_an_incumbent_that_is_not_known_any_more_leaves_its_column_open(store):
    store._genomes = [genome(1, 20.0, deployed=True, genes={"odd_gene": 2.0})]
    text = text_of(learning_level2.genes(view(store)))
    assert "odd gene" in text
    assert "–" in text


def test_a_comparison_is_told_whether_it_won_or_lost(store):
    store._genomes.append(
        genome(100, 30.0, comparison={"gain": -0.1, "low": -0.2, "high": -0.01}, reason=HOSTILE)
    )
    text = text_of(learning_level2.comparisons(view(store)))
    assert "strong good" in text
    assert "strong bad" in text
    assert "[+6.0\u00a0% to +27.0\u00a0%]" in text
    assert "24 pairs of runs" in text
    assert json.dumps(HOSTILE)[1:-1] in text


def test_genes_differ_by_their_relative_change():
    before = {"a": 1.0, "b": 10.0, "c": 5.0, "d": 0.0}
    after = {"a": 4.0, "b": 11.0, "c": 5.0, "d": 0.1}
    assert list(differing(before, after)) == ["d", "a", "b"]
    assert title_of("gamma") == "Discount of later rewards"
    assert title_of("new_gene") == "new gene"


@pytest.mark.parametrize("viewer", VIEWERS)
def test_the_figures_of_genomes_mark_the_default_and_the_deployed(store, viewer):
    study = learning_level2.newest_study(view(store))
    genes = learning_level2.deployed_genome(view(store)).genes
    for figure in (
        figs.genomes_figure(study, genes, figs.REGRET, figs.INSTABILITY, viewer, ""),
        figs.generations_figure(study, genes, figs.TRIALS, viewer, ""),
    ):
        go.Figure(figure)
        traces = {t["name"]: t for t in figure["data"]}
        assert len(traces["incumbent"]["x"]) == len(traces["deployed"]["x"]) == 1
        assert traces["incumbent"]["marker"]["symbol"] != traces["deployed"]["marker"]["symbol"]
        assert "generation 4, evolved" in traces["deployed"]["customdata"][0]


def test_what_has_no_end_is_no_point_and_the_best_so_far_never_rises():
    def row(number: int, trials: float, cpu_s: float | None) -> GenomeRecord:
        cost = {} if cpu_s is None else {"cpu_s": cpu_s}
        return genome(number, trials, generation=number, fitness={"trials_to_95": trials, **cost})

    rows = [row(0, 30.0, None), row(1, 40.0, 2.0), row(2, 10.0, 3.0), row(3, float("inf"), 1.0)]
    scatter = figs.genomes_figure(rows, None, figs.TRIALS, figs.CPU, Viewer(), "")
    assert [t["x"] for t in scatter["data"]] == [[40.0, 10.0]]
    lines = figs.generations_figure(rows, None, figs.TRIALS, Viewer(), "")["data"]
    best = next(t for t in lines if t["name"] == "best so far")
    assert (best["x"], best["y"]) == ([0, 1, 2], [30.0, 30.0, 10.0])
    assert figs.genomes_figure(rows[:1], None, figs.TRIALS, figs.CPU, Viewer(), "w")["data"] == []


def test_objectives_that_are_shares_are_shown_in_percent():
    shares = genome(1, 20.0, fitness={"spread": 0.05, "harmful": 0.03})
    assert figs.INSTABILITY.of(shares) == pytest.approx(8.0)
    assert figs.INSTABILITY.text(8.0) == "8 %"
    assert figs.INSTABILITY.of(genome(1, 20.0, fitness={"spread": 0.05})) is None


def test_hover_text_is_no_html():
    hostile = genome(1, 20.0, origin=HOSTILE)
    figure = figs.genomes_figure([hostile], None, figs.TRIALS, figs.CPU, Viewer(), "")
    assert "<" not in figure["data"][0]["customdata"][0]


# -- the overview ------------------------------------------------------------------------------


def test_the_three_levels_are_shown_in_order_each_with_a_link(store):
    text = text_of(learning_levels.overview(view(store)))
    places = [text.index(f'"href": "#level-{n}"') for n in range(3)]
    assert places == sorted(places)
    assert "8 updates tried, 4 deployed" in text
    assert "40 genomes measured, 1 deployed" in text


def test_the_levels_say_that_nothing_was_learnt_yet():
    text = text_of(learning_levels.overview(view(FakeStore(empty=True))))
    assert "0 learning steps" in text
    assert "no update yet" in text
    assert "nothing evolved yet" in text
    assert '"off"' in text_of(
        learning_levels.overview(view(FakeStore(empty=True), update_interval_s=None))
    )
