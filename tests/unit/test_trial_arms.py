"""The sequence of a trial's arms, and the verdict that it leads to."""

from __future__ import annotations

import math

import pytest

from backend.domain.modes import TrialKind, Verdict
from backend.gate import GateSettings
from tests.trial_bench import SETTLE_S, Bench, plan


def test_a_probe_measures_incumbent_candidate_incumbent():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    trial = bench.run()
    assert bench.order == "ICI"
    assert bench.server.log == ["enter {'work_mem': 65536}", "leave"]
    assert bench.server.trial_ids == [7]
    assert trial.verdict is Verdict.ACCEPT
    assert math.expm1(trial.effect_log_ratio) == pytest.approx(-0.25, abs=0.01)


def test_a_probe_without_promise_is_rejected():
    assert Bench(plan(TrialKind.PROBE), effect=0.97).run().verdict is Verdict.REJECT
    assert Bench(plan(TrialKind.PROBE), effect=1.3).run().verdict is Verdict.REJECT


@pytest.mark.parametrize("seed", range(6))
def test_a_promotion_runs_balanced_random_blocks(seed):
    bench = Bench(plan(seed=seed), effect=0.75)
    bench.run()
    blocks = [bench.order[i : i + 4] for i in range(0, len(bench.order), 4)]
    assert set(blocks) <= {"ICCI", "CIIC"}
    assert len(blocks) == 4


def test_the_order_of_the_blocks_is_random_and_seeded():
    orders = []
    for seed in [*range(12), 0]:
        bench = Bench(plan(seed=seed), effect=0.75)
        bench.run()
        orders.append(bench.order)
    assert len(set(orders)) > 4
    assert orders[0] == orders[-1]


def test_probation_returns_to_the_former_configuration_and_ends_with_the_deployed_one():
    gate = GateSettings(min_blocks=3, max_blocks=4)
    # The arm that is not deployed is the former one: slower, so the deployment proves itself.
    bench = Bench(plan(TrialKind.PROBATION, gate=gate), effect=1.4)
    trial = bench.run()
    assert len(bench.order) == 6
    assert {bench.order[i : i + 2] for i in (0, 2, 4)} <= {"IC", "CI"}
    assert bench.server.log[0] == "enter {'work_mem': None}"
    assert trial.verdict is Verdict.ACCEPT
    assert trial.effect_log_ratio < 0


@pytest.mark.parametrize(
    ("earlier", "verdict"), [((), Verdict.REJECT), ((-0.1, -0.11, -0.1, -0.09), Verdict.ACCEPT)]
)
def test_a_probation_that_stays_unclear_asks_the_promotion(earlier, verdict):
    gate = GateSettings(min_blocks=3, max_blocks=4)
    made = plan(TrialKind.PROBATION, gate=gate, earlier_log_ratios=earlier)
    bench = Bench(made, effect=1.08)
    bench.server.slow = lambda at_s: 1 + 0.1 * math.sin(at_s * 0.1)
    trial = bench.run()
    assert len(trial.block_log_ratios) == 4
    assert trial.record().ci_high > 0
    assert trial.verdict is verdict


def test_only_a_probation_asks_the_promotion():
    trial = Bench(plan(earlier_log_ratios=(-0.3,) * 20), effect=1.0).run()
    assert trial.verdict is Verdict.REJECT


def test_the_blocks_of_a_promotion_are_what_its_probation_is_given():
    trial = Bench(plan(), effect=0.75).run()
    assert trial.block_log_ratios == trial.record().block_log_ratios
    assert trial.block_log_ratios == pytest.approx([math.log(0.75)] * 4, abs=0.01)


def test_probation_undoes_what_got_worse():
    gate = GateSettings(min_blocks=3, max_blocks=4)
    bench = Bench(plan(TrialKind.PROBATION, gate=gate), effect=0.7)
    trial = bench.run()
    assert trial.verdict is Verdict.REJECT
    assert "proven worse" in trial.reasons[0]


@pytest.mark.parametrize(
    ("effect", "verdict"),
    [(1.4, Verdict.ACCEPT), (0.7, Verdict.REJECT)],
)
def test_the_final_comparison_takes_all_its_blocks(effect, verdict):
    gate = GateSettings(min_blocks=3, max_blocks=5)
    bench = Bench(plan(TrialKind.FINAL, gate=gate), effect=effect)
    trial = bench.run()
    assert len(bench.order) == 20
    assert trial.verdict is verdict
    record = trial.record()
    assert (record.blocks, record.max_blocks, record.confidence) == (5, 5, 0.95)
    assert record.effect == pytest.approx(1 / effect - 1, abs=0.02)


def test_arms_of_which_nothing_differs_end_inconclusive():
    gate = GateSettings(min_blocks=3, max_blocks=4)
    bench = Bench(plan(TrialKind.FINAL, gate=gate, after={}, other_values={}), effect=1.0)
    bench.server.slow = lambda at_s: 1 + 0.02 * math.sin(at_s * 12.9898)
    assert bench.run().verdict is Verdict.INCONCLUSIVE


def test_no_window_is_measured_while_a_switch_settles():
    bench = Bench(plan(TrialKind.PROBE))
    # What runs within the settling time of the candidate is terribly slow.
    entered: list[float] = []
    enter = bench.server.enter

    def watched(values, trial_id):
        entered.append(bench.clock.monotonic_s())
        return enter(values, trial_id)

    bench.server.enter = watched
    bench.server.slow = lambda at_s: (
        100.0 if entered and entered[0] <= at_s < entered[0] + SETTLE_S else 1.0
    )
    trial = bench.run()
    assert trial.effect_log_ratio == pytest.approx(0.0, abs=0.01)


def test_a_restart_settles_longer():
    short, long = Bench(plan(TrialKind.PROBE)), Bench(plan(TrialKind.PROBE, needs_restart=True))
    short.run()
    long.run()
    # Two switches, each 10 s in place of 2 s.
    difference = long.clock.monotonic_s() - short.clock.monotonic_s()
    assert difference == pytest.approx(16, abs=1)


def test_ticks_that_come_late_do_no_harm():
    bench = Bench(plan(), effect=0.75)
    assert bench.run(step_s=7.3).verdict is Verdict.ACCEPT


def test_nothing_happens_after_the_end():
    bench = Bench(plan(TrialKind.PROBE))
    trial = bench.run()
    before = (len(bench.measured), list(bench.server.log), trial.verdict)
    for _ in range(100):
        bench.tick()
    trial.abort("too late")
    assert (len(bench.measured), bench.server.log, trial.verdict) == before
