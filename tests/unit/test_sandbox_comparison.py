"""Blocks of candidate and incumbent, without a server."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import pytest

from backend.domain.modes import Arm
from backend.sandbox.comparison import (
    CandidateFailedError,
    ComparisonRule,
    InterruptedCheckError,
    Pass,
    compare,
)
from backend.sandbox.outcome import SandboxOutcome, SandboxResult

SHARES = {"a": 0.6, "b": 0.38, "rare": 0.02}
REFERENCE_S = dict.fromkeys(SHARES, 0.01)
RULE = ComparisonRule(SHARES, REFERENCE_S, max_regression=0.15, min_blocks=4, max_blocks=8, seed=1)


class FakeBench:
    """Times with noise; the candidate's are multiplied."""

    def __init__(
        self,
        factors: Mapping[str, float] | None = None,
        noise: float = 0.02,
        seed: int = 0,
        passes: int = 1000,
    ) -> None:
        self._factors, self._noise = dict(factors or {}), noise
        self._draw, self._left = random.Random(seed), passes
        self.arms: list[Arm] = []

    def run_pass(self, arm: Arm) -> Pass:
        if self._left == 0:
            raise InterruptedCheckError("out of time")
        self._left -= 1
        self.arms.append(arm)
        return Pass(
            {
                key: 0.01
                * (self._factors.get(key, 1.0) if arm is Arm.CANDIDATE else 1.0)
                * self._draw.lognormvariate(0, self._noise)
                for key in SHARES
            }
        )


class BreakingBench(FakeBench):
    """A class breaks in the given passes of the given arm."""

    def __init__(self, broken: Mapping[Arm, set[int]]) -> None:
        super().__init__()
        self._broken, self._seen = broken, {Arm.INCUMBENT: 0, Arm.CANDIDATE: 0}

    def run_pass(self, arm: Arm) -> Pass:
        found = super().run_pass(arm)
        self._seen[arm] += 1
        if self._seen[arm] in self._broken.get(arm, ()):
            return Pass({k: v for k, v in found.times_s.items() if k != "a"}, {"a": "fails"})
        return found


def everywhere(factor: float) -> dict[str, float]:
    return dict.fromkeys(SHARES, factor)


class TestOutcomes:
    def test_one_that_is_no_slower_passes_at_the_first_look(self) -> None:
        found = compare(FakeBench(), RULE)

        assert found.outcome is SandboxOutcome.PASSED
        assert found.blocks == 4
        assert found.interval is not None
        assert found.interval.low < 0 < found.interval.high

    def test_a_faster_one_passes(self) -> None:
        assert compare(FakeBench(everywhere(0.5)), RULE).outcome is SandboxOutcome.PASSED

    def test_one_that_is_proven_slower_fails(self) -> None:
        found = compare(FakeBench(everywhere(1.5)), RULE)

        assert found.outcome is SandboxOutcome.FAILED
        assert not found.may_be_tried
        assert "proven slower by more than 15%" in found.reasons[0]

    def test_what_it_may_lose_is_no_failure(self) -> None:
        assert compare(FakeBench(everywhere(1.1)), RULE).outcome is SandboxOutcome.PASSED

    def test_a_class_badly_hurt_fails_it_though_the_total_gains(self) -> None:
        found = compare(FakeBench({"a": 0.2, "b": 2.0}), RULE)

        assert found.outcome is SandboxOutcome.FAILED
        assert found.interval is not None
        assert found.interval.high < 0
        assert "class b is badly hurt" in found.reasons[0]

    def test_a_class_that_hardly_counts_is_not_guarded(self) -> None:
        assert compare(FakeBench({"rare": 3.0}), RULE).outcome is SandboxOutcome.PASSED

    def test_noise_alone_proves_nothing(self) -> None:
        found = compare(FakeBench(everywhere(1.2), noise=1.0), RULE)

        assert found.outcome is SandboxOutcome.PASSED
        assert found.blocks == 8
        assert "not proven slower" in found.reasons[0]

    def test_the_time_shares_weigh_the_classes(self) -> None:
        found = compare(FakeBench({"a": 1.4}, noise=0.001), RULE)

        assert found.interval is not None
        assert found.interval.effect == pytest.approx(0.6 * 0.4, abs=0.01)
        assert found.class_intervals["a"].effect == pytest.approx(0.4, abs=0.01)


