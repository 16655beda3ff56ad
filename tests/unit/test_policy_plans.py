"""Plan policies: what they learn from, what they are judged on, whom they go before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.domain.plans import DEFAULT_HINT_SET, ExplainedPlan, Guess, HintSet
from backend.errors import CheckpointError
from backend.policy.networks import Stack
from backend.policy.plan_policy import PlanPolicy, PolicyGuesser, States, estimate_plans
from backend.policy.recorded_plans import UNKNOWN, RecordedPlans, read_plans
from backend.query_optimizer import CHECKPOINT_FILE, PlanAgent
from backend.steering.plans.plan_features import FEATURE_NAMES
from tests.learning.toy_planner import CATALOG, toy_queries

WIDTH = len(FEATURE_NAMES)
ARMS = (DEFAULT_HINT_SET, *CATALOG.hint_sets[1:4])
NAN = np.nan


def told_agent(queries: int = 6) -> PlanAgent:
    """An agent that was told every third hint set of some queries; the last run timed out."""
    agent = PlanAgent(CATALOG, 0)
    for query in toy_queries(queries, 3):
        default = query.explain(DEFAULT_HINT_SET).plan_hash
        tried = [h for h in CATALOG.hint_sets[1::3] if query.explain(h).plan_hash != default]
        for hint_set in tried[:3]:
            late = hint_set is tried[-1]
            agent.tell(
                query.name, hint_set, query.log_ratio(hint_set), query.explain, timed_out=late
            )
    return agent


def test_what_the_agent_was_told_is_read_from_its_checkpoint(tmp_path: Path) -> None:
    told_agent().save(tmp_path)
    data = read_plans(tmp_path, CATALOG)
    assert data is not None
    assert data.arms[0].is_default
    np.testing.assert_array_equal(data.gains[:, 0], 0.0)
    queries = {query.name: query for query in toy_queries(6, 3)}
    assert sorted(set(data.classes)) == list(range(len(set(data.classes))))
    checked = 0
    for row in range(len(data)):
        features = data.features[row]
        query = next(
            q for q in queries.values()
            if np.array_equal(q.explain(DEFAULT_HINT_SET).features.values, features)
        )  # fmt: skip
        for arm, hint_set in enumerate(data.arms):
            if not np.isnan(data.gains[row, arm]):
                assert data.gains[row, arm] == pytest.approx(-query.log_ratio(hint_set))
                checked += 1
        assert data.first[row] in np.flatnonzero(~np.isnan(data.gains[row]))
        spoken = data.spoken_for[row]
        plans = [query.explain(data.arms[arm]).plan_hash for arm in np.flatnonzero(spoken)]
        assert len(plans) == len(set(plans))
    assert checked > 2 * len(data)


def test_no_checkpoint_or_one_of_other_toggles_tells_nothing(tmp_path: Path) -> None:
    assert read_plans(tmp_path, CATALOG) is None
    told_agent().save(tmp_path)
    others = replace(CATALOG, toggles=dict(list(CATALOG.toggles.items())[1:]))
    assert read_plans(tmp_path, others) is None


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"PK nonsense")
    with pytest.raises(CheckpointError):
        read_plans(tmp_path, CATALOG)


def plans(gains: list[list[float]], bounds: Mapping[tuple[int, int], bool] | None = None):
    """Recorded plans with these gains, a class for each row; arm 1 was run first."""
    table = np.array(gains)
    bounded = np.zeros(table.shape, np.bool_)
    for place in bounds or {}:
        bounded[place] = True
    return RecordedPlans(
        arms=ARMS[: table.shape[1]],
        features=np.zeros((len(table), WIDTH)),
        classes=np.arange(len(table)),
        gains=table,
        bounds=bounded,
        spoken_for=~np.isnan(table),
        first=np.ones(len(table), np.int64),
        runs=table.size,
    )


def test_first_choices_are_compared_where_both_were_run() -> None:
    rng = np.random.default_rng(0)
    data = plans([[0.0, 0.1, 0.5 + 0.01 * rng.standard_normal()] for _ in range(20)])
    data.gains[:4, 2] = NAN
    found = estimate_plans(data, np.full(20, 2), None, alpha=0.005, seed=0)
    assert found.interval is not None
    assert found.interval.effect == pytest.approx(np.expm1(-0.4), abs=0.01)
    assert (found.coverage, found.effective, found.rows) == (0.8, 16.0, 20)
    unknown = estimate_plans(data, np.full(20, 2), np.full(20, UNKNOWN), alpha=0.005, seed=0)
    assert (unknown.interval, unknown.coverage) == (None, 0.0)


def test_a_bound_speaks_against_a_new_choice_and_for_an_old_one() -> None:
    data = plans([[0.0, 0.3, -2.0]] * 10, {(row, 1): True for row in range(10)})
    new = estimate_plans(data, np.full(10, 1), np.zeros(10, np.int64), alpha=0.005, seed=0)
    old = estimate_plans(data, np.zeros(10, np.int64), np.full(10, 1), alpha=0.005, seed=0)
    assert new.interval is not None
    assert old.interval is not None
    assert new.interval.effect > 1.0
    assert old.interval.effect == pytest.approx(np.expm1(0.3))


def test_without_a_policy_stood_what_was_run_first_or_the_default_plan() -> None:
    assert set(plans([[0.0, 0.2]] * 5).without_policy()) == {1}
    assert set(plans([[0.0, -0.2]] * 5).without_policy()) == {0}


def test_hint_sets_are_known_by_their_settings() -> None:
    other = HintSet("renamed", ARMS[2].settings)
    stranger = HintSet("x", {"work_mem": "7MB"})
    found = plans([[0.0, 0.1, 0.2]]).numbers([DEFAULT_HINT_SET, other, stranger])
    assert found.tolist() == [0, 2, UNKNOWN]


# -- who goes first -------------------------------------------------------------------------------


def policy(*scores: float) -> PlanPolicy:
    """A policy that gives the arms these scores, whatever the plan."""
    count = len(scores)
    layers = (np.zeros((1, WIDTH, count)), np.arctanh(np.array(scores)).reshape(1, 1, count))
    usual = np.array([[0.0, 0.4, 0.3, 0.2], [0.0, 0.1, 0.1, 0.1]])[:, :count]
    return PlanPolicy(
        ARMS[:count],
        States(np.zeros(WIDTH), np.ones(WIDTH), np.ones(WIDTH)),
        Stack(layers, True),
        usual,
    )


class Agent:
    """Guesses what it was given, and remembers what it was told."""

    def __init__(self, *guesses: Guess) -> None:
        self.guesses, self.told = list(guesses), []

    def first_guess(self, query_class, plan_of) -> list[Guess]:
        return self.guesses

    def tell(self, *lesson, timed_out: bool = False) -> None:
        self.told.append((*lesson, timed_out))


def plan_of(hint_set: HintSet) -> ExplainedPlan | None:
    """A plan for each hint set, but none for the third, and the default's for the second."""
    from backend.domain.plans import PlanFeatures

    if hint_set is ARMS[3]:
        return None
    name = DEFAULT_HINT_SET.name if hint_set is ARMS[2] else hint_set.name
    return ExplainedPlan(name, PlanFeatures(FEATURE_NAMES, np.zeros(WIDTH)), 1.0, 1.0)


