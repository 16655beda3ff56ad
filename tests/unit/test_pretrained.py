"""Offline training, the small file that it fills, and agents that start from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from backend.agent.pretrained import Pretrained
from backend.agent.replay import OFFLINE_PULL, Replay
from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.domain.transition import Transition
from backend.errors import CheckpointError
from backend.rl_agent import KnobAgent, KnobAgentSettings


def space(memory_kb: int = 1_000_000) -> KnobSpace:
    return KnobSpace(
        [
            Knob("work_mem", "integer", 64, memory_kb, "log", "kB", 4096),
            Knob("jit", "boolean", default=True),
        ]
    )


TINY = KnobAgentSettings(
    updates_per_tell=10, hidden_layers=(8,), ensemble_size=3, candidates=64, design_size=3
)


def recorded(count: int, scale: float = 1.0, quality: float = 1.0) -> list[Transition]:
    """Measurements of a workload that likes jit off and much work_mem."""
    rng = np.random.default_rng(count)
    transitions = []
    for _ in range(count):
        action = np.array([rng.uniform(-1, 1), rng.choice([-1.0, 1.0])])
        state = rng.normal(size=2)
        objective = scale * (2.0 - action[0] + (action[1] > 0))
        transitions.append(Transition(state, action, -objective, state, objective, quality))
    return transitions


def trained(seed: int = 0) -> KnobAgent:
    agent = KnobAgent(space(), seed, settings=TINY, state_width=2)
    agent.pretrain([recorded(30), recorded(25, scale=100.0)], updates=400)
    return agent


def value(config: Mapping[str, KnobValue]) -> float:
    return float(space().encode(config)[0]) - bool(config["jit"])


def test_a_trained_agent_asks_first_for_what_was_good_elsewhere(tmp_path: Path) -> None:
    trained().pretrained().write(tmp_path / "file.npz")
    warm = KnobAgent.warm(Pretrained.read(tmp_path / "file.npz"), space(), 1, settings=TINY)
    assert value(warm.ask(np.zeros(2))) > 0.5


def test_a_warm_agent_tries_the_first_rule_and_lets_the_others_compete() -> None:
    first, poor = {"work_mem": 128, "jit": True}, {"work_mem": 64, "jit": True}
    good = {"work_mem": 1_000_000, "jit": False}
    warm = KnobAgent.warm(
        trained().pretrained(), space(), settings=TINY, priors=[first, poor, good]
    )
    assert warm.ask(np.zeros(2)) == first
    warm.tell(first, 1.0, np.zeros(2))
    second = warm.ask(np.zeros(2))
    assert second != poor
    assert value(second) > 0.5


def test_a_first_rule_that_was_measured_already_is_not_owed_again(tmp_path: Path) -> None:
    first, poor = {"work_mem": 128, "jit": True}, {"work_mem": 64, "jit": True}
    warm = KnobAgent.warm(trained().pretrained(), space(), settings=TINY, priors=[first, poor])
    warm.tell(first, 1.0, np.zeros(2))
    warm.save(tmp_path)
    for agent in (warm, KnobAgent.load(tmp_path, space())):
        assert agent.ask(np.zeros(2)) not in (first, poor)


def test_other_bounds_are_no_other_shape_and_other_knobs_are() -> None:
    known = trained().pretrained()
    bigger = KnobAgent.warm(known, space(memory_kb=50_000_000), settings=TINY)
    assert int(bigger.ask(np.zeros(2))["work_mem"]) > 1_000_000
    with pytest.raises(CheckpointError, match="knob space"):
        KnobAgent.warm(known, space().subset(["jit"]), settings=TINY)
    with pytest.raises(CheckpointError, match="state layout abc"):
        Pretrained(**{**vars(known), "state_layout": "abc"}).check(space(), "xyz")


def test_the_file_keeps_what_matters_and_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    known = trained().pretrained()
    known.write(path)
    read = Pretrained.read(path)
    for name in Pretrained.FIELDS:
        assert read.transitions[name] == pytest.approx(known.transitions[name], rel=1e-6)
    for name, weights in known.weights.items():
        assert read.weights[name] == pytest.approx(weights, rel=1e-3, abs=1e-6)
    assert read.shape_fingerprint == space().shape_fingerprint
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError):
        Pretrained.read(path)
    with pytest.raises(CheckpointError):
        Pretrained.read(tmp_path / "none.npz")


def test_same_seed_same_warm_agent() -> None:
    known = trained().pretrained()
    first, second = (KnobAgent.warm(known, space(), 4, settings=TINY) for _ in range(2))
    for _ in range(3):
        state = np.array([0.1, -0.3])
        configs = [agent.ask(state) for agent in (first, second)]
        assert configs[0] == configs[1]
        for agent in (first, second):
            agent.tell(configs[0], 1.0 - value(configs[0]), state)


def test_a_warm_agent_is_saved_and_restored_like_any_other(tmp_path: Path) -> None:
    warm = KnobAgent.warm(trained().pretrained(), space(), 4, settings=TINY)
    warm.tell(warm.ask(np.zeros(2)), 1.0, np.zeros(2))
    warm.save(tmp_path)
    assert KnobAgent.load(tmp_path, space()).ask(np.ones(2)) == warm.ask(np.ones(2))


def test_bad_episodes_are_refused_with_the_lengths() -> None:
    agent = KnobAgent(space(), settings=TINY, state_width=2)
    short = Transition(np.zeros(2), np.zeros(1), 0.0, np.zeros(2), 0.0)
    with pytest.raises(ValueError, match=r"\(2,\), got \(1,\)"):
        agent.pretrain([[short]])
    stateless = Transition(np.zeros(0), np.zeros(2), 0.0, np.zeros(0), 0.0)
    with pytest.raises(ValueError, match="state"):
        agent.pretrain([[stateless]])


def test_rewards_are_ranked_within_their_episode_and_pull_less_than_ones_own() -> None:
    replay, rng = Replay(1000, 0, 1, members=2), np.random.default_rng(0)

    def transition(reward: float) -> Transition:
        return Transition(np.zeros(0), np.array([0.0]), reward, np.zeros(0), -reward)

    for reward in range(100):
        replay.add(transition(1000.0 + reward), rng, episode=1)
    for reward in range(40):
        replay.add(transition(float(reward)), rng)
    targets = replay.targets()
    assert targets[replay.online].mean() == pytest.approx(targets[~replay.online].mean(), abs=0.1)
    drawn = replay.online[replay.draw(200, 64, rng)].mean()
    assert drawn == pytest.approx(40 / (40 + OFFLINE_PULL), abs=0.02)
