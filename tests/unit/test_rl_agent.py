"""The knob agent's interface, its checkpoints, its reward, and its small parts."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.agent.action_grid import ActionGrid
from backend.agent.native_values import NativeValues
from backend.agent.normalisation import RunningNormaliser, rank_gumbel
from backend.agent.replay import Replay
from backend.domain.knobs import Knob, KnobConfig, KnobSpace
from backend.domain.transition import Transition
from backend.errors import CheckpointError, KnobBoundsError, UnknownKnobError
from backend.protocols import AskTellAgent
from backend.rl_agent import CHECKPOINT_FILE, KnobAgent, KnobAgentSettings, reward

SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 2097151, "log", "kB", 4096),
        Knob("cost", "real", 0.5, 10, "log", default=1.1),
        Knob("limit", "integer", 0, 100, special=(-1,), default=-1),
        Knob("workers", "integer", 0, 4, default=2),
        Knob("jit", "boolean", default=True),
        Knob("method", "categorical", choices=("a", "b", "c"), default="b"),
    ]
)
TINY = KnobAgentSettings(
    updates_per_tell=2, hidden_layers=(8,), ensemble_size=3, candidates=64, design_size=3
)


def agent(**options: object) -> KnobAgent:
    return KnobAgent(SPACE, settings=TINY, **options)  # type: ignore[arg-type]


def objective(config: KnobConfig) -> float:
    return 1.0 + abs(float(SPACE["work_mem"].encode(config["work_mem"])[0]) - 0.3)


def drive(learner: KnobAgent, rounds: int) -> list[KnobConfig]:
    asked = []
    for _ in range(rounds):
        asked.append(learner.ask())
        learner.tell(asked[-1], objective(asked[-1]))
    return asked


def test_importing_the_agent_does_not_import_tensorflow() -> None:
    code = "import sys, backend.rl_agent; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tensorflow_loads_without_a_word_and_swallows_nobody_elses() -> None:
    code = (
        "import os, sys; from backend.agent.lazy_tensorflow import import_tensorflow; "
        "import_tensorflow(); os.write(2, b'told'); assert 'tensorflow' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "told")


def test_it_is_an_ask_tell_agent_that_asks_for_whole_valid_configurations() -> None:
    learner: AskTellAgent = agent()
    for config in drive(learner, 8):  # type: ignore[arg-type]
        assert set(config) == set(SPACE.names)
        assert SPACE.validate(config) == config


def test_without_priors_the_default_configuration_comes_first() -> None:
    first, second = drive(agent(), 2)
    assert first == SPACE.default_config()
    assert second != first


def test_priors_come_first_completed_and_once() -> None:
    priors = [{"work_mem": 65536}, {"jit": False, "method": "c"}, {"work_mem": 65536}]
    asked = drive(agent(priors=priors), 3)
    default = SPACE.default_config()
    assert asked[:2] == [default.replace(priors[0]), default.replace(priors[1])]
    assert asked[2] not in asked[:2]


def test_asking_again_without_telling_gives_something_else() -> None:
    learner = agent()
    drive(learner, 5)
    assert len({learner.ask() for _ in range(6)}) == 6


def test_a_small_space_that_is_used_up_is_measured_again() -> None:
    space = KnobSpace([Knob("jit", "boolean", default=True)])
    learner = KnobAgent(space, settings=TINY)
    for _ in range(6):
        config = learner.ask()
        learner.tell(config, 1.0 + config["jit"])
    assert space.validate(learner.ask())


def test_same_seed_same_actions_other_seed_other_actions() -> None:
    assert drive(agent(seed=1), 8) == drive(agent(seed=1), 8)
    assert drive(agent(seed=1), 8) != drive(agent(seed=2), 8)


def test_what_is_told_need_not_have_been_asked() -> None:
    learner = agent()
    learner.tell({"work_mem": 100_000}, 0.7)
    learner.tell({"work_mem": 50_000}, 0.8)
    assert SPACE.validate(learner.ask())
    assert learner.last_learning is not None
    assert learner.last_learning.replay_size == 2


def test_a_sample_below_the_quality_floor_trains_nothing() -> None:
    learner = agent()
    drive(learner, 3)
    before = {name: array.copy() for name, array in learner._networks.arrays().items()}
    learner.tell({"work_mem": 100_000}, 0.01, quality=0.0)
    after = learner._networks.arrays()
    assert all((before[name] == after[name]).all() for name in before)
    step = learner.last_learning
    assert step is not None
    assert (step.replay_size, step.critic_loss, step.quality) == (3, None, 0.0)


def test_a_tell_reports_what_was_learnt() -> None:
    learner = agent()
    drive(learner, 3)
    learner.tell({"jit": False}, 1.5, reward_terms={"latency": -0.4, "cpu": -0.1})
    step = learner.last_learning
    assert step is not None
    assert step.step == 4
    assert step.reward == pytest.approx(-0.5)
    assert step.reward_terms == {"latency": -0.4, "cpu": -0.1}
    assert step.critic_loss is not None
    assert math.isfinite(step.critic_loss)
    assert step.actor_loss is not None
    assert 0 < step.noise < TINY.noise_start


def test_bad_tells_are_refused_with_the_reason() -> None:
    learner = agent()
    config = SPACE.default_config()
    with pytest.raises(ValueError, match="objective = nan"):
        learner.tell(config, math.nan)
    with pytest.raises(ValueError, match="objective = inf"):
        learner.tell(config, math.inf)
    with pytest.raises(ValueError, match=r"quality = 1\.5"):
        learner.tell(config, 1.0, quality=1.5)
    with pytest.raises(UnknownKnobError):
        learner.tell({"fsync": False}, 1.0)
    with pytest.raises(KnobBoundsError):
        learner.tell({"work_mem": 1}, 1.0)
    with pytest.raises(ValueError, match="shape"):
        learner.tell(config, 1.0, state=np.ones((2, 2)))


def test_crashes_alone_do_not_break_it() -> None:
    learner = agent()
    for _ in range(6):
        learner.tell(learner.ask(), math.inf, censored=True)
    assert SPACE.validate(learner.ask())


def test_states_may_be_given_without_their_width_and_must_stay_as_long() -> None:
    learner = agent()
    rng = np.random.default_rng(0)
    for _ in range(5):
        state = rng.normal(size=4) * 1e6
        config = learner.ask(state)
        learner.tell(config, objective(config), state)
    assert learner.state_width == 4
    assert SPACE.validate(learner.ask())  # no state: the mean one
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        learner.ask(np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        learner.ask(np.array([0.0, np.nan, 0.0, 0.0]))


def test_a_restored_agent_goes_on_identically(tmp_path: Path) -> None:
    learner = agent(seed=3, state_width=2, priors=[{"jit": False}])
    rng = np.random.default_rng(0)

    def round_of(*learners: KnobAgent) -> list[KnobConfig]:
        state = rng.normal(size=2)
        configs = [each.ask(state) for each in learners]
        for each, config in zip(learners, configs, strict=True):
            each.tell(config, objective(config), state, quality=0.7)
        return configs

    for _ in range(6):
        round_of(learner)
    learner.save(tmp_path)
    restored = KnobAgent.load(tmp_path, SPACE)
    for _ in range(5):
        ours, theirs = round_of(learner, restored)
        assert ours == theirs
        assert learner.last_learning == restored.last_learning


def test_a_checkpoint_belongs_to_its_knob_space(tmp_path: Path) -> None:
    agent().save(tmp_path)
    with pytest.raises(CheckpointError, match=SPACE.fingerprint):
        KnobAgent.load(tmp_path, SPACE.subset(["work_mem", "jit"]))


def test_a_missing_or_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        KnobAgent.load(tmp_path / "nowhere", SPACE)
    learner = agent()
    drive(learner, 4)
    learner.save(tmp_path)
    path = tmp_path / CHECKPOINT_FILE
    whole = path.read_bytes()
    for damaged in (b"", b"junk", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            KnobAgent.load(tmp_path, SPACE)
    path.write_bytes(whole)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["networks.critic_0"] = np.zeros((1, 1, 1))
    np.savez(path, **arrays)
    with pytest.raises(CheckpointError, match="critic_0"):
        KnobAgent.load(tmp_path, SPACE)


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    learner = agent()
    drive(learner, 4)
    learner.save(tmp_path)
    with np.load(tmp_path / CHECKPOINT_FILE, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


@pytest.mark.parametrize(
    ("name", "value"),
    [("gamma", 1.0), ("batch_size", 0), ("hidden_layers", ()), ("trust_start", 9.0)],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        KnobAgentSettings(**{name: value})  # type: ignore[arg-type]


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