def guess_of(hint_set: HintSet, *, gain: float = 0.0, measured: bool = False) -> Guess:
    return Guess(hint_set, hint_set.name, -gain, 0.0, gain, measured)


DEFAULT_GUESS = guess_of(DEFAULT_HINT_SET, measured=True)


def test_favourites_go_before_the_agents_guesses() -> None:
    guesser = PolicyGuesser(Agent(DEFAULT_GUESS), lambda: policy(0.0, 0.5, 0.4, 0.3))
    first, second = guesser.first_guess("q", plan_of)
    # The second arm leads to the default plan, the third to none.
    assert (first.hint_set, first.expected_log_ratio) == (ARMS[1], -0.4)
    assert not first.measured
    assert second == DEFAULT_GUESS


def test_the_agents_own_guess_of_a_favourite_is_kept() -> None:
    own = guess_of(ARMS[1], gain=0.7)
    guesser = PolicyGuesser(Agent(DEFAULT_GUESS, own), lambda: policy(0.0, 0.5))
    assert guesser.first_guess("q", plan_of) == [own, DEFAULT_GUESS]


def test_what_was_measured_for_the_statement_itself_knows_more() -> None:
    best = guess_of(HintSet("proven", {"work_mem": "9MB"}), gain=0.2, measured=True)
    agent = Agent(best, DEFAULT_GUESS)
    assert PolicyGuesser(agent, lambda: policy(0.0, 0.5)).first_guess("q", plan_of) == agent.guesses
    slow = guess_of(ARMS[1], gain=-0.5, measured=True)
    agent = Agent(DEFAULT_GUESS, slow)
    assert PolicyGuesser(agent, lambda: policy(0.0, 0.5)).first_guess("q", plan_of) == agent.guesses


@pytest.mark.parametrize("deployed", [None, policy(0.5, 0.4, 0.3)])
def test_without_a_policy_or_favourites_the_agent_speaks_alone(deployed) -> None:
    agent = Agent(DEFAULT_GUESS)
    assert PolicyGuesser(agent, lambda: deployed).first_guess("q", plan_of) == [DEFAULT_GUESS]


def test_lessons_go_to_the_agent() -> None:
    agent = Agent()
    PolicyGuesser(agent, lambda: None).tell("q", ARMS[1], 0.5, plan_of, timed_out=True)
    assert agent.told == [("q", ARMS[1], 0.5, plan_of, True)]


# -- files ----------------------------------------------------------------------------------------


def test_a_plan_policy_comes_back_from_its_file() -> None:
    one = policy(0.0, 0.5, 0.4)
    again = PlanPolicy.restored(*one.file())
    features = np.random.default_rng(0).normal(size=(5, WIDTH))
    assert again.arms == one.arms
    assert again.favourites(features[0]) == one.favourites(features[0]) == [1, 2]
    np.testing.assert_array_equal(again.choices(features), one.choices(features))


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        (0, {"format": 99}),
        (0, {"features": ["cost"]}),
        (0, {"arms": [["default", {}]]}),
        (0, {"arms": [["'; --", {"work_mem": "1"}]] * 3}),
        (1, {"usual": np.zeros((2, 7))}),
        (1, {"mean": np.zeros(3)}),
        (1, {"layer_0": np.full((1, WIDTH, 3), np.nan)}),
    ],
)
def test_a_plan_policy_that_does_not_fit_is_refused(part: int, damage: dict) -> None:
    file = policy(0.0, 0.5, 0.4).file()
    file[part].update(damage)
    with pytest.raises(CheckpointError, match="plan policy"):
        PlanPolicy.restored(*file)
