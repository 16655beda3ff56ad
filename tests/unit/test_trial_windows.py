"""Windows that are void, and statements that straddle a switch."""

from __future__ import annotations

import pytest

from backend.domain.modes import Arm, TrialKind, Verdict
from backend.trials import MAX_STRADDLE_S, MAX_VOID_WINDOWS
from tests.trial_bench import SETTLE_S, WINDOW_S, Bench, plan

# -- void windows -----------------------------------------------------------------------------


@pytest.mark.parametrize("mishap", ["reset_statistics", "reload_by_somebody"])
def test_a_spoilt_window_is_void_and_repeated(mishap):
    bench = Bench(plan(), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2 and bench.trial.measuring)
    getattr(bench.server, mishap)()
    trial = bench.run()
    # The void window was never told as measured, and the order of the block is unbroken.
    assert len(bench.order) == 16
    assert {bench.order[i : i + 4] for i in range(0, 16, 4)} <= {"ICCI", "CIIC"}
    assert trial.verdict is Verdict.ACCEPT


def test_a_restart_of_the_server_voids_the_window():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.run_until(lambda: bench.trial.measuring)
    bench.server.reset_statistics()
    bench.server.started_at = bench.server.reset_at
    assert bench.run().verdict is Verdict.ACCEPT
    assert bench.order == "ICI"


def test_windows_that_are_void_again_and_again_end_the_trial():
    bench = Bench(plan())
    while not bench.trial.finished:
        assert bench.clock.monotonic_s() < 20_000
        bench.tick()
        if bench.trial.measuring:
            bench.server.reload_by_somebody()
    bench.check_end()
    assert bench.trial.verdict is Verdict.INCONCLUSIVE
    assert f"{MAX_VOID_WINDOWS} windows in a row were void" in bench.trial.reasons[0]
    assert "reloaded" in bench.trial.reasons[1]
    assert bench.measured == []


def test_an_idle_server_ends_inconclusive():
    bench = Bench(plan(TrialKind.PROBE))
    bench.server.load = lambda at_s: 0.0
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert "no statement ran" in trial.reasons[1]


# -- statements that straddle a switch --------------------------------------------------------


def test_a_statement_that_straddles_a_switch_is_waited_for():
    bench = Bench(plan(TrialKind.PROBE))
    bench.run_until(lambda: bench.server.other_stands)
    bench.server.oldest_began_s = bench.clock.monotonic_s() - 5
    switched_s = bench.clock.monotonic_s()
    while bench.clock.monotonic_s() < switched_s + 20:
        bench.tick()
        assert not bench.trial.measuring
    bench.server.oldest_began_s = None
    bench.run_until(lambda: bench.trial.measuring)
    assert bench.clock.monotonic_s() < switched_s + 22
    bench.run()
    assert bench.order == "ICI"


def test_a_statement_that_began_after_the_switch_is_not_waited_for():
    bench = Bench(plan(TrialKind.PROBE))
    bench.run_until(lambda: bench.server.other_stands)
    switched_s = bench.clock.monotonic_s()
    bench.server.oldest_began_s = switched_s + 0.5
    bench.run_until(lambda: bench.trial.measuring)
    assert bench.clock.monotonic_s() <= switched_s + SETTLE_S + 1


@pytest.mark.parametrize("kind", list(TrialKind))
def test_a_statement_that_never_ends_ends_the_trial(kind):
    """What runs across the switch belongs to neither arm, however long it is waited for."""
    bench = Bench(plan(kind))
    bench.server.oldest_began_s = -1000.0
    trial = bench.run()
    assert trial.verdict is Verdict.INCONCLUSIVE
    assert "began before the switch still runs after 60 s" in trial.reasons[0]
    first = "I" if trial.plan.deployed is Arm.INCUMBENT else "C"
    assert bench.order in ("", first, 2 * first)  # nothing was measured after the first switch
    assert bench.clock.monotonic_s() < MAX_STRADDLE_S + SETTLE_S + 2 * WINDOW_S + 10


def test_a_statement_that_ends_just_in_time_leaves_the_trial_whole():
    bench = Bench(plan(TrialKind.PROBE), effect=0.75)
    bench.run_until(lambda: bench.server.other_stands)
    switched_s = bench.clock.monotonic_s()
    bench.server.oldest_began_s = switched_s - 5
    bench.run_until(lambda: bench.clock.monotonic_s() > switched_s + MAX_STRADDLE_S - 1)
    bench.server.oldest_began_s = None
    assert bench.run().verdict is Verdict.ACCEPT
