"""The knob agent's parts: its reward, its replay, its grid of proposals."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.agent.action_grid import ActionGrid
from backend.agent.checkpoint import write_checkpoint
from backend.agent.native_values import NativeValues
from backend.agent.normalisation import RunningNormaliser, rank_gumbel
from backend.agent.replay import Replay
from backend.domain.transition import Transition
from backend.rl_agent import KnobAgent, reward
from tests.tiny_agent import SPACE, TINY

# -- reward -----------------------------------------------------------------------------------


@given(
    st.floats(1e-3, 1e3),
    st.dictionaries(st.sampled_from(["cpu", "memory", "io"]), st.floats(0, 1)),
    st.floats(0, 1),
)
def test_reward_terms_add_up(index: float, use: dict[str, float], errors: float) -> None:
    weights = {"latency": 1.0, "cpu": 0.1, "memory": 0.05, "errors": 2.0}
    total, terms = reward(index, use, errors, weights)
    assert total == pytest.approx(sum(terms.values()))
    assert set(terms) == {"latency", "errors", *use}
    assert terms["latency"] == pytest.approx(-math.log(index))


def test_reward_falls_with_latency_use_and_errors() -> None:
    weights = {"cpu": 0.1, "errors": 1.0}
    base, _ = reward(1.0, {"cpu": 0.5}, 0.0, weights)
    assert reward(1.1, {"cpu": 0.5}, 0.0, weights)[0] < base
    assert reward(1.0, {"cpu": 0.9}, 0.0, weights)[0] < base
    assert reward(1.0, {"cpu": 0.5}, 0.1, weights)[0] < base


@pytest.mark.parametrize("index", [0.0, -1.0, math.nan])
def test_reward_needs_an_index_above_zero(index: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        reward(index, {}, 0.0, {})


# -- parts ------------------------------------------------------------------------------------


def test_the_normaliser_brings_states_to_mean_0_and_spread_1() -> None:
    rng = np.random.default_rng(0)
    normaliser = RunningNormaliser(3)
    vectors = rng.normal([5.0, -1e6, 7.0], [2.0, 1e4, 0.0], (500, 3))
    for vector in vectors:
        normaliser.update(vector)
    normal = normaliser(vectors)
    np.testing.assert_allclose(normal.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(normal[:, :2].std(axis=0), 1.0, atol=0.02)
    assert (normal[:, 2] == 0.0).all()
    assert normaliser(np.array([1e9, 0.0, 0.0]))[0] == 5.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40))
def test_ranks_keep_the_order_and_ties(values: list[float]) -> None:
    ranks = rank_gumbel(np.array(values))
    order = np.sign(np.subtract.outer(values, values))
    np.testing.assert_array_equal(np.sign(np.subtract.outer(ranks, ranks)), order)
    assert np.abs(ranks).max() < 6.0


def transition(value: float, quality: float = 1.0) -> Transition:
    vector = np.array([value])
    return Transition(vector, vector, value, vector, -value, quality)


def test_the_replay_forgets_the_oldest_and_draws_by_quality() -> None:
    replay = Replay(100, 1, 1, members=3)
    rng = np.random.default_rng(0)
    for value in range(130):
        replay.add(transition(float(value), quality=1.0 if value % 2 else 0.25), rng)
    assert replay.size == 100
    assert set(replay["rewards"]) == set(range(30, 130))
    drawn = replay["rewards"][replay.draw(200, 50, rng)]
    assert (drawn % 2 == 1).mean() == pytest.approx(2 / 3, abs=0.02)
    assert replay["masks"].shape == (100, 3)


def test_a_censored_reward_counts_as_what_is_expected_below_its_bound() -> None:
    replay = Replay(10, 1, 1, members=1)
    rng = np.random.default_rng(0)
    for value in (1.0, 2.0, 3.0, 4.0):
        replay.add(transition(value), rng)
    for bound in (3.5, -math.inf):
        vector = np.array([0.0])
        replay.add(Transition(vector, vector, bound, vector, -bound, censored=True), rng)
    targets = replay.targets()
    assert targets[4] == pytest.approx(targets[:3].mean())
    assert targets[5] <= targets[:4].min()
    assert (np.diff(targets[:4]) > 0).all()


def test_the_replay_learns_which_state_followed() -> None:
    replay = Replay(10, 1, 1, members=1)
    replay.link_next_state(np.array([1.0]))  # nothing to link yet
    replay.add(transition(3.0), np.random.default_rng(0))
    replay.link_next_state(np.array([7.0]))
    assert replay["next_states"].tolist() == [[7.0]]


def test_snapped_points_are_legal_and_survive_encoding() -> None:
    grid = ActionGrid(SPACE)
    rng = np.random.default_rng(0)
    points = grid.snap(rng.uniform(-1.5, 1.5, (200, SPACE.width)))
    for point in points:
        again = SPACE.encode(SPACE.decode(point))
        exact = [*range(3, SPACE.width)]  # workers, jit, method
        np.testing.assert_allclose(again[exact], point[exact])
    np.testing.assert_array_equal(grid.snap(points), points)


def test_mutants_differ_in_some_knobs_only_and_stay_in_the_trust_region() -> None:
    grid = ActionGrid(SPACE)
    rng = np.random.default_rng(0)
    parent = SPACE.encode(SPACE.default_config())
    parents = grid.snap(np.tile(parent, (300, 1)))
    moved = grid.mutate(parents, np.ones(300), 0.3, rng)
    knobs_moved = [len(set(grid.knob_of[row != parents[0]])) for row in moved]
    assert np.mean(knobs_moved) < 3.0
    assert max(knobs_moved) >= 2
    near = grid.within(moved, parents[0], 0.1)
    numeric = ~grid.discrete
    assert np.abs(near - parents[0])[:, numeric].max() <= 0.1 + 1e-12


def test_sparse_points_keep_at_most_so_many_of_their_moves() -> None:
    grid, rng = ActionGrid(SPACE), np.random.default_rng(0)
    centre = SPACE.encode(SPACE.default_config())
    points = grid.snap(rng.uniform(-1, 1, (200, SPACE.width)))
    sparse = grid.sparse(points, centre, 2, rng)
    assert set(grid.moved(sparse, centre).tolist()) <= {0, 1, 2}
    assert grid.moved(sparse, centre).max() == 2
    assert (np.isclose(sparse, points) | np.isclose(sparse, centre)).all()
    np.testing.assert_array_equal(grid.snap(sparse), sparse)


def test_live_proposals_move_few_knobs_of_the_best_known_configuration() -> None:
    learner = KnobAgent(SPACE, settings=dataclasses.replace(TINY, moved_knobs=2, far_knobs=0))
    best = learner.ask()
    learner.tell(best, 0.5)
    for _ in range(8):
        config = learner.ask()
        assert sum(config[name] != best[name] for name in SPACE.names) <= 2
        learner.tell(config, 1.0 + len(repr(config)) / 1000)


def test_excursions_move_one_knob_to_where_nothing_known_has_been() -> None:
    grid = ActionGrid(SPACE)
    centre = SPACE.encode(SPACE.default_config())
    points = grid.excursions(centre, centre[None])
    assert set(grid.moved(points, centre).tolist()) == {1}
    np.testing.assert_array_equal(grid.snap(points), points)
    assert len(np.unique(points, axis=0)) == len(points)
    # One more known configuration takes away what lies near it, knob by knob.
    other = grid.snap(np.full((1, SPACE.width), 1.0))
    fewer = grid.excursions(centre, other)
    kept = {point.tobytes() for point in fewer}
    assert kept < {point.tobytes() for point in points}
    away = np.where(np.abs(fewer - centre) > 1e-9, np.abs(fewer - other), 0.0).max(axis=1)
    assert (away >= 0.25 - 0.15).all()  # a knob of few values may be rounded nearer
    assert len(grid.excursions(centre, points)) == 0  # everything has been seen


@pytest.mark.parametrize("far_knobs", [0, 2])
def test_only_proposals_of_few_knobs_leave_the_trust_region_and_only_when_asks_fail(
    far_knobs: int,
) -> None:
    settings = dataclasses.replace(
        TINY, far_knobs=far_knobs, trust_start=0.2, trust_min=0.2, trust_max=0.2
    )
    learner, grid = KnobAgent(SPACE, settings=settings), ActionGrid(SPACE)
    best = learner.ask()
    learner.tell(best, 0.5)
    centre, went_far = SPACE.encode(best), 0
    for step in range(16):
        config = learner.ask()
        point = SPACE.encode(config)
        away = np.abs(point - centre)[~grid.discrete].max()
        if away > 0.2 + 0.15:  # a knob of few values may be rounded out of the region
            went_far += 1
            assert step > 2
            assert grid.moved(point[None], centre)[0] <= far_knobs
        learner.tell(config, 1.0 + step / 1000)
    assert (went_far > 0) == (far_knobs > 0)


def test_unmoved_coordinates_keep_their_native_value() -> None:
    natives = NativeValues(SPACE)
    natives.remember(SPACE.default_config())
    assert natives.decode(SPACE.encode(SPACE.default_config())) == SPACE.default_config()
    fresh = natives.decode(SPACE.encode({**SPACE.default_config(), "work_mem": 123456}))
    assert fresh["work_mem"] == 123000
    assert fresh["limit"] == -1


def test_what_killed_writers_left_behind_goes_with_the_next_checkpoint(tmp_path: Path) -> None:
    dead, beside = 2**30, tmp_path / f".other.npz.{2**30}"
    left, in_use = tmp_path / f".agent.npz.{dead}", tmp_path / f".agent.npz.{os.getppid()}"
    for file in (left, in_use, beside):
        file.write_bytes(b"half")
    write_checkpoint(tmp_path / "agent.npz", {}, {})
    assert set(tmp_path.iterdir()) == {tmp_path / "agent.npz", in_use, beside}
