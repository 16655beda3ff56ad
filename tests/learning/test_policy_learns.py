"""Level 1 learns policies that are better, lets them pass, and no harmful one with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from backend.agent.action_grid import ActionGrid
from backend.domain.plans import DEFAULT_HINT_SET
from backend.plan_agent.settings import PlanAgentSettings
from backend.policy.knob_policy import Critics, learn_critics
from backend.policy.off_policy import estimate
from backend.policy.plan_policy import estimate_plans
from backend.policy.recorded_plans import RecordedPlans, recorded_plans
from backend.policy.recorded_trials import FOLDS, FloatArray, RecordedTrials
from backend.policy.updates import Rule, learn_and_judge, learn_and_judge_plans
from backend.query_optimizer import PlanAgent
from backend.state_features import OFFERED_COLUMNS
from backend.targets.simulated_model import DEFAULT_BEST
from tests.learning.toy_planner import CATALOG, toy_queries
from tests.recorded_tuning import SPACE, Workload, recorded, workload

ALPHA = 0.005
RULE = Rule(min_improvement=0.02)
PLAN_RULE = Rule(min_improvement=0.02, min_coverage=0.5)
OTHER_BEST = {
    **DEFAULT_BEST,
    "work_mem": 1024,
    "hash_mem_multiplier": 1.2,
    "effective_cache_size": 100_000,
    "random_page_cost": 7.0,
    "cpu_tuple_cost": 0.003,
}
HARM = math.log(1.05)
"""A policy is deliberately harmful where it is 5 % slower than what stood."""


def log_index(policy_actions: FloatArray, data: RecordedTrials, workloads: list[Workload]) -> float:
    """The exact mean ln(index) of what a policy does at the beginning of each episode."""
    _, first = np.unique(data.episodes, return_index=True)
    pairs = zip(workloads, policy_actions[first], strict=True)
    return float(np.mean([one.log_index(action) for one, action in pairs]))


def test_a_policy_does_in_each_state_what_is_good_there() -> None:
    tastes = [(0.0, DEFAULT_BEST), (5.0, OTHER_BEST)]
    workloads = [
        workload(10 * number + i, best=best, taste=taste)
        for number, (taste, best) in enumerate(tastes)
        for i in range(3)
    ]
    data = recorded(workloads, 60, seed=1)
    policy = learn_and_judge(data, None, OFFERED_COLUMNS, alpha=ALPHA, seed=0).policy
    default = SPACE.encode(SPACE.default_config())[None]
    for number, (taste, best) in enumerate(tastes):
        unseen = workload(77 + number, best=best, taste=taste)
        own, other = unseen.state, workload(0, taste=tastes[1 - number][0]).state
        assert policy.familiar(own)
        gained, mistaken = (
            unseen.log_index(policy.actions(state[None], default)[0]) for state in (own, other)
        )
        assert gained < math.log(0.9)
        assert gained < mistaken - 0.05


@pytest.mark.slow
def test_policies_that_are_better_pass_most_of_the_time() -> None:
    passed, better = [], []
    for seed in range(12):
        workloads = [workload(100 * seed + i) for i in range(2)]
        data = recorded(workloads, 40, seed)
        found = learn_and_judge(data, None, OFFERED_COLUMNS, alpha=ALPHA, seed=0)
        passed.append(not (RULE.objection(found.estimate) or RULE.objection(found.whole)))
        actions = found.policy.actions(data.states, data.first_actions())
        better.append(log_index(actions, data, workloads) < -0.02)
    print(f"{sum(passed)} of {len(passed)} policies passed, {sum(better)} are better in truth")
    assert sum(better) >= 11
    assert sum(passed) >= 8
    assert all(good for good, deployed in zip(better, passed, strict=True) if deployed)


@dataclass(frozen=True)
class Judge:
    """Judges any policy by what was recorded of some workloads."""

    workloads: list[Workload]
    data: RecordedTrials
    critics: Critics

    @classmethod
    def of(cls, seed: int, episodes: int, tells: int) -> Judge:
        workloads = [workload(1000 * seed + i) for i in range(episodes)]
        data = recorded(workloads, tells, seed)
        folds = data.folds()
        seen = np.array([folds != fold for fold in range(FOLDS)] + [np.ones(len(data), np.bool_)])
        return cls(workloads, data, learn_critics(data, seen, seed=0))

    def passes(self, actions: FloatArray) -> bool:
        found = estimate(
            self.data, self.data.folds(), self.critics, actions, self.data.first_actions(),
            alpha=ALPHA, seed=0,
        )  # fmt: skip
        return not RULE.objection(found)


@pytest.mark.slow
def test_a_hundred_harmful_policies_never_pass() -> None:
    """Anywhere, near the defaults, what was tried and was bad, the best that was tried, spoilt."""
    grid, tried, passed = ActionGrid(SPACE), 0, 0
    default = SPACE.encode(SPACE.default_config())[None]
    for seed, (episodes, tells) in enumerate([(1, 60), (2, 40), (4, 40), (6, 30)]):
        judge, rng = Judge.of(seed, episodes, tells), np.random.default_rng(seed)
        data = judge.data
        best = data.actions[np.argmax(data.gains - 9.0 * data.censored)][None]
        drawn = 0
        while drawn < 25:
            some = data.actions[rng.integers(len(data), size=1)]
            kinds = (
                grid.snap(rng.uniform(-1.0, 1.0, default.shape)),
                grid.mutate(default, np.full(1, 2.0), 0.5, rng),
                some,
                grid.mutate(some, np.full(1, 2.0), 0.3, rng),
                grid.mutate(best, np.full(1, 2.0), 1.0, rng),
            )
            action = kinds[int(rng.integers(len(kinds)))]
            wanted = np.repeat(action, len(data), axis=0)
            if log_index(wanted, data, judge.workloads) < HARM:
                continue
            drawn, passed = drawn + 1, passed + judge.passes(wanted)
        tried += drawn
    print(f"{passed} of {tried} harmful policies passed")
    assert (tried, passed) == (100, 0)


# -- plans ----------------------------------------------------------------------------------------


def recorded_queries(count: int, seed: int) -> RecordedPlans:
    """What is told of some queries of which six different plans each were run."""
    agent = PlanAgent(CATALOG, seed, settings=PlanAgentSettings(ensemble_size=2))
    rng = np.random.default_rng(seed)
    for query in toy_queries(count, seed):
        plans = {query.explain(h).plan_hash: h for h in reversed(CATALOG.hint_sets)}
        del plans[query.explain(DEFAULT_HINT_SET).plan_hash]
        tried = sorted(plans.values(), key=lambda hint_set: hint_set.name)
        for index in rng.permutation(len(tried))[:6]:
            ratio, late = query.log_ratio(tried[index]), math.log(2.0)
            agent.tell(
                query.name, tried[index], min(ratio, late), query.explain, timed_out=ratio > late
            )
    data = recorded_plans(agent._replay, agent.toggles)
    assert data is not None
    return data


def test_a_plan_policy_gains_on_queries_that_it_never_saw() -> None:
    data = recorded_queries(60, seed=1)
    policy, found = learn_and_judge_plans(data, None, alpha=ALPHA, seed=0)
    assert PLAN_RULE.objection(found) == ""
    ratios = []
    for query in toy_queries(50, 1001):
        features = query.explain(DEFAULT_HINT_SET).features.values
        ratios.append(query.log_ratio(policy.arms[policy.choices(features[None])[0]]))
    print(f"unseen queries: mean ln(ratio) {np.mean(ratios):.2f}")
    assert np.mean(ratios) < -0.08


def test_a_hundred_harmful_plan_policies_never_pass() -> None:
    rng, passed, tried = np.random.default_rng(0), 0, 0
    for seed in range(5):
        data = recorded_queries(40, seed)
        while tried < 20 * (seed + 1):
            arms = rng.integers(1, len(data.arms), size=int(rng.integers(1, 4)))
            chosen = rng.choice(arms, size=len(data))
            truth = np.where(np.isnan(data.gains), 0.0, data.gains)[np.arange(len(data)), chosen]
            if truth.mean() > -0.05:
                continue
            found = estimate_plans(data, chosen, None, alpha=ALPHA, seed=0)
            passed, tried = passed + (not PLAN_RULE.objection(found)), tried + 1
    print(f"{passed} of {tried} harmful plan policies passed")
    assert (tried, passed) == (100, 0)
