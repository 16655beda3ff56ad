"""The plan agent's parts: what is legal, what is recorded, what is known of a plan."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.catalog.hint_sets import load_hint_sets
from backend.domain.plans import ExplainedPlan, HintSet, PlanFeatures
from backend.domain.server import HostFacts
from backend.errors import CatalogError, CheckpointError
from backend.plan_agent.replay import Transitions
from backend.plan_agent.states import Outcome, Step, ToggleSet
from backend.plan_agent.toggles import ToggleSpace, dearer, parts
from backend.query_optimizer import CHECKPOINT_FILE, PlanAgent, PlanAgentSettings
from backend.steering.plans.plan_features import FEATURE_NAMES
from tests.learning.toy_planner import CATALOG, ToyQuery

SMALL = PlanAgentSettings(hidden_layers=(8,), ensemble_size=3, batch_size=8, target_update=5)
SPACE = ToggleSpace(CATALOG, 4)
NUMBER = {name: number for number, name in enumerate(CATALOG.toggles)}
# Random at first and not cautious at all: it looks at whatever may be looked at.
CURIOUS = dataclasses.replace(SMALL, prior_scale=3.0, caution=0.0)
# Its default plan is a nested loop over far too low an estimate.
QUERY = ToyQuery("orders", 2e6, 2e5, 4, 0.1)
NO_NESTLOOP = CATALOG.combine(["no_nestloop"])
BOTH = CATALOG.combine(["no_nestloop", "no_hashjoin"])


def toggles(*names: str) -> frozenset[int]:
    return frozenset(NUMBER[name] for name in names)


def taught(seed: int = 0, settings: PlanAgentSettings = SMALL) -> PlanAgent:
    agent = PlanAgent(CATALOG, seed, settings=settings)
    agent.tell("orders", NO_NESTLOOP, -1.2, QUERY.explain)
    agent.tell("orders", BOTH, 0.3, QUERY.explain, timed_out=True)
    return agent


def transitions(agent: PlanAgent) -> Transitions:
    return agent._replay.transitions(agent._encoder, 0.01, np.random.default_rng(0))


# -- actions ------------------------------------------------------------------------------------


def test_tensorflow_is_imported_with_the_first_agent_only() -> None:
    code = "import sys, backend.query_optimizer; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_to_stop_is_always_legal_and_contradictions_never() -> None:
    assert SPACE.legal(frozenset()).all()
    mask = SPACE.legal(toggles("work_mem_64mb", "no_parallel"))
    for name in ("work_mem_64mb", "work_mem_256mb", "no_parallel", "eager_parallel"):
        assert not mask[NUMBER[name]]
    assert mask[NUMBER["no_nestloop"]]
    assert mask[-1]
    full = SPACE.legal(toggles("no_nestloop", "no_seqscan", "no_material", "no_memoize"))
    assert full.tolist() == [False] * len(SPACE) + [True]


def test_combinations_whose_names_are_too_long_are_not_legal() -> None:
    on = toggles("no_presorted_aggregate", "no_group_by_reordering")
    assert not SPACE.legal(on)[NUMBER["no_incremental_sort"]]


def test_every_hint_set_of_the_catalogue_is_made_of_toggles() -> None:
    for version in (14, 17):
        space = ToggleSpace(load_hint_sets(version, HostFacts(8 << 30, 4.0)), 4)
        for hint_set in space.catalog:
            assert space.hint_set(space.toggles(hint_set)).settings == hint_set.settings


def test_foreign_and_too_large_hint_sets_are_refused() -> None:
    with pytest.raises(CatalogError, match="not made of"):
        SPACE.toggles(HintSet("odd", {"enable_nestloop": "on"}))
    with pytest.raises(CatalogError, match="at most 1"):
        ToggleSpace(CATALOG, 1).toggles(BOTH)


def test_steps_may_be_taken_in_any_order() -> None:
    assert set(parts(frozenset({1, 2, 3}))) == {
        frozenset(part) for part in ({1}, {2}, {3}, {1, 2}, {1, 3}, {2, 3})
    }
    assert list(parts(frozenset({1}))) == []


def test_a_plan_is_dearer_than_the_cheapest_under_some_of_its_toggles() -> None:
    """Toggle 1 makes everything look cheap: what 2 adds shows only beside 1 alone."""

    def step(cost: float) -> Step:
        values = np.zeros(len(FEATURE_NAMES))
        values[FEATURE_NAMES.index("cost")] = math.log(cost)
        return Step(f"{cost}", values)

    default, one, both = frozenset[int](), frozenset({1}), frozenset({1, 2})
    steps: dict[ToggleSet, Step | None] = {default: step(100.0), both: step(50.0)}
    assert dearer(default, steps) == dearer(both, steps) == 0.0
    steps[one] = step(10.0)
    assert dearer(both, steps) == pytest.approx(math.log(5.0))
    assert dearer(both, {**steps, one: None}) == 0.0
    assert dearer(both, {**steps, both: step(1e12)}) == 3.0


# -- the replay -----------------------------------------------------------------------------------


def test_steps_lead_to_what_was_measured_and_stops_hold_its_gain() -> None:
    told = transitions(taught())
    fresh = told.fresh
    gains = {(float(told.rewards[i]), bool(told.censored[i])) for i in np.flatnonzero(told.stops)}
    assert gains == {(0.0, False), (1.2, False), (-0.3, True)}
    assert told.actions[told.stops].tolist() == [len(SPACE)] * int(told.stops.sum())
    first = told.origin[told.default & fresh][0]  # the default plan of a new class
    steps = {int(a) for a in told.actions[~told.stops & fresh & (told.origin == first)]}
    assert steps == {NUMBER["no_nestloop"], NUMBER["no_hashjoin"]}
    assert np.flatnonzero(told.recorded[first]).tolist() == [*sorted(steps), len(SPACE)]
    assert (told.rewards[~told.stops] == -0.01).all()


def test_a_state_does_not_hold_the_outcome_that_it_is_asked_for() -> None:
    """Whatever was measured, the states of a class of which nothing is known are the same."""
    good, bad = (PlanAgent(CATALOG, settings=SMALL) for _ in range(2))
    good.tell("orders", NO_NESTLOOP, -1.2, QUERY.explain)
    bad.tell("orders", NO_NESTLOOP, 2.0, QUERY.explain)
    one, other = transitions(good), transitions(bad)
    assert (one.states[one.origin[one.fresh]] == other.states[other.origin[other.fresh]]).all()


def test_what_is_known_of_a_class_is_part_of_its_states() -> None:
    agent = taught()
    (record,) = agent._replay.of_class("orders")
    known = agent._encoder.known([(record, frozenset(record.outcomes))])
    gains, bounds = known[: len(SPACE)], known[len(SPACE) : -2]
    assert gains[NUMBER["no_nestloop"]] == pytest.approx(1.2)
    assert bounds[NUMBER["no_hashjoin"]] == pytest.approx(-0.3)
    assert known[-2:].tolist() == [pytest.approx(1.2), pytest.approx(math.log(3.0))]
    assert not agent._encoder.known([(record, frozenset())]).any()


def test_each_class_is_kept_from_some_networks_and_shown_to_others() -> None:
    agent = PlanAgent(CATALOG, settings=SMALL)
    for number in range(8):
        query = ToyQuery(f"q{number}", 2e6, 2e5, 4, 0.1)
        agent.tell(query.name, NO_NESTLOOP, -1.0, query.explain)
    left_out = {tuple(record.left_out) for record in agent._replay.records.values()}
    assert all(0 < sum(flags) < 3 for flags in left_out)
    assert len(left_out) > 1


def test_the_statement_told_longest_ago_is_forgotten_first() -> None:
    agent = PlanAgent(CATALOG, settings=PlanAgentSettings(hidden_layers=(8,), buffer_size=5))
    for name in ("a", "b", "a", "c"):
        agent.tell(name, NO_NESTLOOP, -1.0, ToyQuery(name, 2e6, 2e5, 4, 0.1).explain)
    assert [query_class for query_class, _ in agent._replay.records] == ["a", "c"]


def test_half_of_a_batch_was_measured() -> None:
    told = transitions(taught())
    drawn = told.draw(50, 40, np.random.default_rng(0))
    assert told.stops[drawn].mean() == pytest.approx(0.5, abs=0.05)


def test_a_run_that_ended_says_more_than_a_bound() -> None:
    ended, bound = Outcome(0.5), Outcome(0.2, censored=True)
    assert ended.with_later(bound) == bound.with_later(ended) == ended
    assert bound.with_later(Outcome(-0.1, censored=True)).gain == -0.1
    assert bound.with_later(Outcome(0.9, censored=True)).gain == 0.2
    assert ended.with_later(Outcome(0.4)).gain == 0.4


# -- learning and guessing ------------------------------------------------------------------------


def test_a_bound_is_no_value() -> None:
    """Below a bound no network is drawn upwards; above it, it is drawn down to it."""

    def expected(log_ratio: float, timed_out: bool) -> float:
        settings = PlanAgentSettings(hidden_layers=(8,), ensemble_size=3, weight_decay=0.0)
        agent = PlanAgent(CATALOG, settings=settings)
        agent.tell("orders", NO_NESTLOOP, log_ratio, QUERY.explain, timed_out=timed_out)
        agent.learn(300)
        told = transitions(agent)
        stop = np.flatnonzero(told.stops & told.fresh & ~told.default)
        values = agent._networks.values(told.states[told.origin[stop]])[:, 0, -1]
        return float(values[told.seen_by[:, stop[0]]].mean())

    assert expected(-2.0, timed_out=False) == pytest.approx(2.0, abs=0.3)
    assert expected(-2.0, timed_out=True) < 1.0
    assert expected(2.0, timed_out=True) == pytest.approx(-2.0, abs=0.3)


def test_what_was_measured_is_expected_and_a_bound_is_never_passed() -> None:
    for settings in (SMALL, CURIOUS):
        agent = taught(settings=settings)
        agent.learn(10)
        found = agent.first_guess("orders", QUERY.explain)
        guesses = {guess.plan_hash: guess for guess in found}
        measured = guesses[QUERY.explain(NO_NESTLOOP).plan_hash]
        assert (measured.expected_log_ratio, measured.uncertainty) == (-1.2, 0.0)
        bounded = guesses[QUERY.explain(BOTH).plan_hash]
        assert bounded.expected_log_ratio >= 0.3
        assert bounded.promise <= -0.3
        assert not bounded.measured
        default = guesses[QUERY.explain(CATALOG.hint_sets[0]).plan_hash]
        assert (default.hint_set, default.expected_log_ratio) == (CATALOG.hint_sets[0], 0.0)


def test_the_planners_doubt_is_taken_off_what_the_networks_expect() -> None:
    """The less the planner is trusted, the more is expected of plans that it finds dearer."""
    agent = taught(settings=CURIOUS)
    agent.learn(10)
    expected = []
    for planner_trust in (0.0, 1.0):
        agent.belief = dataclasses.replace(agent.belief, planner_trust=planner_trust)
        guesses = agent.first_guess("another", QUERY.explain)
        expected.append({guess.plan_hash: guess.expected_log_ratio for guess in guesses})
    default = QUERY.explain(CATALOG.hint_sets[0])
    plans = {plan.plan_hash: plan for plan in map(QUERY.explain, CATALOG)}
    both = expected[0].keys() & expected[1].keys() & plans.keys()
    dearer = [math.log(plans[one].cost / default.cost) for one in both]
    taken_off = [expected[1][one] - expected[0][one] for one in both]
    assert max(dearer) > 0.1
    assert taken_off == pytest.approx(np.clip(dearer, 0.0, 3.0), abs=0.01)


def test_guesses_are_legal_distinct_and_ranked_and_explains_are_bounded() -> None:
    agent = taught(settings=CURIOUS)
    agent.learn(10)
    asked: list[HintSet] = []

    def plan_of(hint_set: HintSet) -> ExplainedPlan | None:
        asked.append(hint_set)
        # The planner gives up now and then.
        return None if "no_seqscan" in hint_set.name else QUERY.explain(hint_set)

    guesses = agent.first_guess("another", plan_of)
    assert 5 < len(asked) == len(set(asked)) <= CURIOUS.max_explains
    assert len({guess.plan_hash for guess in guesses}) == len(guesses) > 1
    promises = [guess.promise for guess in guesses]
    assert promises == sorted(promises, reverse=True)
    for hint_set in asked:
        assert CATALOG.check(hint_set)
        assert len(SPACE.toggles(hint_set)) <= CURIOUS.max_toggles


def test_without_a_default_plan_nothing_is_guessed() -> None:
    (guess,) = taught().first_guess("orders", lambda _: None)
    assert guess.hint_set.is_default


def test_with_nothing_told_nothing_is_learnt() -> None:
    agent = PlanAgent(CATALOG, settings=SMALL)
    step = agent.learn(10)
    assert (step.updates, step.outcomes, step.loss) == (0, 0, None)
    assert len(agent.first_guess("orders", QUERY.explain)) == 1


def test_learning_reports_what_it_did() -> None:
    step = taught().learn(7)
    assert (step.updates, step.statements, step.outcomes) == (7, 1, 2)
    assert step.loss is not None
    assert math.isfinite(step.loss)
    assert math.isfinite(step.value)
    assert step.shortfall > 0.0


def test_same_seed_same_guesses_other_seed_others() -> None:
    def guesses(seed: int) -> list[tuple[str, float]]:
        agent = taught(seed, CURIOUS)
        agent.learn(10)
        found = agent.first_guess("new", QUERY.explain)
        return [(guess.hint_set.name, guess.promise) for guess in found]

    assert guesses(1) == guesses(1) != guesses(2)


def test_bad_tells_are_refused_with_the_reason() -> None:
    agent = PlanAgent(CATALOG, settings=SMALL)
    with pytest.raises(ValueError, match="log_ratio = nan"):
        agent.tell("orders", NO_NESTLOOP, math.nan, QUERY.explain)
    with pytest.raises(ValueError, match="no plan for no_nestloop"):
        agent.tell("orders", NO_NESTLOOP, -1.0, lambda _: None)
    narrow = ExplainedPlan("0" * 32, PlanFeatures(("cost",), np.ones(1)), 1.0, 1.0)
    assert narrow.features.names != FEATURE_NAMES
    with pytest.raises(ValueError, match="not of FEATURE_NAMES"):
        agent.tell("orders", NO_NESTLOOP, -1.0, lambda _: narrow)
    with pytest.raises(CatalogError):
        agent.tell("orders", HintSet("odd", {"enable_nestloop": "on"}), -1.0, QUERY.explain)
    assert agent.learn(5).statements == 0


@pytest.mark.parametrize(
    ("setting", "value"),
    [("gamma", 1.0), ("ensemble_size", 1), ("left_out", 0.0), ("hidden_layers", ()),
     ("caution", -1.0), ("max_explains", 0)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=setting):
        PlanAgentSettings(**{setting: value})  # type: ignore[arg-type]


# -- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    agent = taught(settings=CURIOUS)
    agent.learn(10)
    agent.save(tmp_path)
    restored = PlanAgent.load(tmp_path, CATALOG)
    for one in (agent, restored):
        one.tell("orders", CATALOG.combine(["no_hashjoin"]), 0.1, QUERY.explain)
    assert agent.learn(10) == restored.learn(10)
    assert agent.first_guess("x", QUERY.explain) == restored.first_guess("x", QUERY.explain)


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        PlanAgent.load(tmp_path, CATALOG)
    taught().save(tmp_path)
    with pytest.raises(CheckpointError, match="other toggles"):
        PlanAgent.load(tmp_path, load_hint_sets(14, HostFacts(8 << 30, 4.0)))
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError):
        PlanAgent.load(tmp_path, CATALOG)
