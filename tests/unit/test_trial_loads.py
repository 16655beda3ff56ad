"""Trials while the load moves: no wrong verdict, no trial without an end."""

from __future__ import annotations

import math

import pytest

from backend.domain.modes import Arm, TrialKind, Verdict
from backend.gate import GateSettings
from backend.sample_filter import Reference
from tests.trial_bench import CLASSES, Bench, contended, plan
from tests.windows import key, window


@pytest.mark.parametrize("kind", [TrialKind.PROBE, TrialKind.PROMOTION])
@pytest.mark.parametrize("effect", [0.75, 1.0])
@pytest.mark.parametrize("start_s", range(5, 60, 7))
def test_a_load_that_doubles_for_a_while_never_yields_a_wrong_verdict(kind, effect, start_s):
    # A second or two of a swing at a window's edge go unnoticed: promising is what goes beyond.
    bench = Bench(plan(kind, promising_below=-0.12), effect)
    contended(bench.server, lambda at_s: 2.0 if start_s <= at_s < start_s + 25 else 1.0)
    trial = bench.run()
    right = Verdict.ACCEPT if effect < 1 else Verdict.REJECT
    assert trial.verdict in (right, Verdict.INCONCLUSIVE)
    if kind is TrialKind.PROBE and start_s < 30:
        assert any(m.quality.value < 0.3 for m in bench.measured)
    if trial.effect_log_ratio is not None:
        assert trial.effect_log_ratio == pytest.approx(math.log(effect), abs=0.12)


@pytest.mark.parametrize("start_s", range(5, 110, 11))
def test_a_load_that_doubles_for_good_does_not_end_the_trial(start_s):
    """The new level is as good as the old one: only the block of the change is lost."""
    bench = Bench(plan(), effect=0.75)
    contended(bench.server, lambda at_s: 2.0 if at_s >= start_s else 1.0)
    trial = bench.run()
    assert trial.verdict is Verdict.ACCEPT
    assert trial.effect_log_ratio == pytest.approx(math.log(0.75), abs=0.05)


@pytest.mark.parametrize("kind", list(TrialKind))
@pytest.mark.parametrize("period_s", [15.0, 20.0, 24.0, 40.0, 70.0])
def test_a_load_that_swings_for_ever_ends_every_trial(kind, period_s):
    bench = Bench(plan(kind, gate=GateSettings(max_blocks=8)), effect=1.0)
    contended(bench.server, lambda at_s: 2.5 if at_s % period_s < period_s / 2 else 1.0)
    trial = bench.run(limit_s=3000)
    if trial.plan.deployed is Arm.INCUMBENT:
        assert trial.verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE)


def test_a_spoilt_pair_is_begun_anew():
    bench = Bench(plan(), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    now_s = bench.clock.monotonic_s()
    # Too much load through the whole third window, and the old one again in the fourth.
    contended(bench.server, lambda at_s: 3.0 if now_s <= at_s < now_s + 11 else 1.0)
    trial = bench.run()
    assert trial.verdict is Verdict.ACCEPT
    blocks = trial.record().blocks
    assert len(trial.windows(Arm.CANDIDATE)) == len(trial.windows(Arm.INCUMBENT)) == 2 * blocks
    # Of the block one window was lost; the one that lay apart from it began the pair anew.
    assert len(bench.measured) == 4 * blocks + 1
    assert [m.quality.value < 0.3 for m in bench.measured].index(True) == 3


def test_between_two_pairs_of_a_block_the_load_may_move():
    bench = Bench(plan(), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    now_s = bench.clock.monotonic_s()
    contended(bench.server, lambda at_s: 2.0 if at_s >= now_s else 1.0)
    trial = bench.run()
    assert len(bench.measured) == 16
    assert all(m.quality.value > 0.9 for m in bench.measured)
    assert trial.effect_log_ratio == pytest.approx(math.log(0.75), abs=0.01)


def test_a_probe_whose_last_window_lies_apart_goes_on_from_there():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    now_s = bench.clock.monotonic_s()
    contended(bench.server, lambda at_s: 2.0 if at_s >= now_s else 1.0)
    trial = bench.run()
    assert bench.order == "ICICI"
    assert trial.verdict is Verdict.ACCEPT
    assert trial.effect_log_ratio == pytest.approx(math.log(0.75), abs=0.01)


def _shares(**more: tuple[int, float]) -> Reference:
    """The reference of the usual classes and of some others, by number."""
    classes = {n: (int(100 * rate), ms) for n, (rate, ms) in CLASSES.items()}
    return Reference.from_windows([window({**classes, **{int(n[1:]): v for n, v in more.items()}})])


def test_a_batch_job_that_rests_during_the_trial_keeps_nobody_waiting():
    shares = _shares(c3=(10, 400.0))
    assert 0.05 < shares.time_share(key(3)) < 0.2
    assert Bench(plan(shares=shares), effect=0.75).run().verdict is Verdict.ACCEPT


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, Verdict.ACCEPT), (3.0, Verdict.INCONCLUSIVE)]
)
def test_a_rare_batch_stands_in_the_way_only_where_it_was_slower(factor, verdict):
    bench = Bench(plan(shares=_shares(c3=(10, 400.0)), filtered=False), effect=0.75)
    bench.server.batch_at_s = (4.0, 21.0)  # in the first block, in windows of both arms
    bench.server.batch_factor = factor
    trial = bench.run()
    assert bench.order[:2] in ("CI", "IC")
    assert trial.verdict is verdict


def test_a_class_that_stops_under_the_candidate_is_not_taken_for_one_that_rests():
    # Unfiltered: else the other mix voids every pair.
    bench = Bench(plan(gate=GateSettings(min_coverage=0.1), filtered=False), effect=0.75)
    bench.server.stopped = {2}
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert "ran too seldom" in trial.reasons[-1]


def test_without_the_filter_every_window_counts():
    """The same swing as filtered trials see: nothing is repeated, and the effect is off."""
    found = {}
    for filtered in (True, False):
        bench = Bench(plan(TrialKind.PROBE, filtered=filtered), effect=0.75)
        contended(bench.server, lambda at_s: 2.0 if at_s >= 12 else 1.0)
        trial = bench.run()
        found[filtered] = trial.effect_log_ratio
        if not filtered:
            assert bench.order == "ICI"
            assert all(m.quality.value == 1 for m in bench.measured)
    assert found[True] == pytest.approx(math.log(0.75), abs=0.01)
    assert abs(found[False] - math.log(0.75)) > 0.1
