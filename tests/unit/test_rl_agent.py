"""The knob agent's interface and its checkpoints."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.agent.checkpoint import read_checkpoint
from backend.domain.knobs import Knob, KnobConfig, KnobSpace
from backend.errors import CheckpointError, KnobBoundsError, UnknownKnobError
from backend.protocols import AskTellAgent
from backend.rl_agent import CHECKPOINT_FILE, KnobAgent, KnobAgentSettings
from tests.tiny_agent import SPACE, TINY, agent, drive, objective


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


def test_a_replay_that_grows_is_no_new_shape_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow keeps for good what it compiles for a shape: a megabyte and more a tell."""
    learner, shapes = agent(), set()
    networks = learner._networks
    for name in ("_train", "_values", "_act"):

        def noted(name: str, run: Any, *given: np.ndarray) -> Any:
            shapes.add((name, *(tuple(array.shape) for array in given)))
            return run(*given)

        monkeypatch.setattr(networks, name, partial(noted, name, getattr(networks, name)))
    drive(learner, 16)
    before = len(shapes)
    drive(learner, 16)
    assert len(shapes) - before <= 2  # to train on, and to value, 32 rows instead of 16


def test_a_checkpoint_does_not_grow_beyond_what_the_replay_holds(tmp_path: Path) -> None:
    settings = dataclasses.replace(TINY, buffer_size=6)
    learner = KnobAgent(SPACE, settings=settings)
    told = drive(learner, 10)
    learner.ask()
    learner.save(tmp_path)
    about, arrays = read_checkpoint(tmp_path / CHECKPOINT_FILE)
    asked = [SPACE.validate(config) for config in about["asked"]]
    assert asked[:5] == told[-5:]
    assert len(asked) == len(arrays["replay.rewards"]) == 6
    restored = KnobAgent.load(tmp_path, SPACE)
    drive(restored, 1)
    restored.save(tmp_path)
    assert len(read_checkpoint(tmp_path / CHECKPOINT_FILE)[0]["asked"]) == 6


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
