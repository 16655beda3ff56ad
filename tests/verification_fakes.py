"""A server that answers with latencies drawn by lot, for tests of the verification."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from backend.domain.plans import HintSet, PlanRun, RunOutcome
from backend.steering.proof.verification import Verification, VerificationResult
from backend.steering.running.runner import StatementRunner
from backend.steering.statements.read_only import ReadOnlyVerdict

HINT_SET = HintSet("no_nestloop", {"enable_nestloop": "off"})
IN_FORCE = {"enable_nestloop": "on", "work_mem": "4MB"}

Noise = Callable[[random.Random], float]
"""Draws what is added to the logarithm of a latency."""


def normal(spread: float) -> Noise:
    """Noise that is symmetric and light."""
    return lambda rng: rng.gauss(0.0, spread)


def heavy_tails(spread: float) -> Noise:
    """Student's t with 3 degrees of freedom, of that standard deviation."""
    return lambda rng: rng.gauss(0.0, spread / math.sqrt(3 * rng.gammavariate(1.5, 1 / 1.5)))


def hiccups(spread: float) -> Noise:
    """Light noise, and now and then a run that takes much longer."""

    def draw(rng: random.Random) -> float:
        late = rng.expovariate(1 / (4 * spread)) if rng.random() < 0.1 else 0.0
        return rng.gauss(0.0, spread / 2) + late

    return draw


class FakeRunner:
    """Runs statements named ``0``, ``1``, ...; what it was asked for is kept.

    Args:
        default_s: latency of each statement under the default plan.
        log_ratios: of the hinted to the default plan, of each statement.
        noise: of each run.
        rng: draws it.
    """

    def __init__(
        self,
        default_s: Sequence[float],
        log_ratios: Sequence[float],
        noise: Noise = lambda rng: 0.0,
        rng: random.Random | None = None,
    ) -> None:
        self.default_s, self.log_ratios = default_s, log_ratios
        self.noise, self.rng = noise, rng or random.Random(0)
        self.calls: list[tuple[str, tuple[bool, ...], tuple[float, ...]]] = []
        self.settings: Mapping[str, str] = IN_FORCE
        self.outcomes: dict[tuple[int, bool], PlanRun | Exception] = {}
        """(number of the call from 0, whether under the default plan) → what happens instead."""

    def in_force(self, settings: Iterable[str]) -> Mapping[str, str]:
        assert set(self.settings) <= set(settings)
        return dict(self.settings)

    def run(
        self, verdict: ReadOnlyVerdict, arms: Sequence[HintSet], timeouts_s: Sequence[float]
    ) -> list[PlanRun]:
        call = len(self.calls)
        self.calls.append(
            (verdict.statement, tuple(arm.is_default for arm in arms), tuple(timeouts_s))
        )
        return [
            self._one(call, int(verdict.statement), arm, timeout_s)
            for arm, timeout_s in zip(arms, timeouts_s, strict=True)
        ]

    def _one(self, call: int, statement: int, arm: HintSet, timeout_s: float) -> PlanRun:
        instead = self.outcomes.get((call, arm.is_default))
        if isinstance(instead, Exception):
            raise instead
        if instead is not None:
            return instead
        log_ratio = 0.0 if arm.is_default else self.log_ratios[statement]
        latency_s = self.default_s[statement] * math.exp(log_ratio + self.noise(self.rng))
        if latency_s > timeout_s:
            return PlanRun(RunOutcome.TIMED_OUT, timeout_s)
        return PlanRun(RunOutcome.FINISHED, latency_s, rows=1, checksum="0" * 32)


def verification(runner: FakeRunner, **arguments: Any) -> Verification:
    """A verification of all statements of a fake runner."""
    verdicts = [ReadOnlyVerdict(str(index)) for index in range(len(runner.default_s))]
    settings = {"min_gain": 0.1, "alpha": 0.005, "max_timeout_s": 30.0, **arguments}
    return Verification(cast(StatementRunner, runner), HINT_SET, verdicts, **settings)


def carried_through(made: Verification) -> VerificationResult:
    """Its result."""
    while (result := made.step()) is None:
        pass
    return result
