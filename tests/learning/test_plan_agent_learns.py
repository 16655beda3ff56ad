"""The plan agent's first guesses for queries of templates that it has never seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from backend.domain.plans import ExplainedPlan, HintSet
from backend.query_optimizer import PlanAgent, PlanAgentSettings
from tests.learning.toy_planner import CATALOG, ToyQuery, toy_queries

TRAINING = 60
RUNS = 6
UPDATES = 1000
TIMEOUT_LOG_RATIO = math.log(2.0)


def tell_runs(agent: PlanAgent, query: ToyQuery, rng: np.random.Generator, noise: float) -> None:
    """Run some of the query's different plans, with twice the default's latency as time-out."""
    arms = {query.explain(hint_set).plan_hash: hint_set for hint_set in reversed(CATALOG.hint_sets)}
    del arms[query.explain(CATALOG.hint_sets[0]).plan_hash]
    tried = sorted(arms.values(), key=lambda hint_set: hint_set.name)
    for index in rng.permutation(len(tried))[:RUNS]:
        ratio = query.log_ratio(tried[index]) if noise == 0.0 else rng.normal(0.0, noise)
        late = ratio > TIMEOUT_LOG_RATIO
        agent.tell(
            query.name, tried[index], min(ratio, TIMEOUT_LOG_RATIO), query.explain, timed_out=late
        )


def trained(
    seed: int, *, noise: float = 0.0, settings: PlanAgentSettings | None = None
) -> PlanAgent:
    agent = PlanAgent(CATALOG, seed, settings=settings)
    rng = np.random.default_rng(seed)
    for query in toy_queries(TRAINING, seed):
        tell_runs(agent, query, rng, noise)
    agent.learn(UPDATES)
    return agent


@dataclass(frozen=True)
class Score:
    """First guesses over unseen templates: share of the reachable gain, of slower queries."""

    gain: float
    slower: float
    moved: float


def score(agent: PlanAgent, seed: int) -> Score:
    default_s = guessed_s = best_s = 0.0
    ratios = []
    queries = toy_queries(50, 1000 + seed)
    for query in queries:
        guess = agent.first_guess(query.name, query.explain)[0].hint_set
        default_s += query.latency_s(CATALOG.hint_sets[0])
        guessed_s += query.latency_s(guess)
        best_s += min(query.latency_s(hint_set) for hint_set in CATALOG)
        ratios.append(query.log_ratio(guess))
    slower = float(np.mean(np.array(ratios) > math.log(1.1)))
    moved = float(np.mean(np.array(ratios) != 0.0))
    return Score((default_s - guessed_s) / (default_s - best_s), slower, moved)


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    return [score(trained(seed), seed) for seed in (10, 11)]


def test_first_guesses_on_unseen_templates_reach_most_of_what_can_be_gained(
    scores: list[Score],
) -> None:
    assert np.mean([one.gain for one in scores]) > 0.5
    assert min(one.gain for one in scores) > 0.35
    assert np.mean([one.slower for one in scores]) <= 0.02


def test_where_plans_reveal_nothing_it_keeps_to_the_default_plan() -> None:
    assert score(trained(10, noise=0.8), 10).moved <= 0.02


def test_without_the_discount_no_way_to_a_better_plan_is_seen(scores: list[Score]) -> None:
    """Gains lie a step or more away from the default plan, at which every search begins."""
    blind = score(trained(10, settings=PlanAgentSettings(gamma=0.0)), 10)
    assert blind.gain < 0.5 * scores[0].gain


def test_before_anything_is_learnt_it_keeps_to_the_default_plan_and_asks_for_no_other() -> None:
    asked: list[HintSet] = []
    query = toy_queries(1, 0)[0]

    def plan_of(hint_set: HintSet) -> ExplainedPlan:
        asked.append(hint_set)
        return query.explain(hint_set)

    guesses = PlanAgent(CATALOG).first_guess("new", plan_of)
    assert [guess.hint_set for guess in guesses] == asked == [CATALOG.hint_sets[0]]
