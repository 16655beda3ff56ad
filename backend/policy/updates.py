"""New policies: learnt on all that was recorded, judged on what they never saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backend.policy.knob_policy import (
    KnobPolicy,
    advantage_weights,
    learn_critics,
    learn_knob_policies,
)
from backend.policy.off_policy import Estimate, estimate
from backend.policy.plan_policy import PlanPolicy, estimate_plans, learn_plan_policies
from backend.policy.recorded_plans import RecordedPlans
from backend.policy.recorded_trials import FOLDS, FloatArray, RecordedTrials

Actions = Callable[[FloatArray, FloatArray], FloatArray]
"""Encoded configurations for raw states, in place of what stands."""


class Candidate(NamedTuple):
    """A policy that was learnt, and what is known of it.

    Args:
        policy: learnt on everything.
        estimate: of the policies of the folds, each on what it never saw.
        whole: of ``policy`` itself, on what it has seen: a bound from above.
    """

    policy: KnobPolicy
    estimate: Estimate
    whole: Estimate


def learn_and_judge(
    data: RecordedTrials,
    incumbent: Actions | None,
    columns: Sequence[int],
    *,
    alpha: float,
    seed: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Candidate:
    """Learn a policy in every fold and one on everything, and compare with the incumbent's.

    Args:
        data: what was recorded.
        incumbent: the policy that would be replaced; None: what stood when each episode began.
        columns: coordinates of the state that tell which load it is.
        alpha: chance that a side of an interval misses.
        seed: same seed and same data, same answer.
        stopped: asked now and then.

    Raises:
        LearningStoppedError: ``stopped`` said so.
    """
    folds = data.folds()
    seen = np.array([folds != fold for fold in range(FOLDS)] + [np.ones(len(data), np.bool_)])
    critics = learn_critics(data, seen, seed=seed, stopped=stopped)
    weights = advantage_weights(data, critics, seen)
    *of_folds, policy = learn_knob_policies(data, weights, columns, seed=seed, stopped=stopped)
    stood = data.first_actions()
    old = stood if incumbent is None else incumbent(data.states, stood)

    def judge(actions: FloatArray) -> Estimate:
        return estimate(data, folds, critics, actions, old, alpha=alpha, seed=seed)

    crossed = np.empty_like(data.actions)
    for fold, one in enumerate(of_folds):
        held_out = folds == fold
        crossed[held_out] = one.actions(data.states[held_out], stood[held_out])
    return Candidate(policy, judge(crossed), judge(policy.actions(data.states, stood)))


def learn_and_judge_plans(
    data: RecordedPlans,
    incumbent: PlanPolicy | None,
    *,
    alpha: float,
    seed: int,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[PlanPolicy, Estimate]:
    """The same for plans: the policy learnt on everything, and what those of the folds gain.

    Args:
        data: what was recorded.
        incumbent: the policy that would be replaced; None: what was done without one.
        alpha: chance that a side of the interval misses.
        seed: same seed and same data, same answer.
        stopped: asked now and then.

    Raises:
        LearningStoppedError: ``stopped`` said so.
    """
    *of_folds, policy = learn_plan_policies(data, seed=seed, stopped=stopped)
    folds, crossed = data.folds(), np.zeros(len(data), dtype=np.int64)
    for fold, one in enumerate(of_folds):
        held_out = folds == fold
        crossed[held_out] = one.choices(data.features[held_out])
    stood = None
    if incumbent is not None:
        stood = data.numbers(incumbent.arms)[incumbent.choices(data.features)]
    return policy, estimate_plans(data, crossed, stood, alpha=alpha, seed=seed)


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a policy may replace another.

    Args:
        min_improvement: least mean gain, as a share of the latency.
        min_coverage: least coverage: below it the estimate rests on the critics' word alone.
        min_effective: likewise, least effective sample size.
    """

    min_improvement: float
    min_coverage: float = 0.1
    min_effective: float = 8.0

    def objection(self, found: Estimate) -> str:
        """Why not; "" for nothing against it."""
        if found.interval is None:
            return "too few independent parts to tell its gain from chance"
        if not found.effective >= self.min_effective or not found.coverage >= self.min_coverage:
            return (
                f"too little was recorded near what it would do: {found.effective:.1f} effective "
                f"samples, {found.coverage:.0%} of the held-out ones"
            )
        if not found.interval.high < 0.0:
            return f"not clearly better: latency {found.interval}"
        if not -found.interval.effect >= self.min_improvement:
            return f"the gain of {-found.interval.effect:.1%} is below {self.min_improvement:.0%}"
        return ""
