"""The genome in force: chosen by workload, taken up between two trials, by an agent at work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backend.config import Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobSpace
from backend.domain.policies import GenomeRecord
from backend.domain.records import TransitionRecord
from backend.domain.server import HostFacts
from backend.evolution.archive import go_back
from backend.evolution.genome import Genome
from backend.evolution.present import GenomeInForce, default_genome
from backend.evolution.profile import NAMES
from backend.gate import GateSettings
from backend.learning import Learner
from backend.memory_budget import MemoryBudget
from backend.rl_agent import KnobAgent
from backend.state_features import FEATURES, STATE_LAYOUT, STATE_WIDTH
from backend.telemetry import SqlStore
from tests.tiny_agent import SPACE, TINY, drive

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
SHOP = dict.fromkeys(NAMES, 5.0)
REPORTS = {**SHOP, "log_mean_ms": 12.0, "log_calls_per_s": 0.5}
COLUMN = {feature.name: number for number, feature in enumerate(FEATURES)}


class Adopting:
    """A learner that only notes what it adopts."""

    def __init__(self) -> None:
        self.workload = "shop"
        self.adopted: list[float] = []

    def adopt(self, adapt: object) -> None:
        self.adopted.append(adapt(TINY).gamma)  # type: ignore[operator]


@pytest.fixture
def learner() -> Adopting:
    return Adopting()


def seen(store: SqlStore, workload: str, profile: Mapping[str, float]) -> None:
    state = np.zeros(STATE_WIDTH)
    for name, value in profile.items():
        state[COLUMN[name]] = value
    store.add_transition(
        TransitionRecord(
            at=NOW, run="r", workload=workload, knob_space="s", state_layout=STATE_LAYOUT,
            state=tuple(state), config={}, objective=1.0, reward_terms={},
        )
    )  # fmt: skip


def deploy(store: SqlStore, minutes: int, profile: Mapping[str, float], **genes: float) -> int:
    return store.add_genome(
        GenomeRecord(
            at=NOW + timedelta(minutes=minutes), study="s", generation=1, origin="evolved",
            genes={**default_genome(Settings()).values, **genes}, fitness={}, profile=profile,
            comparison={}, deployed=True,
        )
    )  # fmt: skip


def in_force(store: SqlStore, **level2: object) -> GenomeInForce:
    settings = Settings.model_validate({"level2": level2})
    return GenomeInForce(settings, store, ManualClock())


def test_what_is_deployed_while_the_tuner_runs_is_taken_up(
    store: SqlStore, learner: Adopting
) -> None:
    seen(store, "shop", SHOP)
    genome = in_force(store)
    genome.follow(learner)  # type: ignore[arg-type]
    assert (genome.record_id, learner.adopted) == (None, [])
    number = deploy(store, 1, SHOP, gamma=0.2, min_improvement=0.04)
    genome.follow(learner)  # type: ignore[arg-type]
    genome.follow(learner)  # type: ignore[arg-type]
    assert (genome.record_id, learner.adopted) == (number, [0.2])
    assert genome.gate_settings(GateSettings(alpha=0.005)).min_improvement == 0.04
    assert f"genome in force for workload shop: {number} of study s" in store.events()[-1].message


def test_it_follows_the_workload_that_is_offered(store: SqlStore, learner: Adopting) -> None:
    seen(store, "shop", SHOP)
    seen(store, "shop 2", REPORTS)
    for_shop, for_reports = deploy(store, 1, SHOP, gamma=0.2), deploy(store, 2, REPORTS, gamma=0.3)
    genome, in_turn = in_force(store), []
    for learner.workload in ("shop", "shop 2", "shop 2", "shop"):
        genome.follow(learner)  # type: ignore[arg-type]
        in_turn.append(genome.record_id)
    assert in_turn == [for_shop, for_reports, for_reports, for_shop]
    # The tuner began under the reports, which were recorded last.
    assert learner.adopted == [0.2, 0.3, 0.2]


def test_a_profile_that_only_wanders_changes_nothing(store: SqlStore, learner: Adopting) -> None:
    seen(store, "shop", SHOP)
    deploy(store, 1, SHOP, gamma=0.2)
    genome = in_force(store)
    genome.follow(learner)  # type: ignore[arg-type]
    for _ in range(3):
        seen(store, "shop", REPORTS)
    genome.follow(learner)  # type: ignore[arg-type]
    assert genome.genome.values["gamma"] == 0.2


def test_going_back_is_taken_up_too(store: SqlStore, learner: Adopting) -> None:
    seen(store, "shop", SHOP)
    deploy(store, 1, SHOP, gamma=0.2)
    genome = in_force(store)
    later = NOW + timedelta(minutes=2)
    restored = go_back(store, SHOP, default_genome(Settings()), later)
    genome.follow(learner)  # type: ignore[arg-type]
    assert restored is not None
    assert genome.record_id == restored.id
    assert genome.genome == default_genome(Settings())


def test_with_level_2_off_nothing_is_taken_up(store: SqlStore, learner: Adopting) -> None:
    genome = in_force(store, enabled=False)
    deploy(store, 1, {}, gamma=0.2)
    genome.follow(learner)  # type: ignore[arg-type]
    assert (genome.record_id, learner.adopted) == (None, [])


def test_a_learner_that_fails_to_adopt_keeps_what_it_has(store: SqlStore) -> None:
    genome = in_force(store)
    deploy(store, 1, {}, gamma=0.2)

    def fail(adapt: object) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        genome.follow(SimpleNamespace(workload="shop", adopt=fail))  # type: ignore[arg-type]
    assert genome.record_id is None
    assert genome.genome == default_genome(Settings())


# -- the agent at work ----------------------------------------------------------------------------


def test_an_agent_goes_on_with_other_settings_and_all_that_it_knows(tmp_path: Path) -> None:
    first = KnobAgent(SPACE, settings=TINY)
    drive(first, 5)
    first.save(tmp_path)
    bolder = dataclasses.replace(
        TINY, trust_start=2.0, trust_min=0.2, learning_rate=0.002, hidden_layers=(32,), gamma=0.3
    )
    again = KnobAgent.load(tmp_path, SPACE, bolder)
    assert again.settings == dataclasses.replace(bolder, hidden_layers=TINY.hidden_layers)
    assert again._trust == pytest.approx(2.0 * first._trust)
    assert again._networks.gamma == 0.3
    assert float(again._networks._actor_adam.learning_rate) == pytest.approx(0.002)
    ours, theirs = first._networks.weights(), again._networks.weights()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert again._replay.size == first._replay.size
    drive(again, 2)


def test_a_learner_adopts_other_hyper_parameters_between_two_measurements(
    tmp_path: Path, store: SqlStore
) -> None:
    settings = load_settings(
        overrides={
            "paths": {"policies_dir": str(tmp_path)}, "level0": {"knob": {"pretrained": False}},
        },
        environ={},
    )  # fmt: skip
    host = HostFacts(memory_bytes=24 * 2**30, cpu_count=2.0)
    space = KnobSpace([SPACE["work_mem"], SPACE["jit"]])
    budget = MemoryBudget(host, clients=8, memory_limit_gb=2)
    learner = Learner(settings, space, host, budget, store, ManualClock())
    genome = Genome({**default_genome(settings).values, "gamma": 0.4, "updates_per_tell": 5.0})
    learner.load(space.default_config())
    learner.tell(space.default_config(), 1.0, np.zeros(STATE_WIDTH), 1.0, None)
    learner.adopt(genome.knob_settings)
    agent = learner._loaded()
    assert (agent.settings.gamma, agent.settings.updates_per_tell) == (0.4, 5)
    learner.tell(space.default_config(), 0.9, np.zeros(STATE_WIDTH), 1.0, None)
    assert store.learning()[-1].step == 2
    # The next tuner goes by its own genome, not by the one that the checkpoint was written under.
    after = Learner(settings, space, host, budget, store, ManualClock())
    after.load(space.default_config())
    assert after._loaded().settings.gamma == settings.level0.knob.gamma
