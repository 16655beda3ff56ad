"""The knob policy: what it imitates, what it answers, what it may be restored from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from backend.domain.knobs import Knob, KnobConfig, KnobSpace
from backend.errors import CheckpointError
from backend.policy.knob_policy import (
    MAX_WEIGHT,
    MEMBERS,
    Critics,
    KnobPolicy,
    States,
    advantage_weights,
    centred,
)
from backend.policy.networks import Stack
from backend.policy.recorded_trials import RecordedTrials

SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 65536, "log", "kB", 4096),
        Knob("jit", "boolean", default=True),
        Knob("wal_compression", "categorical", choices=("off", "pglz", "lz4"), default="off"),
    ]
)
LAYOUT = "layout"
COLUMNS = (0, 2)
EVERYTHING = np.ones((1, 6), np.bool_)


def policy(
    answer: Sequence[float] = (0.5, -0.2, -0.9, -0.1, -0.3), doubt: Sequence[float] = (0.1,) * 5
) -> KnobPolicy:
    """A policy that answers the same to every state of three coordinates."""
    layers = (np.zeros((1, 3, 5)), np.arctanh(np.array(answer)).reshape(1, 1, 5))
    states = States(np.zeros(3), np.ones(3), np.ones(3))
    return KnobPolicy(
        SPACE, states, Stack(layers, True), np.array(doubt), np.array([[1.0, 2.0]]), COLUMNS
    )


def answer_of(one: KnobPolicy, state: np.ndarray) -> KnobConfig:
    standing = one.space.encode(one.space.default_config())
    return one.space.decode(one.actions(state[None], standing[None])[0])


def trials(gains: list[float], **changes: object) -> RecordedTrials:
    rows = len(gains)
    given = {
        "space": SPACE,
        "states": np.zeros((rows, 3)),
        "actions": np.zeros((rows, 5)),
        "gains": np.array(gains),
        "qualities": np.ones(rows),
        "censored": np.zeros(rows, np.bool_),
        "episodes": np.zeros(rows, np.int64),
        **changes,
    }
    return RecordedTrials(**given)


def indifferent() -> Critics:
    """Critics of one fold who expect nothing of anything."""
    layers = (np.zeros((MEMBERS, 8, 1)), np.zeros((MEMBERS, 1, 1)))
    return Critics(States(np.zeros(3), np.ones(3), np.ones(3)), Stack(layers))


def test_an_answer_is_a_legal_configuration() -> None:
    config = answer_of(policy(), np.zeros(3))
    assert config == SPACE.decode(SPACE.encode(config))
    assert config["jit"] is False
    assert config["wal_compression"] == "pglz"
    assert answer_of(policy((0.999, 0.9, 0.9, -0.9, -0.9)), np.zeros(3))["work_mem"] > 65000


def test_a_knob_moves_only_where_what_is_imitated_agrees() -> None:
    default = SPACE.default_config()
    assert answer_of(policy(doubt=[2.0] * 5), np.zeros(3)) == default
    assert answer_of(policy(doubt=[2.0, 0.9, 2.0, 2.0, 2.0]), np.zeros(3)) == default.replace(
        {"jit": False}
    )
    # One coordinate of a category is enough, and all of them move.
    moved = answer_of(policy(doubt=[2.0, 2.0, 2.0, 0.5, 2.0]), np.zeros(3))
    assert moved == default.replace({"wal_compression": "pglz"})
    # What never varied in the records does not move by the network's own inaccuracy.
    standing = SPACE.encode(default)
    near = policy(np.clip(standing + 0.05, -0.99, 0.99), doubt=[0.0] * 5)
    assert answer_of(near, np.zeros(3)) == default


@pytest.mark.parametrize(
    ("state", "known"),
    [
        ([1.0, 99.0, 2.0], True),  # the second coordinate does not tell the load
        ([1.3, 0.0, 1.7], True),
        ([1.0, 0.0, 3.0], False),
        ([9.0, 0.0, 2.0], False),
    ],
)
def test_a_load_is_familiar_near_one_that_was_learnt_from(state, known: bool) -> None:
    assert policy().familiar(np.array(state)) is known


def test_gains_are_centred_on_what_is_seen_and_measured_of_their_episode() -> None:
    data = trials(
        [1.0, 3.0, 9.0, 100.0, 104.0, 50.0],
        censored=np.array([0, 0, 1, 0, 0, 0], np.bool_),
        episodes=np.array([0, 0, 0, 1, 1, 1]),
    )
    seen = np.array([[True] * 6, [True] * 5 + [False]])
    whole, part = centred(data, seen)
    assert whole[:3] == pytest.approx([-1.0, 1.0, 7.0])
    assert part[3:] == pytest.approx([-2.0, 2.0, 0.0])


def test_better_samples_weigh_more_bounds_and_unseen_ones_nothing() -> None:
    data = trials([0.0, 0.1, 0.2, 0.3, 0.4, 5.0], censored=np.array([0, 0, 0, 0, 0, 1], np.bool_))
    seen = np.array([[True, True, True, True, False, True]])
    (weights,) = advantage_weights(data, indifferent(), seen)
    assert (np.diff(weights[:4]) > 0.0).all()
    assert weights[4:].tolist() == [0.0, 0.0]
    assert weights[3] / weights[0] <= MAX_WEIGHT**2


def test_quality_weighs_and_no_episode_outshouts_another() -> None:
    qualities = np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5])
    data = trials(
        [0.0, 0.01, 0.02, 1.0, 3.0, 9.0],
        qualities=qualities,
        episodes=np.array([0, 0, 0, 1, 1, 1]),
    )
    (weights,) = advantage_weights(data, indifferent(), EVERYTHING)
    assert weights[:3].sum() == pytest.approx(3.0)
    assert weights[3:].sum() == pytest.approx(1.5)


def test_equal_gains_weigh_alike() -> None:
    (weights,) = advantage_weights(trials([0.2] * 6), indifferent(), EVERYTHING)
    assert weights == pytest.approx(np.ones(6))


def test_a_coordinate_that_never_varied_is_not_seen() -> None:
    raw = np.array([[1.0, 5.0, 0.0], [3.0, 5.0, 1e9]])
    seen = States.of(raw)(np.array([[2.0, 77.0, 1e12]]))
    assert seen[0, :2].tolist() == [0.0, 0.0]
    assert seen[0, 2] == pytest.approx(5.0 / 3**0.5)  # clipped, and scaled by the width


def test_a_coordinate_counts_for_what_it_tells_of_the_workload() -> None:
    rng, episodes = np.random.default_rng(0), np.repeat(np.arange(4), 30)
    raw = np.column_stack(
        [
            rng.standard_normal(120),
            10.0 * episodes + rng.standard_normal(120),
            episodes + rng.standard_normal(120),
        ]
    )
    noise, load, mixed = States.of(raw, episodes).shares
    assert noise < 0.05
    assert load > 0.95
    assert 0.3 < mixed < 0.8
    assert (States.of(raw, np.zeros(120, np.int64)).shares == 0.0).all()


def test_it_comes_back_from_its_file() -> None:
    one, state = policy(), np.array([1.0, 0.0, 2.0])
    again = KnobPolicy.restored(*one.file(LAYOUT), SPACE, LAYOUT, COLUMNS)
    assert answer_of(again, state) == answer_of(one, state)
    assert again.familiar(state)


def test_on_a_larger_machine_it_means_the_same_share_of_the_range() -> None:
    larger = KnobSpace(
        [Knob("work_mem", "integer", 64, 2**20, "log", "kB", 4096), *SPACE.knobs[1:]]
    )
    there = KnobPolicy.restored(*policy().file(LAYOUT), larger, LAYOUT, COLUMNS)
    here, state = policy(), np.zeros(3)
    assert answer_of(there, state)["work_mem"] > answer_of(here, state)["work_mem"]


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        (0, {"format": 99}),
        (0, {"policy": "plan"}),
        (0, {"shape": "another server's"}),
        (0, {"state_layout": "of old"}),
        (1, {"mean": np.zeros(7)}),
        (1, {"doubt": np.zeros(2)}),
        (1, {"known": np.zeros((4, 9))}),
        (1, {"layer_0": np.full((1, 3, 5), np.inf)}),
        (1, {"layer_1": np.zeros((2, 1, 5))}),
        (1, {"layer_0": np.zeros((1, 3, 4)), "layer_1": np.zeros((1, 1, 4))}),
    ],
)
def test_what_does_not_fit_is_refused(part: int, damage: dict) -> None:
    file = policy().file(LAYOUT)
    file[part].update(damage)
    with pytest.raises(CheckpointError, match="knob policy"):
        KnobPolicy.restored(*file, SPACE, LAYOUT, COLUMNS)


def test_a_missing_part_is_told() -> None:
    about, arrays = policy().file(LAYOUT)
    del arrays["mean"]
    with pytest.raises(CheckpointError, match="mean"):
        KnobPolicy.restored(about, arrays, SPACE, LAYOUT, COLUMNS)
