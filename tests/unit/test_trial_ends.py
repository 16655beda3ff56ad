"""Aborts and errors: every trial ends with the deployed arm standing."""

from __future__ import annotations

import pytest

from backend.domain.modes import TrialKind, Verdict
from backend.errors import AdjustmentError, ServerConnectionError
from backend.gate import GateSettings
from tests.trial_bench import Bench, plan, seed_that_ends_in_the_other_arm


@pytest.mark.parametrize("kind", list(TrialKind))
def test_an_abort_at_any_moment_ends_with_the_deployed_arm(kind):
    whole = Bench(plan(kind), effect=0.9)
    whole.run()
    ticks = len(whole.progress)
    for stop in range(0, ticks - 1, max(ticks // 25, 1)):
        bench = Bench(plan(kind), effect=0.9)
        for _ in range(stop):
            bench.tick()
        bench.trial.abort("an operator acts")
        bench.check_end()
        assert bench.trial.verdict is Verdict.ABORTED
        assert bench.trial.reasons == ("an operator acts",)


@pytest.mark.parametrize("operation", ["enter", "leave", "collect"])
@pytest.mark.parametrize("error", [AdjustmentError("no"), ServerConnectionError("gone")])
@pytest.mark.parametrize("kind", [TrialKind.PROMOTION, TrialKind.PROBATION])
def test_an_error_passes_through_and_the_trial_can_go_on(operation, error, kind):
    bench = Bench(plan(kind, gate=GateSettings(min_blocks=3, max_blocks=4)), effect=0.75)
    bench.run_until(lambda: len(bench.measured) == 2)
    bench.server.fail[operation] = [error]
    raised = 0
    while not bench.trial.finished:
        try:
            bench.tick()
        except type(error):
            raised += 1
    bench.check_end()
    assert raised == 1
    expected = Verdict.ACCEPT if kind is TrialKind.PROMOTION else Verdict.REJECT
    assert bench.trial.verdict is expected


@pytest.mark.parametrize("operation", ["enter", "leave", "collect"])
def test_an_error_followed_by_an_abort_ends_with_the_deployed_arm(operation):
    bench = Bench(plan(), effect=0.75)
    bench.server.fail[operation] = [AdjustmentError("no")]
    while True:
        try:
            bench.tick()
        except AdjustmentError:
            break
    bench.trial.abort("the change was not made")
    bench.check_end()
    assert bench.trial.verdict is Verdict.ABORTED


def _verdict_with_a_stubborn_arm(bench: Bench, errors: int) -> int:
    """Let leaving the arm fail at the trial's end; how often tick() raised."""
    whole = Bench(bench.trial.plan, effect=bench.server.effect)
    whole.run()
    leaves = whole.server.log.count("leave")
    leave = bench.server.leave
    left = 0

    def stubborn(batch_id: str, reason: str) -> None:
        nonlocal left, errors
        if left == leaves - 1 and errors > 0:
            errors -= 1
            raise AdjustmentError("not now")
        leave(batch_id, reason)
        left += 1

    bench.server.leave = stubborn
    raised = 0
    while not bench.trial.finished:
        assert bench.clock.monotonic_s() < 20_000
        try:
            bench.tick()
        except AdjustmentError:
            raised += 1
    return raised


@pytest.mark.parametrize("errors", [1, 3])
def test_a_verdict_outlives_an_arm_that_cannot_be_left_at_once(errors):
    """The last block ends under the candidate and taking it off fails: tried again, kept."""
    bench = Bench(plan(seed=seed_that_ends_in_the_other_arm()), effect=0.75)
    assert _verdict_with_a_stubborn_arm(bench, errors) == errors
    bench.check_end()
    assert bench.trial.verdict is Verdict.ACCEPT
    assert len(bench.order) == 16


def test_an_abort_whose_rollback_fails_is_carried_out_by_the_next_tick():
    bench = Bench(plan(TrialKind.PROBE))
    bench.run_until(lambda: bench.server.other_stands)
    bench.server.fail["leave"] = [AdjustmentError("not now")]
    with pytest.raises(AdjustmentError):
        bench.trial.abort("an operator acts")
    assert not bench.trial.finished
    bench.tick()
    bench.check_end()
    assert bench.trial.verdict is Verdict.ABORTED
