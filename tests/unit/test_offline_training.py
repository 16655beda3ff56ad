"""From recorded transitions to a trained agent: what is used, what is left out, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from backend.agent.pretrained import Pretrained
from backend.agent.settings import KnobAgentSettings
from backend.config import Settings, load_settings
from backend.domain.knobs import Knob, KnobSpace
from backend.domain.records import KnobSpaceRecord, TransitionRecord
from backend.errors import AutopilotError, CheckpointError, KnobBoundsError, StoreError
from backend.learning import TRAINED_FILE
from backend.offline_training import train, train_from_stores
from backend.rl_agent import CHECKPOINT_FILE, KnobAgent
from backend.state_features import STATE_LAYOUT, STATE_WIDTH
from backend.telemetry import open_store
from backend.training_data import (
    ALONE,
    DAMAGED,
    LEARNT_BEFORE,
    LOW_QUALITY,
    NO_STATE,
    OTHER_SPACE,
    OTHER_STATES,
    TWICE,
    Recorded,
    training_data,
)

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
TINY = KnobAgentSettings(updates_per_tell=2, hidden_layers=(8,), ensemble_size=2, candidates=64)


def space(memory_kb: int = 1_048_576, *more: Knob) -> KnobSpace:
    work_mem = Knob("work_mem", "integer", 64, memory_kb, "log", "kB", 4096)
    return KnobSpace([work_mem, Knob("jit", "boolean", default=True), *more])


SPACE = space()


def measurement(number: int = 0, **fields: object) -> TransitionRecord:
    """Every third of the work_mem of the last, jit off in every second."""
    record = TransitionRecord(
        at=NOW + timedelta(seconds=number),
        run="a",
        workload="mixed",
        knob_space=SPACE.fingerprint,
        state_layout=STATE_LAYOUT,
        state=tuple(np.linspace(0.0, 1.0, STATE_WIDTH) + number),
        config={"work_mem": 64 * 3 ** (number % 8), "jit": number % 2 == 0},
        objective=1.0 + number % 2,
        reward_terms={"latency": -math.log(1.0 + number % 2), "memory": -0.01},
    )
    return replace(record, **fields)  # type: ignore[arg-type]


def recorded(
    transitions: Sequence[TransitionRecord], *spaces: KnobSpace, address: str = "a.db"
) -> Recorded:
    known = {s.fingerprint: KnobSpaceRecord.of(s) for s in (SPACE, *spaces)}
    return Recorded(address, known, transitions)


# -- episodes -----------------------------------------------------------------------------------


def test_each_run_and_workload_is_an_episode() -> None:
    found = [
        measurement(0),
        measurement(1, workload="oltp"),
        measurement(2),
        measurement(3, workload="oltp"),
        measurement(4, run="b"),
        measurement(5, run="b"),
    ]
    data = training_data([recorded(found)], 0.2)
    assert data.workloads == ("mixed", "oltp", "mixed")
    assert [len(episode) for episode in data.episodes] == [2, 2, 2]
    assert data.used == 6
    assert data.left_out == {}
    first, second = data.episodes[0]
    assert first.reward == pytest.approx(-0.01)
    assert first.state[0] == 0.0
    assert first.next_state[0] == second.state[0] == second.next_state[0] == 2.0
    assert first.action == pytest.approx(SPACE.encode({"work_mem": 64, "jit": True}))


def test_values_count_as_shares_of_their_own_machines_range() -> None:
    big = space(memory_kb=4_194_304)
    largest = {"work_mem": 1_048_576, "jit": True}
    here = [measurement(n, config=largest) for n in range(2)]
    there = [
        measurement(n, run="b", knob_space=big.fingerprint, config={**largest, "work_mem": 2**22})
        for n in range(2)
    ]
    data = training_data([recorded(here), recorded(there, big, address="b.db")], 0.2)
    assert data.space == SPACE
    assert data.episodes[0][0].action == pytest.approx([1.0, 1.0])
    assert data.episodes[1][0].action == pytest.approx([1.0, 1.0])


def test_what_is_left_out_is_counted_by_reason() -> None:
    other = space(1_048_576, Knob("random_page_cost", "real", 0.5, 10, default=4.0))
    usable = [measurement(n) for n in range(3)]
    found = [
        *usable,
        measurement(10, knob_space=other.fingerprint),
        measurement(11, state_layout="another"),
        measurement(12, state=()),
        measurement(13, quality=0.1),
        measurement(14, knob_space="unknown"),
        measurement(15, config={"work_mem": -5, "jit": True}),
        measurement(16, state=(math.nan,) * STATE_WIDTH),
        measurement(17, reward_terms={}),
        measurement(18, objective=math.nan),
        measurement(19, quality=math.nan),
        measurement(20, run="b"),
    ]
    again = recorded(usable, address="copy.db")
    data = training_data([recorded(found[:3]), recorded(found[3:], other), again], 0.2)
    assert data.used == 3
    assert data.left_out == {
        OTHER_SPACE: 1,
        OTHER_STATES: 1,
        NO_STATE: 1,
        LOW_QUALITY: 1,
        DAMAGED: 6,
        TWICE: 3,
        ALONE: 1,
    }


def test_a_crash_is_a_bound_and_no_number() -> None:
    crash = measurement(
        1, censored=True, objective=math.nan, reward_terms={"latency": -math.inf, "cpu": -0.1}
    )
    data = training_data([recorded([measurement(0), crash])], 0.2)
    _, bound = data.episodes[0]
    assert bound.censored
    assert (bound.reward, bound.objective) == (-math.inf, math.inf)


def test_the_first_stores_newest_measurement_decides_on_the_knobs() -> None:
    other = space(1_048_576, Knob("random_page_cost", "real", 0.5, 10, default=4.0))
    full = {"work_mem": 64, "jit": True, "random_page_cost": 4.0}
    newer = [measurement(n, knob_space=other.fingerprint, config=full) for n in (5, 6)]
    older = [measurement(n) for n in range(4)]
    data = training_data([recorded([*older, *newer], other)], 0.2)
    assert data.space == other
    assert data.left_out == {OTHER_SPACE: 4}
    data = training_data([recorded(older), recorded(newer, other)], 0.2)
    assert data.space == SPACE
    assert data.left_out == {OTHER_SPACE: 2}


@pytest.mark.parametrize(
    ("found", "message", "remedy"),
    [
        ([], "no transitions are recorded in a.db", "let the tuner measure"),
        ([measurement(0)], f"1 {ALONE}", "let the tuner measure"),
        ([measurement(n, quality=0.0) for n in range(3)], f"3 {LOW_QUALITY}", "quality_floor"),
        (
            [measurement(n, state_layout="x") for n in range(2)],
            f"2 {OTHER_STATES}",
            "another version",
        ),
        ([measurement(0, knob_space="?")], "missing or damaged", "another store"),
    ],
)
def test_nothing_to_learn_from_is_an_error_that_says_why(
    found: list[TransitionRecord], message: str, remedy: str
) -> None:
    with pytest.raises(AutopilotError, match=message) as caught:
        training_data([recorded(found)], 0.2)
    assert remedy in str(caught.value.remedy)


# -- knob spaces --------------------------------------------------------------------------------


def test_a_space_is_read_back_and_a_damaged_one_is_refused() -> None:
    record = KnobSpaceRecord.of(SPACE)
    assert record.space() == SPACE
    with pytest.raises(KnobBoundsError, match="describes"):
        replace(record, knobs=record.knobs[:1]).space()
    with pytest.raises(KnobBoundsError, match="'name'"):
        replace(record, knobs=({"width": 3},)).space()


# -- files --------------------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    paths = {"policies_dir": str(tmp_path / "policies"), "telemetry_db": str(tmp_path / "t.db")}
    return load_settings(overrides={"paths": paths}, environ={})


def fill(path: Path, transitions: Sequence[TransitionRecord], *spaces: KnobSpace) -> Path:
    with closing(open_store(f"sqlite:///{path}")) as store:
        for known in (SPACE, *spaces):
            store.add_knob_space(KnobSpaceRecord.of(known))
        for transition in transitions:
            store.add_transition(transition)
    return path


def test_a_trained_agent_starts_from_what_was_recorded(tmp_path: Path) -> None:
    data = training_data([recorded([measurement(n) for n in range(40)])], 0.2)
    path = tmp_path / "new" / TRAINED_FILE
    train(data, path, TINY, seed=1, updates=30)
    known = Pretrained.read(path)
    known.check(SPACE, STATE_LAYOUT)
    assert len(known.transitions["rewards"]) == 40
    agent = KnobAgent.warm(known, SPACE, settings=TINY)
    assert agent.state_width == STATE_WIDTH
    again = tmp_path / "again.npz"
    train(data, again, TINY, seed=1, updates=30)
    for name, weights in Pretrained.read(again).weights.items():
        assert np.array_equal(weights, known.weights[name])
    with pytest.raises(CheckpointError, match="knob space"):
        known.check(SPACE.subset(["jit"]))


def test_the_configured_store_is_trained_from_and_the_checkpoint_set_aside(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.offline_training.UPDATES", 5)
    monkeypatch.setattr("backend.offline_training.agent_settings", lambda section: TINY)
    fill(tmp_path / "t.db", [measurement(n) for n in range(4)])
    folder = tmp_path / "policies" / "knob_agent"
    folder.mkdir(parents=True)
    (folder / CHECKPOINT_FILE).write_bytes(b"earlier")
    told: list[str] = []
    training = train_from_stores(settings, on_progress=told.append)
    assert training.path == folder / TRAINED_FILE
    assert training.path.exists()
    assert not (folder / CHECKPOINT_FILE).exists()
    assert training.set_aside is not None
    assert training.set_aside.read_bytes() == b"earlier"
    assert told[1] == "learning from 4 transitions of 1 runs"
    assert training.summary()[0] == "Used 4 transitions of 1 runs: mixed 4"
    elsewhere = train_from_stores(settings, [tmp_path / "t.db"], tmp_path / "out")
    assert elsewhere.path == tmp_path / "out" / TRAINED_FILE
    assert elsewhere.set_aside is None


def test_several_stores_by_path_and_by_url(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.offline_training.UPDATES", 5)
    monkeypatch.setattr("backend.offline_training.agent_settings", lambda section: TINY)
    first = fill(tmp_path / "a.db", [measurement(n) for n in range(3)])
    second = fill(tmp_path / "b.db", [measurement(n, run="b") for n in range(2)])
    stores = [str(first), f"sqlite:///{second}", first]
    training = train_from_stores(settings, stores, tmp_path / "out")
    # What comes last is kept where an agent cannot hold all: the first store's.
    assert [len(episode) for episode in training.data.episodes] == [2, 3]
    assert training.data.left_out == {}


def test_what_another_agent_has_learnt_from_is_learnt_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.offline_training.UPDATES", 5)
    monkeypatch.setattr("backend.offline_training.agent_settings", lambda section: TINY)
    runs = [measurement(n) for n in range(3)] + [measurement(n, run="b") for n in range(5, 9)]
    first = fill(tmp_path / "a.db", runs)
    # The second store holds one run of the first one again, and one of its own.
    second = fill(tmp_path / "b.db", [*runs[:3], measurement(9, run="c"), measurement(10, run="c")])
    train_from_stores(settings, [first], tmp_path / "one")
    training = train_from_stores(settings, [second], tmp_path / "two", trained=tmp_path / "one")
    assert training.data.workloads == (LEARNT_BEFORE, "mixed", "mixed")
    assert [len(episode) for episode in training.data.episodes] == [4, 3, 2]
    assert training.data.left_out == {TWICE: 3}
    assert len(Pretrained.read(training.path).transitions["rewards"]) == 9
    before, again = (
        training_data([recorded(runs[3:])], 0.2).episodes[0],
        training.data.episodes[0],
    )
    for old, new in zip(before, again, strict=True):
        assert np.array_equal(old.action.astype(np.float32), new.action.astype(np.float32))
        assert np.allclose(old.next_state, new.next_state)
        assert old.reward == pytest.approx(new.reward)
    assert not any(transition.reward == 0 for transition in again)


def test_all_are_learnt_from_however_many_an_agent_keeps(tmp_path: Path) -> None:
    data = training_data([recorded([measurement(n) for n in range(9)])], 0.2)
    path = tmp_path / TRAINED_FILE
    train(data, path, replace(TINY, buffer_size=4), seed=1, updates=5)
    assert len(Pretrained.read(path).transitions["rewards"]) == 9


def test_what_is_left_of_a_learnt_run_is_not_ranked_alone(
    settings: Settings, tmp_path: Path
) -> None:
    runs = [measurement(n) for n in range(3)]
    path = tmp_path / TRAINED_FILE
    train(training_data([recorded(runs)], 0.2), path, TINY, seed=1, updates=5)
    data = training_data([recorded(runs[:2])], 0.2, known=Pretrained.read(path))
    assert data.workloads == ("mixed",)
    assert data.left_out == {TWICE: 2, ALONE: 1}


def test_the_agent_of_the_settings_is_learnt_again_unless_asked_not_to(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.offline_training.UPDATES", 5)
    monkeypatch.setattr("backend.offline_training.agent_settings", lambda section: TINY)
    first = fill(tmp_path / "a.db", [measurement(n) for n in range(3)])
    second = fill(tmp_path / "b.db", [measurement(n, run="b") for n in range(5, 9)])
    train_from_stores(settings, [first], tmp_path / "first")
    monkeypatch.setattr("backend.learning.SHIPPED", tmp_path / "first")
    training = train_from_stores(settings, [second], tmp_path / "out")
    assert training.data.workloads == (LEARNT_BEFORE, "mixed")
    assert training.not_learnt == ""
    fresh = train_from_stores(settings, [second], tmp_path / "fresh", fresh=True)
    assert fresh.data.workloads == ("mixed",)
    assert fresh.not_learnt == ""
    assert not any("Not learnt again" in line for line in fresh.summary())


def test_an_agent_of_the_settings_for_other_knobs_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.offline_training.UPDATES", 5)
    monkeypatch.setattr("backend.offline_training.agent_settings", lambda section: TINY)
    store = fill(tmp_path / "a.db", [measurement(n) for n in range(3)])
    training = train_from_stores(settings, [store], tmp_path / "out")
    assert training.data.workloads == ("mixed",)
    assert "is for knob space" in training.not_learnt
    assert any(line.startswith("Not learnt again: ") for line in training.summary())


def test_an_agent_for_other_knobs_is_not_learnt_from(settings: Settings, tmp_path: Path) -> None:
    other = space(1_048_576, Knob("geqo", "boolean", default=True))
    data = training_data([recorded([measurement(n) for n in range(4)])], 0.2)
    path = tmp_path / "one" / TRAINED_FILE
    train(data, path, TINY, seed=1, updates=5)
    measured = measurement(1, knob_space=other.fingerprint)
    config = {**measured.config, "geqo": True}
    runs = [replace(measured, config=config), replace(measured, config=config, at=NOW)]
    store = fill(tmp_path / "other.db", runs, other)
    with pytest.raises(CheckpointError, match="is for knob space"):
        train_from_stores(settings, [store], tmp_path / "out", trained=tmp_path / "one")
    with pytest.raises(CheckpointError):
        train_from_stores(settings, [store], tmp_path / "out", trained=tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_a_store_that_cannot_be_read_is_told(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        train_from_stores(settings, [tmp_path / "none.db"], tmp_path / "out")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="damaged"):
        train_from_stores(settings, [damaged], tmp_path / "out")
    with pytest.raises(AutopilotError, match="--store"):
        train_from_stores(settings, ["postgresql://app@host:port/x"], tmp_path / "out")


def test_not_while_a_tuner_writes_its_own_checkpoint(settings: Settings, tmp_path: Path) -> None:
    fill(tmp_path / "t.db", [measurement(n) for n in range(2)])
    with closing(open_store(settings.store_url)) as store:
        epoch = store.acquire_lease("here:1:2", 60.0)
        with pytest.raises(AutopilotError, match="a tuner is at work") as caught:
            train_from_stores(settings)
        assert "--out" in str(caught.value.remedy)
        store.release_lease(epoch)