class TestFalseFailures:
    def test_noise_does_not_look_like_a_loss(self) -> None:
        """The mean of noisy ratios would be 20 % too high here."""
        rule = replace(RULE, shares={"a": 0.4, "b": 0.3, "rare": 0.3}, min_blocks=8)
        found = [compare(FakeBench(noise=0.85, seed=seed), rule).interval for seed in range(100)]

        effects = [math.log1p(interval.effect) for interval in found if interval is not None]
        assert fmean(effects) == pytest.approx(0, abs=0.05)

    def test_a_candidate_that_changes_nothing_seldom_fails(self) -> None:
        failed = sum(
            not compare(FakeBench(noise=0.3, seed=seed), RULE).may_be_tried for seed in range(200)
        )

        assert failed <= 4

    def test_a_harmful_one_is_caught_under_noise(self) -> None:
        caught = sum(
            not compare(FakeBench(everywhere(3.0), noise=0.3, seed=seed), RULE).may_be_tried
            for seed in range(50)
        )

        assert caught == 50


class TestBrokenClasses:
    def test_a_class_that_breaks_in_every_pass_of_two_blocks_fails_it(self) -> None:
        found = compare(BreakingBench({Arm.CANDIDATE: {3, 4, 5, 6}}), RULE)

        assert found.outcome is SandboxOutcome.FAILED
        assert found.reasons == ("class a: fails",)
        assert found.blocks == 2

    @pytest.mark.parametrize("passes", [{2}, {1, 2}, {2, 3}, {1, 2, 4}, {1, 2, 5, 6}])
    def test_one_that_breaks_now_and_then_is_left_out_of_those_blocks(
        self, passes: set[int]
    ) -> None:
        found = compare(BreakingBench({Arm.CANDIDATE: passes}), RULE)

        assert found.outcome is SandboxOutcome.PASSED
        assert found.blocks == 4

    def test_where_all_break_all_the_time_it_fails(self) -> None:
        class Broken(FakeBench):
            def run_pass(self, arm: Arm) -> Pass:
                found = super().run_pass(arm)
                why = dict.fromkeys([*SHARES, "d", "e"], "fails")
                return Pass({}, why) if arm is Arm.CANDIDATE else found

        found = compare(Broken(), RULE)

        assert found.outcome is SandboxOutcome.FAILED
        assert found.reasons[-1] == "and 2 more"

    def test_one_that_breaks_under_both_arms_is_not_the_candidates_doing(self) -> None:
        found = compare(BreakingBench({Arm.CANDIDATE: {1, 2, 3, 4}, Arm.INCUMBENT: {1, 4}}), RULE)

        assert found.outcome is SandboxOutcome.PASSED

    def test_where_nothing_ends_well_nothing_can_be_told(self) -> None:
        class Dead(FakeBench):
            def run_pass(self, arm: Arm) -> Pass:
                return Pass({}, dict.fromkeys(SHARES, "fails"))

        assert compare(Dead(), RULE).outcome is SandboxOutcome.UNKNOWN


class TestEnds:
    def test_too_few_blocks_prove_nothing(self) -> None:
        found = compare(FakeBench(everywhere(3.0), passes=15), RULE)

        assert found.outcome is SandboxOutcome.UNKNOWN
        assert found.reasons == ("out of time after 3 of at least 4 blocks",)
        assert found.may_be_tried

    def test_enough_blocks_are_judged_though_time_is_over(self) -> None:
        found = compare(FakeBench(everywhere(1.2), noise=0.5, passes=21), RULE)

        assert found.outcome is SandboxOutcome.PASSED
        assert "out of time" in found.reasons[-1]

    def test_a_server_that_does_not_start_fails_the_candidate(self) -> None:
        class NoStart(FakeBench):
            def run_pass(self, arm: Arm) -> Pass:
                if arm is Arm.CANDIDATE:
                    raise CandidateFailedError("does not start")
                return super().run_pass(arm)

        found = compare(NoStart(), RULE)

        assert found.outcome is SandboxOutcome.FAILED
        assert found.reasons == ("does not start",)


class TestOrder:
    def test_each_block_is_balanced_and_both_orders_occur(self) -> None:
        bench = FakeBench(everywhere(1.2), noise=1.0)

        compare(bench, RULE)

        blocks = [tuple(bench.arms[i : i + 4]) for i in range(0, len(bench.arms), 4)]
        assert all(block[0] is block[3] and block[1] is block[2] for block in blocks)
        assert all(block[0] is not block[1] for block in blocks)
        assert {block[0] for block in blocks} == set(Arm)

    def test_the_same_seed_gives_the_same_order(self) -> None:
        first, second = FakeBench(noise=1.0), FakeBench(noise=1.0)
        compare(first, RULE)
        compare(second, RULE)

        assert first.arms == second.arms


def test_only_a_failure_keeps_a_candidate_from_being_tried() -> None:
    tried = {outcome: SandboxResult(outcome, ("why",)).may_be_tried for outcome in SandboxOutcome}

    assert tried == {
        SandboxOutcome.FAILED: False,
        SandboxOutcome.PASSED: True,
        SandboxOutcome.UNKNOWN: True,
    }
