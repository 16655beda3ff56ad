"""Every tuner of the benchmarks: valid, repeatable, told the default first, optional packages."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from backend.domain.knobs import Knob, KnobConfig, KnobSpace
from backend.errors import CheckpointError, ConfigError, KnobBoundsError
from backend.protocols import AskTellAgent
from backend.rl_agent import KnobAgent, KnobAgentSettings
from benchmarks.tuners import TUNERS, MissingPeerError, make_tuner
from benchmarks.tuners.peer import Interval, required
from benchmarks.tuners.plain_ddpg import cdbtune_reward

SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 2097151, "log", "kB", 4096),
        Knob("limit", "integer", 0, 100000, "log", special=(-1,), default=-1),
        Knob("workers", "integer", 0, 8, default=2),
        Knob("page_cost", "real", 0.5, 10.0, "log", default=4.0),
        Knob("share", "real", 0.0, 1.0, "log", default=0.0),
        Knob("scale", "real", 0.0, 1.0, default=0.2),
        Knob("jit", "boolean", default=True),
        Knob("method", "categorical", choices=("a", "b", "c"), default="b"),
    ]
)
PACKAGES = {"tpe": "optuna", "smac3": "smac"}
COLD = [name for name in TUNERS if name != "ours-warm"]
PEERS = [name for name in COLD if name != "ours"]


def tuner(name: str, space: KnobSpace = SPACE, seed: int = 3, **options: object) -> AskTellAgent:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    return make_tuner(name, space, seed, budget=40, **options)  # type: ignore[arg-type]


def objective(config: KnobConfig) -> float:
    """Negative too: throughput comes as its negative."""
    memory = float(SPACE["work_mem"].encode(config["work_mem"])[0])
    return abs(memory - 0.4) - 1.0 + 0.3 * bool(config["jit"]) + 0.1 * (config["method"] == "a")


def drive(agent: AskTellAgent, rounds: int) -> list[KnobConfig]:
    asked = []
    for _ in range(rounds):
        asked.append(agent.ask())
        agent.tell(asked[-1], objective(asked[-1]))
    return asked


@pytest.mark.parametrize("name", COLD)
def test_the_default_comes_first_and_every_ask_is_valid(name: str) -> None:
    asked = drive(tuner(name), 18)
    assert asked[0] == SPACE.default_config()
    for config in asked:
        assert set(config) == set(SPACE.names)
        assert SPACE.validate(config) == config
    assert len(set(asked)) > 12


@pytest.mark.parametrize("name", COLD)
def test_one_seed_one_course(name: str) -> None:
    first, again = (drive(tuner(name, seed=5), 18) for _ in range(2))
    assert first == again
    assert first[:4] != drive(tuner(name, seed=6), 4)


@pytest.mark.parametrize("name", COLD)
def test_priors_follow_the_default(name: str) -> None:
    agent = tuner(name, priors=[{"workers": 7}, {"jit": False, "method": "c"}])
    defaults = SPACE.default_config()
    assert drive(agent, 3) == [
        defaults,
        defaults.replace({"workers": 7}),
        defaults.replace({"jit": False, "method": "c"}),
    ]


@pytest.mark.parametrize("name", COLD)
def test_what_was_told_before_is_not_asked_first(name: str) -> None:
    agent = tuner(name)
    agent.tell({}, 1.0)
    agent.tell({"workers": 5}, 0.9, censored=True)
    asked = drive(agent, 3)
    assert SPACE.default_config() not in asked


@pytest.mark.parametrize("name", COLD)
def test_a_space_that_is_used_up_is_no_fault(name: str) -> None:
    space = KnobSpace([Knob("jit", "boolean", default=False)])
    agent = tuner(name, space)
    for _ in range(14):
        config = agent.ask()
        agent.tell(config, float(bool(config["jit"])))


@pytest.mark.parametrize("name", PEERS)
def test_peers_take_numbers_only(name: str) -> None:
    agent = tuner(name)
    for bad in (math.inf, math.nan):
        with pytest.raises(ValueError, match="must be finite"):
            agent.tell({}, bad, censored=True)
    with pytest.raises(KnobBoundsError):
        agent.tell({"workers": 9}, 1.0)


@pytest.mark.parametrize("name", ["ddpg", "ours"])
def test_states_are_taken(name: str) -> None:
    agent = tuner(name, state_width=3)
    rng = np.random.default_rng(0)
    for _ in range(18):
        state = rng.normal(size=3)
        config = agent.ask(state)
        agent.tell(config, objective(config), state)


@pytest.mark.parametrize("name", ["tpe", "smac3"])
def test_models_beat_chance(name: str) -> None:
    def best(method: str, seed: int) -> float:
        return min(objective(config) for config in drive(tuner(method, seed=seed), 30))

    chance = np.mean([best("random", seed) for seed in range(8)])
    assert np.mean([best(name, seed) for seed in range(3)]) < chance


def test_a_warm_start_reads_its_checkpoint(tmp_path: Path) -> None:
    space = KnobSpace([Knob("x", "real", 0.0, 1.0, default=0.0), Knob("jit", "boolean")])
    settings = KnobAgentSettings(updates_per_tell=2, hidden_layers=(8,), ensemble_size=2)
    elsewhere = KnobAgent(space, settings=settings)
    for x in (0.1, 0.4, 0.9):
        elsewhere.tell({"x": x}, 2.0 - x)
    elsewhere.pretrained().write(tmp_path / "trained.npz")
    agent = make_tuner("ours-warm", space, 1, checkpoint=tmp_path / "trained.npz")
    agent.tell({}, 2.0)
    assert agent.ask() != space.default_config()
    with pytest.raises(CheckpointError):
        make_tuner("ours-warm", SPACE, 1, checkpoint=tmp_path / "trained.npz")


def test_random_search_is_uniform_in_the_logarithm() -> None:
    values = [float(config["work_mem"]) for config in drive(tuner("random"), 300)]
    middle = math.sqrt(64 * 2097151)
    assert middle / 2 < float(np.median(values)) < middle * 2


def test_plain_ddpg_follows_the_reward() -> None:
    space = KnobSpace([Knob("x", "real", 0.0, 1.0, default=0.5)])
    agent = tuner("ddpg", space)
    asked = []
    for _ in range(90):
        config = agent.ask()
        asked.append(float(config["x"]))
        agent.tell(config, 2.0 - asked[-1])
    assert np.mean(asked[-20:]) > np.mean(asked[:20]) + 0.15


@pytest.mark.parametrize(
    ("now", "first", "previous", "expected"),
    [
        (50.0, 100.0, 100.0, (1.5**2 - 1) * 1.5),
        (50.0, 100.0, 40.0, 0.0),  # better than at first, worse than just now
        (100.0, 100.0, 80.0, 0.0),
        (150.0, 100.0, 100.0, -(1.5**2 - 1) * 1.5),
        (-150.0, -100.0, -100.0, (1.5**2 - 1) * 1.5),  # throughput as its negative
    ],
)
def test_the_reward_of_cdbtune(now: float, first: float, previous: float, expected: float) -> None:
    assert cdbtune_reward(now, first, previous) == pytest.approx(expected)


def test_intervals_shift_logarithms_above_zero() -> None:
    limit = Interval.of(SPACE["limit"])
    assert (limit.low, limit.high) == (1, 100001)
    assert [limit.to_native(limit.to_sampler(value)) for value in (0, 1, 100000)] == [0, 1, 100000]
    assert limit.to_sampler(-1) == 1  # a special value counts as the nearest bound
    share = Interval.of(SPACE["share"])
    assert share.low > 0.0
    assert share.to_native(share.low) == 0.0
    assert share.to_native(share.high) == 1.0
    assert Interval.of(SPACE["scale"]).shift == 0.0


def test_errors_name_the_remedy() -> None:
    with pytest.raises(MissingPeerError, match=r"requirements-bench\.txt"):
        required("a_package_that_is_not_there")
    with pytest.raises(ConfigError, match="random"):
        make_tuner("nobody", SPACE, 0)
    with pytest.raises(ConfigError, match="checkpoint"):
        make_tuner("ours-warm", SPACE, 0)
