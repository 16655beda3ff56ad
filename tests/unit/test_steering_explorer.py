"""The offline explorer: what it refuses, equal plans, time-outs, trust, expected values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from backend.steering.explorer import ExplorerSettings, OfflineExplorer, Probe
from backend.steering.model.latency_model import LatencyModel
from backend.steering.model.probe_value import best_timeout, outcome
from backend.steering.model.track_record import TrackRecord

DEFAULT_S = np.array([8.0, 4.0, 0.5, 0.02])


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"default_latency_s": [[1.0]]}, "shape"),
        ({"default_latency_s": []}, "shape"),
        ({"default_latency_s": [1.0, np.nan]}, "finite"),
        ({"default_latency_s": [-1.0]}, "finite"),
        ({"default_latency_s": [1.0], "hint_set_count": 0}, "hint_set_count = 0"),
        ({"default_latency_s": [1.0], "hint_set_count": 3, "plan_ids": [[1, 2]]}, "plan_ids"),
        ({"default_latency_s": [1.0], "hint_set_count": 2, "plan_ids": [[1.5, 2]]}, "plan_ids"),
        ({"default_latency_s": [1.0], "hint_set_count": 2, "plan_features": [[1.0]]}, "features"),
        (
            {"default_latency_s": [1.0], "hint_set_count": 2, "plan_features": [[[0], [np.inf]]]},
            "features",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OfflineExplorer(**arguments)


@pytest.mark.parametrize(
    ("probe", "latency_s"),
    [
        (Probe(4, 1, 1.0), 0.5),
        (Probe(-1, 1, 1.0), 0.5),
        (Probe(0, 3, 1.0), 0.5),
        (Probe(0, 0, 1.0), 0.5),
        (Probe(0, 1, 1.0), None),
        (Probe(0, 1, 1.0), np.nan),
        (Probe(0, 1, 1.0), -0.5),
    ],
)
def test_wrong_outcomes_are_refused_and_change_nothing(
    probe: Probe, latency_s: float | None
) -> None:
    explorer = OfflineExplorer(DEFAULT_S, 3)
    before = explorer.ask()
    with pytest.raises(ValueError, match="Probe"):
        explorer.tell(probe, latency_s)
    assert explorer.ask() == before
    assert [explorer.serve(query) for query in range(4)] == [0, 0, 0, 0]


# -- serving ------------------------------------------------------------------------------------


def test_only_a_faster_measurement_is_served() -> None:
    explorer = OfflineExplorer(DEFAULT_S, 4)
    explorer.tell(Probe(0, 1, 8.0), latency_s=9.0)
    assert explorer.serve(0) == 0
    explorer.tell(Probe(0, 2, 1.0), timed_out=True)
    assert explorer.serve(0) == 0
    explorer.tell(Probe(0, 3, 8.0), latency_s=5.0)
    assert explorer.serve(0) == 3
    assert explorer.best_latency_s.tolist() == [5.0, 4.0, 0.5, 0.02]


def test_nothing_is_asked_once_everything_was_measured() -> None:
    explorer = OfflineExplorer(DEFAULT_S, 2)
    for query in range(4):
        explorer.tell(Probe(query, 1, 10.0), latency_s=1.0)
    assert explorer.ask() is None


def test_nothing_is_asked_where_the_return_is_too_small() -> None:
    settings = ExplorerSettings(least_return=1e6)
    assert OfflineExplorer(DEFAULT_S, 3, settings=settings).ask() is None


# -- plans known to be equal --------------------------------------------------------------------


def test_equal_plans_are_tried_once_and_the_default_plan_never() -> None:
    plans = np.array([[7, 7, 5, 5, 9]] * 4)
    explorer = OfflineExplorer(DEFAULT_S, 5, plan_ids=plans)
    tried = set()
    while (probe := explorer.ask()) and len(tried) < 20:
        tried.add((probe.query, probe.hint_set))
        explorer.tell(probe, latency_s=probe.timeout_s / 2)
    assert {hint_set for _, hint_set in tried} == {2, 4}


def test_equal_latencies_are_not_taken_for_equal_plans() -> None:
    explorer = OfflineExplorer([8.0], 3)
    explorer.tell(Probe(0, 1, 8.0), latency_s=2.0)
    explorer.tell(Probe(0, 2, 8.0), latency_s=2.0)
    explorer = OfflineExplorer([8.0], 4)
    explorer.tell(Probe(0, 1, 8.0), latency_s=2.0)
    explorer.tell(Probe(0, 2, 8.0), latency_s=2.0)
    probe = explorer.ask()
    assert probe is not None
    assert probe.hint_set == 3


# -- plan features ------------------------------------------------------------------------------


def test_plan_features_tell_good_hint_sets_of_queries_never_tried() -> None:
    rng = np.random.default_rng(0)
    queries, hint_sets = 40, 6
    feature = rng.normal(size=(queries, hint_sets, 1))
    feature[:, 0] = 0.0
    feature[5, 3] = np.nan
    default_s = np.exp(rng.normal(0.0, 0.3, queries))
    explorer = OfflineExplorer(default_s, hint_sets, plan_features=feature)
    for query in range(20):
        for hint_set in range(1, hint_sets):
            ratio = np.exp(np.nan_to_num(feature[query, hint_set, 0]))
            latency_s = float(default_s[query] * ratio)
            explorer.tell(Probe(query, hint_set, 100.0), latency_s=latency_s)
    asked = []
    for _ in range(8):
        probe = explorer.ask()
        assert probe is not None
        asked.append(feature[probe.query, probe.hint_set, 0])
        explorer.tell(probe, timed_out=True)
    assert np.mean(asked) < -0.7  # the features' spread is 1, their mean 0


# -- the model ----------------------------------------------------------------------------------


def model_of(default_s: np.ndarray, hint_sets: int) -> LatencyModel:
    return LatencyModel(default_s, hint_sets, np.random.default_rng(0))


def test_what_a_hint_set_did_to_some_queries_is_expected_of_others() -> None:
    model = model_of(np.linspace(1.0, 3.0, 20), 3)
    for query in range(15):
        model.observe(query, np.array([1]), -1.0)
        model.observe(query, np.array([2]), 2.0)
    model.refit(5)
    mean, variance = model.predict(np.arange(15, 20), np.arange(3))
    assert np.all(np.abs(mean[:, 1] + 1.0) < 0.4)
    assert np.all(mean[:, 2] > 1.4)
    fresh, wide = model_of(np.linspace(1.0, 3.0, 20), 3).predict(np.arange(15, 20), np.arange(3))
    assert np.all(variance[:, 1:] < wide[:, 1:])
    assert np.all(mean[:, 1] < fresh[:, 1])


def test_a_timeout_raises_what_is_expected() -> None:
    default_s = np.full(10, 2.0)
    model, rows = model_of(default_s, 2), np.arange(10)
    before, _ = model.predict(rows, np.array([1]))
    for query in range(9):
        model.bound(query, np.array([1]), 1.5)
        model.update(query, np.array([1]))
    after, _ = model.predict(rows, np.array([1]))
    assert after[9, 0] > before[9, 0] + 0.3


def test_a_lesson_is_worth_less_once_learnt() -> None:
    model, rows = model_of(np.full(10, 2.0), 3), np.arange(10)
    before = model.lesson(rows, np.ones(10))
    for query in range(6):
        model.observe(query, np.array([1]), 0.2)
    model.refit(3)
    after = model.lesson(rows, np.ones(10))
    assert np.all(after[:, 1] < 0.5 * before[:, 1])
    assert np.all(after[:, 2] > after[:, 1])


# -- expected values ----------------------------------------------------------------------------


@given(
    mean=st.floats(-3.0, 3.0),
    spread=st.floats(0.2, 2.0),
    passed=st.none() | st.floats(-3.0, 1.0),
    timeout_s=st.floats(0.05, 20.0),
)
def test_outcome_is_the_integral(
    mean: float, spread: float, passed: float | None, timeout_s: float
) -> None:
    low = -np.inf if passed is None else min(passed, np.log(timeout_s) - 0.1)
    belief = stats.norm(mean, spread)
    left = belief.sf(low)
    if left < 1e-6:
        return
    ends, seconds = outcome(
        *(np.array(value) for value in (mean, spread, low, timeout_s))  # type: ignore[arg-type]
    )
    start = max(low, mean - 12.0 * spread)
    stop = max(start, np.log(timeout_s))
    expected, _ = integrate.quad(lambda y: np.exp(y) * belief.pdf(y), start, stop, limit=200)
    assert ends == pytest.approx((belief.cdf(np.log(timeout_s)) - belief.cdf(low)) / left, abs=1e-6)
    assert seconds == pytest.approx(expected / left, rel=1e-4, abs=1e-6)


def test_a_timeout_that_was_passed_is_not_tried_again() -> None:
    options = replace(ExplorerSettings(), retry=1.5)
    score, timeout_s, _ = best_timeout(
        np.array([[0.0, 0.0]]),
        np.array([[1.0, 1.0]]),
        np.log(np.array([[1.0, 4.0]])),
        np.array([[5.0]]),
        shares=(0.1, 0.2, 0.5, 1.0),
        retry=options.retry,
        overhead=options.overhead,
        patience=options.patience,
    )
    assert timeout_s[0, 0] in (2.5, 5.0)
    assert score[0, 1] < 0.0  # 5 s is less than 1.5 times the 4 s that were passed


def test_broken_promises_cost_trust_and_luck_is_forgotten() -> None:
    record = TrackRecord(2, 2, query_prior=1.0, hint_set_prior=5.0, memory=0.9)
    assert np.all(record.trust(np.arange(2), np.arange(2)) == 1.0)
    for _ in range(10):
        record.note(0, 1, expected=0.5, ended=False, lesson=False)
    trust = record.trust(np.arange(2), np.arange(2))
    assert trust[0, 0] == pytest.approx(1.0 / 6.0)
    assert trust[1, 0] == 1.0
    assert trust[0, 1] < trust[0, 0]
    for _ in range(40):
        record.note(1, 1, expected=0.5, ended=True, lesson=False)
    trust = record.trust(np.arange(2), np.arange(2))
    assert trust[1, 1] == 1.0
    assert trust[0, 0] == pytest.approx(1.0 / 6.0)
