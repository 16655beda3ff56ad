"""The experiment on the sample filter: its simulated load, its replayed noise, its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from backend.config import load_settings
from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import Phase, TrialKind, TrialState, Verdict
from backend.domain.records import QueryWindowRecord, TrialRecord, WindowRecord
from backend.errors import ConfigError
from backend.targets.simulated import Checkpoints, LoadScript, SimulatedDatabase, Swings
from backend.targets.simulated_model import ResponseModel
from backend.telemetry import open_store
from benchmarks.filter_experiment.intervals import bootstrap_mean, rate_interval
from benchmarks.filter_experiment.replay import (
    EPOCH,
    RUN_S,
    Recording,
    ReplayedServer,
    recordings,
    resampled_trials,
)
from benchmarks.filter_experiment.scenario import (
    CLASSES,
    GAIN,
    KNOBS,
    SWINGS,
    configuration_at,
    response,
    swinging_server,
)
from benchmarks.filter_experiment.script import Effect, Script, away, towards_best
from benchmarks.filter_experiment.scripted import VARIANTS, take
from benchmarks.filter_experiment.scripted import run_one as run_scripted
from benchmarks.filter_experiment.single_trials import Truth, verdicts_under_doubling
from benchmarks.filter_experiment.spread import Errors, spread_under_swings
from benchmarks.sample_filter import app
from tests.windows import START, window

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


# -- replayed noise -------------------------------------------------------------------------------


def _recorded(numbers: Sequence[int], gap_s: float = 0.0, seed: int = 0) -> list[MetricsWindow]:
    """Neighbouring windows of 5 s with noisy times."""
    rng = np.random.default_rng(seed)
    found = []
    for number in numbers:
        start = START + timedelta(seconds=number * (5.0 + gap_s))
        noise = rng.normal(0, 0.05, 2)
        made = window({1: (100, 2.0 * math.exp(noise[0])), 2: (20, 9.0 * math.exp(noise[1]))}, 5.0)
        found.append(replace(made, started_at=start, ended_at=start + timedelta(seconds=5)))
    return found


def test_what_is_replayed_is_what_was_recorded() -> None:
    windows = _recorded(range(6))
    clock = ManualClock(EPOCH)
    server = ReplayedServer(windows, clock)
    assert server.seconds == 30
    first = server.collect()
    clock.advance(10.0)
    measured = window_between(first, server.collect())
    assert measured is not None
    for key in windows[0].queries:
        both = [w.queries[key] for w in windows[:2]]
        assert measured.queries[key].calls == sum(q.calls for q in both)
        assert measured.queries[key].exec_time_ms == pytest.approx(
            sum(q.exec_time_ms for q in both)
        )


def test_a_course_lasts_and_holds_only_neighbours() -> None:
    recording = Recording("here", (*_recorded(range(60)), *_recorded(range(2000, 2060))))
    course = recording.course(1000.0, np.random.default_rng(0))
    assert sum(w.duration_s for w in course) >= 1000
    length = int(RUN_S / 5)
    for start in range(0, len(course), length):
        piece = course[start : start + length]
        assert all(after.started_at == before.ended_at for before, after in pairwise(piece))
    starts = {w.started_at for w in course}
    assert len(starts) > 40


def test_pieces_do_not_span_what_was_not_measured() -> None:
    assert Recording("gaps", tuple(_recorded(range(40), gap_s=100.0))).starts == []


def test_what_is_the_same_is_hardly_ever_promoted() -> None:
    source = Recording("noise", tuple(_recorded(range(400))))
    found = resampled_trials(SETTINGS, [source], trials=12, seed=0)
    assert found.trials == 12
    assert found.false_promotions <= 2
    assert 0.01 < found.spread < 0.1


def _stored(folder: Path, windows: Sequence[MetricsWindow]) -> Path:
    path = folder / "telemetry.db"
    store = open_store(f"sqlite:///{path}")
    for made in windows:
        store.add_window(
            WindowRecord(
                started_at=made.started_at,
                ended_at=made.ended_at,
                duration_s=made.duration_s,
                phase=Phase.LEARNING,
                config={"work_mem": 4096},
                queries=tuple(
                    QueryWindowRecord(str(q.key), q.calls, q.mean_ms) for q in made.queries.values()
                ),
            )
        )
    store.close()
    return path


def test_windows_come_from_a_store(tmp_path: Path) -> None:
    windows = _recorded(range(80))
    (source,) = recordings([_stored(tmp_path, windows)])
    assert source.seconds == 400
    assert len(source.windows) == 80
    kept = source.windows[7].queries
    assert {k: q.calls for k, q in kept.items()} == {
        k: q.calls for k, q in windows[7].queries.items()
    }


def test_too_short_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer runs"):
        recordings([_stored(tmp_path, _recorded(range(10)))])


def test_the_commands_print_their_tables(tmp_path: Path) -> None:
    path = _stored(tmp_path, _recorded(range(80)))
    result = CliRunner().invoke(app, ["resampled", "--store", str(path), "--trials", "3"])
    assert result.exit_code == 0, result.output
    assert "A/A promotions on resampled noise" in result.output
    result = CliRunner().invoke(app, ["doubled-load", "--seeds", "1"])
    assert result.exit_code == 0, result.output
    assert "better" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["filter on", "plain DDPG"])
def test_a_short_run_of_the_tuner(tmp_path: Path, variant: str) -> None:
    from benchmarks.filter_experiment.results import read_results, run_all
    from benchmarks.filter_experiment.tuning import RunResult, run_one

    out = tmp_path / "results.jsonl"
    made = []
    for _ in range(2):  # the second time there is nothing left to do
        results = run_all(
            lambda seed, name: run_one(seed, name, 0.4, 6),
            RunResult, [0], [variant], out, made.append,
        )  # fmt: skip
        assert len(results) == len(made) == 1
    assert results == read_results(out, RunResult)
    (result,) = results
    assert 1 <= result.trials <= 6
    assert result.final_share <= 1.0


# -- known candidates in the agent's place --------------------------------------------------------


def _script(seed: int) -> tuple[Script, ResponseModel]:
    model = response(seed)
    return Script(model, seed), model


@pytest.mark.parametrize("seed", range(3))
def test_the_steps_make_up_the_whole_way_and_both_arms_see_the_same(seed: int) -> None:
    script, model = _script(seed)
    steps = [c.log_effect for c in script.to_come if c.effect is Effect.GAIN]
    assert sum(steps) == pytest.approx(math.log(1 - GAIN), abs=1e-5)
    assert len(script.to_come) == 18
    assert script.to_come == Script(model, seed).to_come
    assert script.to_come != Script(model, seed + 1).to_come


@pytest.mark.parametrize("seed", range(3))
def test_a_candidate_does_what_the_script_says_wherever_it_is_tried(seed: int) -> None:
    script, model = _script(seed)
    best = model.best_config
    default = model.space.default_config()
    rng = np.random.default_rng(seed)
    for start in (default, towards_best(model, default, -0.3), best):
        for wanted in (0.0005, 0.1):
            there = math.log(model.index_of(away(model, start, wanted, rng)))
            assert there - math.log(model.index_of(start)) == pytest.approx(wanted, abs=1e-4)
    step = towards_best(model, default, -0.2)
    assert math.log(model.index_of(step)) == pytest.approx(-0.2, abs=1e-4)
    assert (model.latency_ms(step) <= model.latency_ms(default)).all()
    assert towards_best(model, step, -5.0) == best
    assert script.ask(default) != default


def test_what_was_missed_comes_again_and_what_was_found_does_not() -> None:
    script, model = _script(0)
    default, asked = model.space.default_config(), len(script.to_come)
    for _ in range(asked):
        script.ask(default)
        script.rejected()
    left = script.to_come
    assert {candidate.effect for candidate in left} == {Effect.GAIN}
    script.ask(default)
    script.unclear()
    assert script.to_come == (*left[1:], left[0])
    script.ask(default)
    script.deployed()
    assert script.to_come == (*left[2:], left[0])


def test_an_accepted_candidate_stays_on_trial_until_its_probation() -> None:
    script, model = _script(0)
    script.ask(model.space.default_config())
    tried = script.trying
    for kind, verdict in (
        (TrialKind.PROBE, Verdict.ACCEPT),
        (TrialKind.PROMOTION, Verdict.ACCEPT),
    ):
        take(script, _ended(kind, verdict))
        assert script.trying is tried
    take(script, _ended(TrialKind.PROBATION, Verdict.INCONCLUSIVE))
    assert script.to_come[-1] is tried
    with pytest.raises(ValueError, match="no candidate"):
        _ = script.trying


def test_a_harmful_candidate_that_stands_makes_the_way_longer() -> None:
    script, model = _script(0)
    while True:
        script.ask(model.space.default_config())
        tried = script.trying
        if tried.effect is Effect.HARM:
            break
        script.rejected()
    script.deployed()
    assert script.to_come[-1].effect is Effect.GAIN
    assert script.to_come[-1].log_effect == -tried.log_effect


def _ended(kind: TrialKind, verdict: Verdict) -> TrialRecord:
    return TrialRecord(
        kind=kind,
        state=TrialState.FINISHED,
        proposer="",
        created_at=START,
        before={},
        after={},
        verdict=verdict,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_on_known_candidates_counts_every_verdict(variant: str) -> None:
    result = run_scripted(0, variant, 0.5, 4)
    assert result.trials == 4
    assert sum(result.verdicts.values()) == 4
    assert result.windows >= 8
    assert result.void == 0 or variant == "filter on"
    assert result.trials_to_goal is None
    assert result.final_share < 0.95


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
