"""The verification's course: turns, time-outs, answers, disturbances, what is recorded."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from backend.domain.plans import DEFAULT_HINT_SET, PlanRun, RunOutcome
from backend.errors import ServerConnectionError
from backend.steering.proof.verification import Verification, VerificationResult
from backend.steering.statements.read_only import ReadOnlyVerdict
from tests.verification_fakes import (
    HINT_SET,
    IN_FORCE,
    FakeRunner,
    carried_through,
    normal,
    verification,
)

AT = datetime(2030, 1, 1, tzinfo=timezone.utc)


def fast(statements: int = 3, default_s: float = 0.1) -> FakeRunner:
    """Statements that take half the time under the hint set."""
    return FakeRunner([default_s] * statements, [math.log(0.5)] * statements, normal(0.05))


def finished(latency_s: float, checksum: str = "0" * 32) -> PlanRun:
    return PlanRun(RunOutcome.FINISHED, latency_s, rows=1, checksum=checksum)


def test_each_statement_is_warmed_under_both_plans_before_its_first_pair() -> None:
    runner = fast()
    made = verification(runner)
    result = carried_through(made)
    assert result.proven
    for statement in "012":
        own = [arms for name, arms, _ in runner.calls if name == statement]
        assert own[:2] == [(True,), (False,)]
        assert all(sorted(arms) == [False, True] for arms in own[2:])
    # Warming is paid for, but neither counted nor recorded.
    assert result.pairs == 9
    assert len(made.runs) == 18
    assert sum(len(arms) for _, arms, _ in runner.calls) == 24
    assert made.spent_s > sum(recorded.run.latency_s for recorded in made.runs)


def test_statements_take_turns_and_plans_change_places() -> None:
    runner = FakeRunner([0.1] * 4, [0.0] * 4, normal(0.3))
    made = verification(runner)
    carried_through(made)
    pairs = [(name, arms) for name, arms, _ in runner.calls if len(arms) == 2]
    turns = [name for name, _ in pairs]
    rounds = [tuple(turns[start : start + 4]) for start in range(0, len(turns) // 4 * 4, 4)]
    assert all(sorted(one) == list("0123") for one in rounds)
    assert len(set(rounds)) > 1
    assert {arms for _, arms in pairs} == {(True, False), (False, True)}


def test_the_same_seed_makes_the_same_runs() -> None:
    first, second, other = (fast() for _ in range(3))
    carried_through(verification(first, seed=4))
    carried_through(verification(second, seed=4))
    carried_through(verification(other, seed=5))
    assert first.calls == second.calls
    assert first.calls != other.calls


def test_short_statements_run_several_times_in_a_pair_and_their_median_counts() -> None:
    rng = random.Random(2)

    def rarely_late(rng_: random.Random) -> float:
        return 5.0 if rng.random() < 0.1 else 0.0

    runner = FakeRunner([0.001], [math.log(0.5)], rarely_late)
    made = verification(runner)
    result = carried_through(made)
    pairs = [arms for _, arms, _ in runner.calls if len(arms) > 1]
    assert {Counter(arms)[True] for arms in pairs} == {9}
    assert {Counter(arms)[False] for arms in pairs} == {9}
    assert result.proven
    assert result.pairs == len(pairs)
    assert result.effect == pytest.approx(-0.5)
    assert (result.default_ms, result.steered_ms) == (pytest.approx(1.0), pytest.approx(0.5))
    assert [recorded.run.latency_s for recorded in made.runs[:2]] == pytest.approx([1e-3, 5e-4])


@pytest.mark.parametrize(("default_s", "repeats"), [(0.004, 9), (0.009, 5), (0.02, 1), (9.0, 1)])
def test_long_statements_run_fewer_times(default_s: float, repeats: int) -> None:
    runner = fast(1, default_s)
    runner.noise = lambda rng: 0.0
    made = verification(runner)
    made.step()
    made.step()
    assert len(runner.calls[-1][1]) == 2 * repeats


def test_time_outs_follow_the_default_plan_and_never_pass_the_longest() -> None:
    runner = FakeRunner([1.0, 20.0], [math.log(0.5)] * 2)
    carried_through(verification(runner, max_timeout_s=30.0))
    for name, arms, timeouts in runner.calls:
        for is_default, timeout_s in zip(arms, timeouts, strict=True):
            expected = 30.0 if is_default or name == "1" else 4.5
            assert timeout_s == pytest.approx(expected)


def test_of_many_statements_some_are_drawn_and_none_twice() -> None:
    runner = fast(30)
    verdicts = [ReadOnlyVerdict(str(index)) for index in range(30) for _ in range(2)]
    made = Verification(
        runner,  # type: ignore[arg-type]
        HINT_SET, verdicts, min_gain=0.1, alpha=0.005, max_timeout_s=30.0, seed=3,
    )  # fmt: skip
    result = carried_through(made)
    names = {name for name, _, _ in runner.calls}
    assert result.statements == len(names) == 8
    assert names != {str(index) for index in range(8)}
    # Indices are of the verdicts that were given.
    assert {verdicts[recorded.statement].statement for recorded in made.runs} == names


def test_progress_rises_to_one() -> None:
    made = verification(FakeRunner([0.1] * 3, [0.0] * 3, normal(0.3)))
    seen = [made.progress]
    while made.step() is None:
        seen.append(made.progress)
    assert seen == sorted(seen)
    assert (seen[0], made.progress) == (0.0, 1.0)
    assert seen[-1] < 1.0


def test_the_result_stays() -> None:
    runner = fast()
    made = verification(runner)
    result = carried_through(made)
    calls = len(runner.calls)
    assert made.step() is result
    assert len(runner.calls) == calls


# -- what is never proven --------------------------------------------------------------------------


def test_another_answer_ends_it() -> None:
    runner = fast(1)
    runner.outcomes[(5, False)] = finished(0.01, checksum="f" * 32)
    result = carried_through(verification(runner))
    assert not result.proven
    assert "answers" in result.reason
    assert len(runner.calls) == 6


def test_answers_are_not_compared_between_two_states_of_the_data() -> None:
    """The runs that warm are of two snapshots: the application may have written in between."""
    runner = fast(1)
    runner.outcomes[(1, False)] = finished(0.01, checksum="f" * 32)
    assert carried_through(verification(runner)).proven


@pytest.mark.parametrize("call", [1, 4])
def test_a_time_out_of_the_hinted_plan_ends_it_and_is_recorded(call: int) -> None:
    runner = fast(1)
    runner.outcomes[(call, False)] = PlanRun(RunOutcome.TIMED_OUT, 0.9)
    made = verification(runner)
    result = carried_through(made)
    assert not result.proven
    assert "stopped after 0.9 s" in result.reason
    assert len(runner.calls) == call + 1
    assert made.runs[-1].run.outcome is RunOutcome.TIMED_OUT


@pytest.mark.parametrize("outcome", [RunOutcome.FAILED, RunOutcome.TOO_LARGE])
@pytest.mark.parametrize(("call", "is_default"), [(0, True), (1, False), (3, True), (3, False)])
def test_a_run_that_fails_ends_it(outcome: RunOutcome, is_default: bool, call: int) -> None:
    runner = fast(1)
    runner.outcomes[(call, is_default)] = PlanRun(outcome, 0.1, detail="value 'Ms Miller' (22P02)")
    result = carried_through(verification(runner))
    assert not result.proven
    assert not result.disturbed
    assert ("22P02" if outcome is RunOutcome.FAILED else outcome.value) in result.reason
    assert "Miller" not in result.reason
    assert len(runner.calls) == call + 1


def test_a_default_plan_that_times_out_counts_with_its_bound() -> None:
    runner = FakeRunner([1.0, 40.0], [math.log(0.1)] * 2, normal(0.02))
    made = verification(runner, max_timeout_s=30.0)
    result = carried_through(made)
    assert result.proven
    assert result.default_ms == pytest.approx(15_500, rel=0.02)
    assert result.effect == pytest.approx(math.sqrt(0.1 * 4 / 30) - 1, rel=0.02)


def test_without_an_answer_to_compare_with_nothing_is_proven() -> None:
    runner = FakeRunner([40.0], [math.log(0.1)])
    result = carried_through(verification(runner, max_timeout_s=30.0))
    assert not result.proven
    assert "no answer to compare with" in result.reason
    assert result.pairs == 1


# -- disturbances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [RunOutcome.LOCKED, RunOutcome.CANCELLED])
def test_what_was_disturbed_is_repeated(outcome: RunOutcome) -> None:
    runner = fast(1)
    for call, is_default in ((0, True), (2, False), (5, True), (6, False)):
        runner.outcomes[(call, is_default)] = PlanRun(outcome, 0.1, detail="a lock")
    result = carried_through(verification(runner))
    assert result.proven
    assert result.pairs == 8


def test_what_is_always_disturbed_comes_to_nothing() -> None:
    runner = fast(1)
    runner.outcomes.update(
        {(call, True): PlanRun(RunOutcome.LOCKED, 0.1, detail="a lock") for call in range(2, 99)}
    )
    result = carried_through(verification(runner))
    assert not result.proven
    assert result.disturbed
    assert "a lock" in result.reason
    assert len(runner.calls) < 12


def test_a_lost_connection_is_raised_and_the_step_can_be_made_again() -> None:
    runner = fast(1)
    runner.outcomes[(4, True)] = ServerConnectionError("gone")
    made = verification(runner)
    with pytest.raises(ServerConnectionError):
        carried_through(made)
    result = carried_through(made)
    assert result.proven
    assert result.pairs == 8


def test_settings_that_change_meanwhile_void_all_pairs_so_far() -> None:
    runner = fast(1)
    made = verification(runner)
    for _ in range(5):
        made.step()
    assert made.under == IN_FORCE
    runner.settings = {**IN_FORCE, "work_mem": "64MB"}
    before = len(runner.calls)
    result = carried_through(made)
    assert result.proven
    assert made.under["work_mem"] == "64MB"
    # The pair in which it was noticed, then both plans warmed anew, then all pairs.
    assert len(runner.calls) == before + 1 + 2 + 8
    assert result.pairs == 8


# -- evidence --------------------------------------------------------------------------------------


def result_of(ratio: float) -> tuple[Verification, VerificationResult]:
    made = verification(FakeRunner([0.1] * 3, [math.log(ratio)] * 3, normal(0.05)))
    return made, carried_through(made)


def test_evidence_of_a_proof() -> None:
    made, result = result_of(0.5)
    evidence = result.evidence(
        HINT_SET, under=made.under, functions=["sum", "count"], default_plan="Nested Loop",
        steered_plan="Hash Join", verified_at=AT,
    )  # fmt: skip
    assert evidence.hint_set == "no_nestloop"
    assert evidence.settings == {"enable_nestloop": "off"}
    assert evidence.under == {"enable_nestloop": "on"}
    assert evidence.settings_in_force == made.under
    assert len(evidence.settings_in_force) > 1
    assert evidence.functions == ("count", "sum")
    assert (evidence.statements, evidence.pairs) == (3, result.pairs)
    assert evidence.ci_low < evidence.effect < evidence.ci_high < 0
    assert evidence.confidence == pytest.approx(1 - 0.005 / 3)
    assert evidence.default_ms == pytest.approx(100, rel=0.1)
    assert evidence.steered_ms == pytest.approx(50, rel=0.1)
    assert (evidence.default_plan, evidence.steered_plan) == ("Nested Loop", "Hash Join")
    assert evidence.verified_at == AT


def test_no_evidence_without_a_proof() -> None:
    made, result = result_of(1.0)
    assert not result.proven
    for refused in (result, replace(result, proven=True, effect=None)):
        with pytest.raises(ValueError, match="no evidence for no_nestloop"):
            refused.evidence(
                HINT_SET, under=made.under, functions=(), default_plan="", steered_plan="",
                verified_at=AT,
            )  # fmt: skip


def test_what_cannot_be_verified_is_refused() -> None:
    runner = fast()
    with pytest.raises(ValueError, match="needs a statement"):
        verification(FakeRunner([], []))
    with pytest.raises(ValueError, match="it writes"):
        Verification(
            runner,  # type: ignore[arg-type]
            HINT_SET, [ReadOnlyVerdict("0"), ReadOnlyVerdict("", "it writes")], min_gain=0.1,
            alpha=0.005, max_timeout_s=1.0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="no verification"):
        Verification(
            runner,  # type: ignore[arg-type]
            DEFAULT_HINT_SET, [ReadOnlyVerdict("0")], min_gain=0.1, alpha=0.005, max_timeout_s=1.0,
        )  # fmt: skip
