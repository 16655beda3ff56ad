"""The experiment on the sample filter: its simulated load, its scenario, its arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.config import load_settings
from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.modes import Verdict
from backend.targets.simulated import Checkpoints, LoadScript, SimulatedDatabase, Swings
from benchmarks.filter_experiment.intervals import bootstrap_mean, rate_interval
from benchmarks.filter_experiment.scenario import (
    CLASSES,
    GAIN,
    KNOBS,
    SWINGS,
    configuration_at,
    response,
    swinging_server,
)
from benchmarks.filter_experiment.single_trials import Truth, verdicts_under_doubling
from benchmarks.filter_experiment.spread import Errors, spread_under_swings

SETTINGS = load_settings(environ={})


# -- arithmetic -----------------------------------------------------------------------------------


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_more_values() -> None:
    rng = np.random.default_rng(0)
    few, many = (bootstrap_mean(rng.normal(-5, 2, n)) for n in (8, 200))
    for found in (few, many):
        assert found.low < found.value < found.high
    assert many.high - many.low < few.high - few.low
    assert many.excludes_zero
    assert not bootstrap_mean([-3.0, 2.0, 1.0, -1.0]).excludes_zero
    assert str(bootstrap_mean([2.0, 2.0])) == "+2.0 [+2.0, +2.0]"
    with pytest.raises(ValueError, match="no value"):
        bootstrap_mean([])


def test_the_interval_of_a_rate_is_exact() -> None:
    assert rate_interval(0, 30) == (0.0, pytest.approx(1 - 0.025 ** (1 / 30)))
    assert rate_interval(30, 30) == (pytest.approx(0.025 ** (1 / 30)), 1.0)
    low, high = rate_interval(5, 2000)
    assert low < 0.0025 < high


# -- the load -------------------------------------------------------------------------------------


def test_the_swings_stay_within_their_bounds_and_are_seeded() -> None:
    script = SWINGS.script(len(CLASSES), 7200.0, seed=3)
    seconds = np.arange(7200.0)
    factors = script.factors(seconds, len(CLASSES))
    assert factors.shape == (7200, len(CLASSES))
    leanings = np.array(SWINGS.leanings)
    assert factors[:, 0].min() >= 0.5 * leanings[:, 0].min()
    assert factors[:, 0].max() <= 2.0 * leanings[:, 0].max()
    assert factors[:, 0].std() > 0.2
    np.testing.assert_array_equal(
        factors, SWINGS.script(len(CLASSES), 7200.0, seed=3).factors(seconds, len(CLASSES))
    )
    other = SWINGS.script(len(CLASSES), 7200.0, seed=4).factors(seconds, len(CLASSES))
    assert (factors != other).any()


def test_the_batch_job_runs_at_its_period() -> None:
    swings = Swings(lowest=1.0, highest=1.0, batch_class=1, batch_every_s=300, batch_lasts_s=30)
    factors = swings.script(2, 3000.0, seed=0).factors(np.arange(3000.0) + 0.5, 2)
    assert set(np.unique(factors[:, 1])) == {0.0, 10.0}
    assert (factors[:, 1] > 0).mean() == pytest.approx(0.1, abs=0.01)
    assert (factors[:, 0] == 1.0).all()


def test_shifts_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order"):
        LoadScript(shifts=[(20.0, 1.0, (1,)), (10.0, 1.0, (1,))])


def test_checkpoints_slow_everything_and_are_counted() -> None:
    checkpoints = Checkpoints(every_s=100.0, lasts_s=10.0, slowdown=2.0, first_s=50.0)
    target = SimulatedDatabase(clock=ManualClock(), checkpoints=checkpoints)
    found = []
    for _ in range(25):
        first = target.snapshot()
        assert isinstance(target.clock, ManualClock)
        target.clock.advance(10.0)
        measured = window_between(first, target.snapshot())
        assert measured is not None
        found.append(measured)
    slow = [i for i, w in enumerate(found) if (w.mean_ms or 0) > 1.5 * (found[0].mean_ms or 0)]
    assert slow == [5, 15]
    begun = sum(w.rates["checkpoints_timed"] * w.duration_s for w in found[1:])
    assert begun == pytest.approx(3)  # the third begins with the last moment


# -- the scenario ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_server_has_much_to_gain_and_is_busy_but_not_drowned(seed: int) -> None:
    model = response(seed)
    assert set(model.space.names) == set(KNOBS)
    assert model.index_of(model.best_config) == pytest.approx(1 - GAIN)
    for config, low, high in (
        (model.space.default_config(), 0.3, 0.45),
        (model.best_config, 0.15, 0.25),
    ):
        service = model.service_ms(config)
        assert low < float(model.utilisation(service, model.arrivals)) < high


@pytest.mark.parametrize(("low", "high"), [(0.85, 0.93), (1.07, 1.15)])
def test_a_candidate_of_a_wanted_worth_is_found(low: float, high: float) -> None:
    model = response(1)
    config = configuration_at(model, low, high, np.random.default_rng(0))
    assert low <= model.index_of(config) <= high
    with pytest.raises(ValueError, match="no configuration"):
        configuration_at(response(1, gain=0.0), 0.1, 0.2, np.random.default_rng(0))


def test_the_swinging_server_swings() -> None:
    target = swinging_server(0, 3600.0)
    calls = []
    for _ in range(60):
        before = sum(q.calls for q in target.snapshot().queries.values())
        assert isinstance(target.clock, ManualClock)
        target.clock.advance(30.0)
        calls.append(sum(q.calls for q in target.snapshot().queries.values()) - before)
    assert max(calls) > 2 * min(calls)


def test_no_verdict_is_wrong_where_the_load_doubles() -> None:
    found = verdicts_under_doubling(SETTINGS, range(4), filtered=True)
    for truth in Truth.all():
        assert found[truth.name].total() == 4
        assert found[truth.name][truth.wrong] == 0
    assert found["better"][Verdict.ACCEPT] + found["worse"][Verdict.REJECT] > 0


# -- how far windows lie apart --------------------------------------------------------------------


def test_pairing_and_the_filter_each_take_out_error() -> None:
    spread = spread_under_swings(SETTINGS, [0], 2000.0)
    found = {e.name: e for e in spread.errors}
    pair = found["index, neighbour (a pair)"]
    kept, dropped = found["a pair that the filter keeps"], found["a pair that it drops"]
    assert kept.log_ratios.size + dropped.log_ratios.size == pair.log_ratios.size
    assert found["index, 10 min before"].deviation > pair.deviation > kept.deviation
    assert dropped.deviation > pair.deviation
    assert 0 < spread.moved.total() < pair.log_ratios.size
    assert spread.kept["volume or mix"] < spread.moved["volume or mix"] / 2


def test_errors_are_counted_on_both_sides() -> None:
    errors = Errors("some", np.array([-0.2, 0.0, 0.04, 0.2]))
    assert errors.deviation == pytest.approx(math.sqrt((0.04 + 0.0016 + 0.04) / 4))
    assert errors.beyond(0.1) == 0.5
