"""The learner around the agent: where it starts from, rules, what it records, checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.agent.pretrained import Pretrained
from backend.catalog.knobs import load_catalog
from backend.config import Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobSpace
from backend.domain.server import HostFacts
from backend.errors import CheckpointError
from backend.learning import AGENT, TRAINED_FILE, Learner
from backend.memory_budget import MemoryBudget
from backend.rl_agent import CHECKPOINT_FILE, KnobAgent, KnobAgentSettings
from backend.state_features import STATE_LAYOUT, STATE_WIDTH
from backend.telemetry import open_store
from backend.telemetry.store import SqlStore

HOST = HostFacts(memory_bytes=24 * 2**30, cpu_count=2.0, free_disk_bytes=10**11)
NAMES = ("work_mem", "random_page_cost", "effective_cache_size", "max_parallel_workers_per_gather")
TINY = KnobAgentSettings(updates_per_tell=2, hidden_layers=(8,), ensemble_size=2)


@pytest.fixture
def space() -> KnobSpace:
    return load_catalog(17, HOST).space().subset(NAMES)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(overrides={"paths": {"policies_dir": str(tmp_path)}}, environ={})


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    return open_store(f"sqlite:///{tmp_path}/telemetry.db")


def make(settings: Settings, space: KnobSpace, store: SqlStore) -> Learner:
    budget = MemoryBudget(HOST, clients=8, memory_limit_gb=2)
    return Learner(settings, space, HOST, budget, store, ManualClock())


def test_rules_come_first_and_change_their_own_knobs_only(
    settings: Settings, space: KnobSpace, store: SqlStore
) -> None:
    learner = make(settings, space, store)
    present = space.default_config()
    learner.load(present)
    joint = learner.clamp(learner.ask(None, present))
    assert learner.proposer == "expert rule: all families"
    assert joint["random_page_cost"] == pytest.approx(1.1)
    # The joint proposal was promoted: no later rule takes anything of it back.
    while True:
        later = learner.ask(None, joint)
        if learner.proposer == AGENT:
            break
        assert learner.clamp(later) == joint


def test_a_rules_configuration_asked_for_again_is_meant_as_a_whole(
    settings: Settings, space: KnobSpace, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make(settings, space, store)
    learner.load(space.default_config())
    first = learner.ask(None, space.default_config())
    monkeypatch.setattr(KnobAgent, "ask", lambda self, state: first)  # the agent recalls it
    other = space.default_config().replace({"random_page_cost": 7.0, "work_mem": 65536})
    assert learner.ask(None, other) == first
    assert learner.proposer == AGENT


def test_looking_at_what_comes_next_uses_nothing_up(
    settings: Settings, space: KnobSpace, store: SqlStore
) -> None:
    learner = make(settings, space, store)
    present = space.default_config()
    learner.load(present)
    advised = [learner.advise(None, present) for _ in range(3)]
    first = learner.ask(None, present)
    assert learner.proposer.startswith("expert rule")
    assert advised == [first] * 3
    learner.tell(KnobConfig(dict(first)), 0.7, None, 1.0, None)
    after = learner.advise(None, present)
    assert after != first
    assert learner.ask(None, present) == after


def test_a_checkpoint_that_does_not_fit_is_kept(
    settings: Settings, space: KnobSpace, store: SqlStore, tmp_path: Path
) -> None:
    learner = make(settings, space, store)
    learner.load(space.default_config())
    learner.tell(space.default_config(), 1.0, None, 1.0, None)
    path = tmp_path / "knob_agent" / CHECKPOINT_FILE
    learnt = path.read_bytes()
    smaller = space.subset(space.names[:-1])
    other = make(settings, smaller, store)
    other.load(smaller.default_config())
    other.tell(smaller.default_config(), 1.0, None, 1.0, None)
    assert path.read_bytes() != learnt
    aside = path.with_suffix(".not-used.npz")
    assert aside.read_bytes() == learnt
    assert any(str(aside) in event.message for event in store.events())


def test_it_goes_on_from_its_checkpoint_and_records_what_it_learnt(
    settings: Settings, space: KnobSpace, store: SqlStore
) -> None:
    learner = make(settings, space, store)
    present = space.default_config()
    learner.load(present)
    first = learner.ask(None, present)
    learner.tell(KnobConfig(dict(first)), 0.7, None, 1.0, None)
    (record,) = store.learning()
    assert record.step == 1
    assert record.reward == pytest.approx(sum(record.reward_terms.values()))
    again = make(settings, space, store)
    again.load(present)
    assert again.ask(None, present) != first
    assert "starts from" in store.events()[-1].message


def test_every_measurement_is_recorded_with_all_that_training_needs(
    settings: Settings, space: KnobSpace, store: SqlStore
) -> None:
    learner = make(settings, space, store)
    learner.load(space.default_config())
    state = np.arange(STATE_WIDTH, dtype=np.float64)
    partial = KnobConfig({"work_mem": 8192})
    learner.tell(partial, 0.8, state, 0.05, None)  # below the quality floor: trains nothing
    learner.tell(partial, math.inf, None, 1.0, None, censored=True)
    spoilt, crash = store.transitions()
    assert spoilt.config == space.default_config().replace(partial)
    assert spoilt.state == tuple(state)
    assert (spoilt.objective, spoilt.quality, spoilt.censored) == (0.8, 0.05, False)
    assert spoilt.reward_terms["latency"] == pytest.approx(-math.log(0.8))
    assert (spoilt.workload, spoilt.state_layout) == ("mixed", STATE_LAYOUT)
    known = store.knob_spaces()[spoilt.knob_space].space()
    assert known.fingerprint == space.fingerprint
    assert known.default_config() == space.default_config()
    assert (crash.censored, crash.state) == (True, ())
    assert math.isnan(crash.objective)
    assert spoilt.run == crash.run
    other = make(settings, space, store)
    other.load(space.default_config())
    other.tell(partial, 1.0, state, 1.0, None)
    assert store.transitions()[-1].run != spoilt.run


def test_a_foreign_servers_transitions_are_labelled_with_its_database(
    tmp_path: Path, space: KnobSpace, store: SqlStore
) -> None:
    overrides = {"paths": {"policies_dir": str(tmp_path)}}
    url = "postgresql://app@db.example/orders"
    settings = load_settings(overrides=overrides, dsn=url, environ={})
    assert make(settings, space, store).workload == "orders"


class TestStart:
    """A first run starts from a trained agent that fits; an own checkpoint comes before it."""

    def trained(self, folder: Path, space: KnobSpace, layout: str = STATE_LAYOUT) -> Path:
        agent = KnobAgent(space, settings=TINY, state_width=STATE_WIDTH)
        path = folder / TRAINED_FILE
        replace(agent.pretrained(), state_layout=layout).write(path)
        return path

    def started(self, settings: Settings, space: KnobSpace, store: SqlStore) -> tuple[Learner, str]:
        learner = make(settings, space, store)
        learner.load(space.default_config())
        return learner, "\n".join(event.message for event in store.events())

    def test_from_what_was_trained_beside_the_checkpoint(
        self, settings: Settings, space: KnobSpace, store: SqlStore, tmp_path: Path
    ) -> None:
        path = self.trained(tmp_path / "knob_agent", space)
        learner, told = self.started(settings, space, store)
        assert f"starts from {path}" in told
        learner.tell(space.default_config(), 1.0, None, 1.0, None)
        _, told = self.started(settings, space, store)
        assert told.endswith(f"starts from {tmp_path / 'knob_agent' / CHECKPOINT_FILE}")

    def test_from_the_shipped_one_on_another_machine(
        self,
        settings: Settings,
        space: KnobSpace,
        store: SqlStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("backend.learning.SHIPPED", tmp_path / "shipped")
        bigger = load_catalog(17, replace(HOST, memory_bytes=2**38, cpu_count=64.0)).space()
        assert bigger.subset(NAMES).fingerprint != space.fingerprint
        path = self.trained(tmp_path / "shipped", bigger.subset(NAMES))
        learner, told = self.started(settings, space, store)
        assert f"starts from {path}" in told
        learner.ask(np.zeros(STATE_WIDTH), space.default_config())

    def test_from_the_folder_of_the_setting_or_from_nothing(
        self, space: KnobSpace, store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("backend.learning.SHIPPED", tmp_path / "mine")
        path = self.trained(tmp_path / "mine", space)

        def told(value: object) -> str:
            overrides = {
                "paths": {"policies_dir": str(tmp_path)},
                "level0": {"knob": {"pretrained": value}},
            }
            settings = load_settings(overrides=overrides, environ={})
            before = len(store.events())
            make(settings, space, store).load(space.default_config())
            return "\n".join(event.message for event in store.events()[before:])

        assert f"starts from {path}" in told(str(tmp_path / "mine"))
        assert told(False) == told("false") == ""
        assert f"starts from {path}" in told("true")
        assert f"there is no {tmp_path / 'none'}" in told(str(tmp_path / "none"))

    def test_networks_of_another_version_are_told_and_left(
        self, settings: Settings, space: KnobSpace, store: SqlStore, tmp_path: Path
    ) -> None:
        path = self.trained(tmp_path / "knob_agent", space)
        known = Pretrained.read(path)
        weights = {name: weights[..., :1] for name, weights in known.weights.items()}
        replace(known, weights=weights).write(path)
        learner, told = self.started(settings, space, store)
        assert "damaged or of another version" in told
        learner.ask(None, space.default_config())

    def test_what_does_not_fit_is_told_and_left(
        self, settings: Settings, space: KnobSpace, store: SqlStore, tmp_path: Path
    ) -> None:
        folder = tmp_path / "knob_agent"
        KnobAgent(space, settings=TINY, state_width=3).save(folder)
        self.trained(folder, space, layout="another")
        learner, told = self.started(settings, space, store)
        assert "takes states of length 3" in told
        assert "state layout another" in told
        joint = learner.ask(None, space.default_config())
        assert learner.proposer == "expert rule: all families"
        assert joint["random_page_cost"] == pytest.approx(1.1)


def test_asking_before_loading_is_an_error(
    settings: Settings, space: KnobSpace, store: SqlStore
) -> None:
    with pytest.raises(CheckpointError, match="not loaded"):
        make(settings, space, store).ask(None, space.default_config())
