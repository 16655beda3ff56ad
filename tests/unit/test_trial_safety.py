"""The safety monitor in trials: at once, but never for the load's fault."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from backend.domain.modes import Arm, SafetyAction, TrialKind, Verdict
from backend.domain.safety import SafetyVerdict
from backend.gate import GateSettings
from backend.trials import MAX_EXCUSES, NO_WAY_BACK, STOPPED, TrialPlan
from tests.trial_bench import ALLOW, Bench, contended, plan, seed_that_ends_in_the_other_arm


def test_the_safety_monitor_ends_a_trial_at_once():
    bench = Bench(plan(TrialKind.PROBE), effect=3.0)
    bench.safety = lambda ratio: SafetyVerdict(SafetyAction.ROLLBACK, ("far too slow",))
    trial = bench.run()
    assert bench.order == "IC"
    assert trial.verdict is Verdict.REJECT
    assert trial.reasons == ("stopped by the safety monitor", "far too slow")
    assert bench.server.log[-1] == "leave"
    assert trial.stopped_log_ratio == pytest.approx(math.log(3), abs=0.03)


def test_a_recheck_that_cannot_go_back_keeps_what_stands_and_says_so():
    made = plan(TrialKind.RECHECK, deployed=Arm.CANDIDATE, other_values={"work_mem": None})
    bench = Bench(made, effect=3.0)
    bench.safety = lambda ratio: SafetyVerdict(SafetyAction.ROLLBACK, ("far too slow",))
    trial = bench.run()
    assert trial.verdict is Verdict.ACCEPT
    assert trial.reasons == (NO_WAY_BACK, "far too slow")
    assert "stopped" not in NO_WAY_BACK


def test_the_safety_monitor_sees_candidates_only_with_their_ratio():
    bench = Bench(plan(seed=seed_that_ends_in_the_other_arm()), effect=1.2)
    bench.run()
    assert len(bench.judged) == bench.order.count("C")
    assert all(ratio == pytest.approx(math.log(1.2), abs=0.03) for ratio in bench.judged)


def _begins_with_the_candidate(kind: TrialKind) -> TrialPlan:
    made = (plan(kind, seed=seed) for seed in range(50))
    return next(p for p in made if p.block(random.Random(p.seed))[0] is Arm.CANDIDATE)


@pytest.mark.parametrize(("effect", "verdict"), [(2.0, Verdict.REJECT), (0.75, Verdict.ACCEPT)])
def test_a_first_window_under_the_candidate_is_judged_against_the_reference(effect, verdict):
    """There is no incumbent window yet: it goes at once, but nothing is proven before there is."""
    bench = Bench(_begins_with_the_candidate(TrialKind.PROMOTION), effect)
    bench.safety = rolls_back_what_is_slower
    # Everything takes longer than in the reference: the load is another one by now.
    bench.server.slow = lambda at_s: 2.0
    trial = bench.run()
    assert bench.order.startswith("CI")
    ratios = [ratio for ratio in bench.judged if ratio is not None]
    assert ratios[0] == pytest.approx(math.log(2 * effect), abs=0.03)
    assert ratios[1] == pytest.approx(math.log(effect), abs=0.03)
    assert trial.verdict is verdict


def test_more_load_excuses_a_candidate_only_a_few_times():
    bench = Bench(plan(gate=GateSettings(min_blocks=8, max_blocks=8)), effect=1.5)
    bench.safety = rolls_back_what_is_slower
    # More load whenever the candidate stands: so it may always be the load.
    bench.server.load = lambda at_s: 2.0 if bench.server.other_stands else 1.0
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert trial.reasons[-1] == "the load had risen, or was disturbed"
    assert bench.order.count("C") == MAX_EXCUSES + 1
    # Each time the candidate went at once.
    assert "CC" not in bench.order


def test_a_first_window_that_is_dangerous_for_other_reasons_is_rejected():
    bench = Bench(_begins_with_the_candidate(TrialKind.PROMOTION), effect=2.0)
    bench.safety = lambda ratio: SafetyVerdict(SafetyAction.ROLLBACK, ("errors",))
    assert bench.run().verdict is Verdict.REJECT
    assert bench.order == "C"


@pytest.mark.parametrize("kind", [TrialKind.PROBATION, TrialKind.FINAL])
def test_what_stands_already_is_not_judged_against_an_old_reference(kind):
    """Stopping the trial would take nothing off; the load may have moved since."""
    gate = GateSettings(min_blocks=3, max_blocks=4)
    bench = Bench(replace(_begins_with_the_candidate(kind), gate=gate), effect=1.4)
    bench.safety = rolls_back_what_is_slower
    bench.server.slow = lambda at_s: 1.5
    assert bench.run().verdict is Verdict.ACCEPT
    if kind is TrialKind.FINAL:
        assert not bench.judged  # it measures what stands to its end
    else:
        assert bench.judged[0] is None


def test_a_block_of_the_monitor_does_not_end_a_trial():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.safety = lambda ratio: SafetyVerdict(SafetyAction.BLOCK, ("busy",))
    assert bench.run().verdict is Verdict.ACCEPT


def rolls_back_what_is_slower(ratio: float | None) -> SafetyVerdict:
    if ratio is not None and ratio > math.log(1.15):
        return SafetyVerdict(SafetyAction.ROLLBACK, ("slower",))
    return ALLOW


@pytest.mark.parametrize("start_s", range(5, 80, 5))
def test_more_load_under_the_candidate_rolls_back_but_proves_nothing(start_s):
    """The load doubles while a harmless candidate stands: taken off, yet not called worse."""
    bench = Bench(plan(), effect=0.75)
    bench.safety = rolls_back_what_is_slower
    contended(bench.server, lambda at_s: 2.0 if at_s >= start_s else 1.0)
    trial = bench.run()
    assert trial.verdict in (Verdict.ACCEPT, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("start_s", range(5, 80, 5))
def test_a_rush_that_is_over_within_the_window_proves_nothing(start_s):
    """On the whole the window has less load than the incumbent's: half of the clients left."""
    bench = Bench(plan(), effect=0.75)
    bench.safety = rolls_back_what_is_slower

    def load(at_s: float) -> float:
        return {0: 2.0, 1: 0.0}.get(int((at_s - start_s) // 5), 1.0) if at_s >= start_s else 1.0

    bench.server.load = load
    bench.server.slow = lambda at_s: 4.0 if load(at_s) > 1 else 1.0
    trial = bench.run()
    assert trial.verdict in (Verdict.ACCEPT, Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("which", [1, 2])
def test_one_window_a_little_past_the_limit_proves_nothing(which):
    """Chance can do that; it is taken off, and all that the trial measures decides."""
    bench = Bench(plan(TrialKind.PROMOTION), effect=0.75)
    bench.safety = rolls_back_what_is_slower
    slow = iter([1.0] * (which - 1) + [1.7])
    own, stood = 1.0, False

    def slowness(at_s: float) -> float:
        nonlocal own, stood
        if bench.server.other_stands and not stood:
            own = next(slow, 1.0)
        stood = bench.server.other_stands
        return own if stood else 1.0

    bench.server.slow = slowness
    trial = bench.run()
    assert max(ratio for ratio in bench.judged if ratio is not None) > math.log(1.15)
    assert trial.verdict is Verdict.ACCEPT


def test_a_candidate_that_stays_a_little_past_the_limit_is_rejected_at_its_second_window():
    bench = Bench(plan(), effect=1.25)
    bench.safety = rolls_back_what_is_slower
    trial = bench.run()
    assert bench.order.count("C") == 2
    assert trial.verdict is Verdict.REJECT
    assert trial.reasons == (STOPPED, "slower")


def test_a_candidate_that_chokes_its_clients_is_rejected():
    """Clients that wait for answers send less when it is slow: less load is no excuse."""
    bench = Bench(plan(TrialKind.PROBE), effect=4.0)
    bench.safety = rolls_back_what_is_slower
    bench.server.load = lambda at_s: 0.25 if bench.server.other_stands else 1.0
    trial = bench.run()
    assert trial.verdict is Verdict.REJECT
    assert "slower" in trial.reasons
