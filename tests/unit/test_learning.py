"""The learner around the agent: rules first, never against what was proven, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.catalog.knobs import load_catalog
from backend.config import Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobSpace
from backend.domain.server import HostFacts
from backend.errors import CheckpointError
from backend.learning import AGENT, Learner
from backend.memory_budget import MemoryBudget
from backend.telemetry import open_store
from backend.telemetry.store import SqlStore

HOST = HostFacts(memory_bytes=24 * 2**30, cpu_count=2.0, free_disk_bytes=10**11)
NAMES = ("work_mem", "random_page_cost", "effective_cache_size", "max_parallel_workers_per_gather")


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


def test_asking_before_loading_is_an_error(
    settings: Settings, space: KnobSpace, store: SqlStore
) -> None:
    with pytest.raises(CheckpointError, match="not loaded"):
        make(settings, space, store).ask(None, space.default_config())
