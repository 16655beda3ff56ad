"""One promotion trial at a time, on anything that gives snapshots; and the load that doubles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend.config import Settings
from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.modes import Arm, TrialKind, Verdict
from backend.domain.safety import SafetyVerdict
from backend.gate import GateSettings
from backend.safety_monitor import SafetyMonitor, safety_limits
from backend.sample_filter import Reference
from backend.targets.simulated import SimulatedDatabase
from backend.trial_danger import SafetyJudge
from backend.trials import ArmSwitch, Trial, TrialPlan
from benchmarks.filter_experiment.scenario import configuration_at, doubling_server

TICK_S = 0.5
BASELINE_S = 60
LONGEST_S = 4 * 3600.0
"""A trial that runs for longer is a bug: it should have been given up long before."""


@dataclass(frozen=True)
class Truth:
    """What a candidate truly is: its index lies between the two bounds."""

    name: str
    low: float
    high: float
    wrong: Verdict

    @classmethod
    def all(cls) -> tuple[Truth, ...]:
        """A better, an equal and a worse candidate."""
        return (
            cls("better", 0.85, 0.93, Verdict.REJECT),
            cls("equal", 1.0, 1.0, Verdict.ACCEPT),
            cls("worse", 1.07, 1.15, Verdict.ACCEPT),
        )


class SimulatedSwitch:
    """Puts a candidate on a simulated server without a journal."""

    def __init__(self, target: SimulatedDatabase) -> None:
        self._target = target

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        """Apply."""
        self._target.write_entries(values)
        self._target.reload()
        self._there = tuple(values)
        return "candidate"

    def leave(self, batch_id: str, reason: str) -> None:
        """Take off."""
        self._target.write_entries(dict.fromkeys(self._there))
        self._target.reload()


class NoSwitch:
    """Both arms are the same: there is nothing to switch."""

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        """Nothing."""
        return ""

    def leave(self, batch_id: str, reason: str) -> None:
        """Nothing."""


def promotion_plan(
    settings: Settings, values: Mapping[str, KnobValue], shares: Reference, seed: int
) -> TrialPlan:
    """A promotion as the product plans the first of a day, with the whole allowance of a trial."""
    level1 = settings.level1
    return TrialPlan(
        kind=TrialKind.PROMOTION,
        proposer="experiment",
        before={},
        after=dict(values),
        other_values=dict(values),
        deployed=Arm.INCUMBENT,
        shares=shares,
        gate=GateSettings(
            alpha=min(level1.alpha, level1.daily_alpha / 2),
            min_improvement=level1.min_improvement,
            min_blocks=level1.min_blocks,
            max_blocks=level1.max_blocks,
            max_class_regression=level1.max_class_regression,
            min_coverage=level1.min_coverage,
        ),
        window_s=level1.window_s,
        settle_s=level1.settle_s,
        filtered=level1.sample_filter,
        min_quality=level1.min_quality,
        seed=seed,
    )


def safety_judge(settings: Settings) -> SafetyJudge:
    """The product's safety monitor as trials ask it."""
    monitor = SafetyMonitor(safety_limits(settings))

    def judge(
        window: MetricsWindow, baseline: MetricsWindow | None, log_ratio: float | None
    ) -> SafetyVerdict:
        return monitor.judge(window, baseline=baseline, log_ratio=log_ratio, candidate_active=True)

    return judge


def run_trial(
    plan: TrialPlan,
    collect: Callable[[], MetricsSnapshot],
    switch: ArmSwitch,
    clock: ManualClock,
    judge: SafetyJudge,
) -> Trial:
    """Run a trial to its end in simulated time."""
    trial = Trial(
        plan,
        collect=collect,
        switch=switch,
        clock=clock,
        on_window=lambda measured: None,
        judge_safety=judge,
    )
    began_s = clock.monotonic_s()
    while not trial.finished:
        trial.tick()
        clock.advance(TICK_S)
        if clock.monotonic_s() - began_s > LONGEST_S:
            raise RuntimeError(f"a trial has not ended after {LONGEST_S:g} s")
    return trial


def verdicts_under_doubling(
    settings: Settings, seeds: Sequence[int], filtered: bool
) -> dict[str, Counter[Verdict]]:
    """Verdicts by truth, where the load doubles at a random moment within the trial."""
    level1 = settings.level1.model_copy(update={"sample_filter": filtered})
    settings = settings.model_copy(update={"level1": level1})
    found: dict[str, Counter[Verdict]] = {truth.name: Counter() for truth in Truth.all()}
    least_s = level1.min_blocks * 4 * (level1.window_s + level1.settle_s)
    for seed in seeds:
        for truth in Truth.all():
            rng = np.random.default_rng([seed, 1])
            target = doubling_server(seed, BASELINE_S + rng.uniform(0.0, least_s))
            candidate = _candidate(target, truth, rng)
            found[truth.name][_verdict(settings, target, candidate, seed)] += 1
    return found


def _candidate(target: SimulatedDatabase, truth: Truth, rng: np.random.Generator) -> KnobConfig:
    if truth.low == truth.high == 1.0:
        return target.space.default_config()
    return configuration_at(target.model, truth.low, truth.high, rng)


def _verdict(
    settings: Settings, target: SimulatedDatabase, candidate: KnobConfig, seed: int
) -> Verdict:
    clock = target.clock
    assert isinstance(clock, ManualClock)
    first = target.snapshot()
    clock.advance(BASELINE_S)
    baseline = window_between(first, target.snapshot())
    assert baseline is not None  # nothing happened to the server meanwhile
    plan = promotion_plan(settings, dict(candidate), Reference.from_windows([baseline]), seed)
    trial = run_trial(
        replace(plan, before=dict(target.space.default_config())),
        target.snapshot,
        SimulatedSwitch(target),
        clock,
        safety_judge(settings),
    )
    assert trial.verdict is not None  # it has finished
    return trial.verdict
