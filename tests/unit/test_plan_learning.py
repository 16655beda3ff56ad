"""The plan agent's surroundings: what it keeps over a restart, and what it records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from backend.catalog.hint_sets import HintSetCatalog, load_hint_sets
from backend.config import PathSettings, Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.plans import DEFAULT_HINT_SET, ExplainedPlan, HintSet, PlanFeatures
from backend.domain.server import HostFacts
from backend.plan_learning import AGENT, PlanLearner, plan_agent_folder
from backend.protocols import PlanGuesser
from backend.query_optimizer import CHECKPOINT_FILE
from backend.steering.plans.plan_features import FEATURE_NAMES
from backend.telemetry import SqlStore, open_store

CATALOG = load_hint_sets(17, HostFacts(memory_bytes=8 << 30, cpu_count=2.0))
FAST = CATALOG.combine(["no_nestloop"])


def plan_of(hint_set: HintSet) -> ExplainedPlan:
    """Every setting leaves its mark on the plan."""
    values = np.zeros(len(FEATURE_NAMES))
    for setting in hint_set.settings:
        values[sum(map(ord, setting)) % len(values)] += 1.0
    return ExplainedPlan(
        f"{crc32(hint_set.name.encode()) & 0xFFFF:032x}",
        PlanFeatures(FEATURE_NAMES, values),
        1.0,
        1.0,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(overrides={"paths": PathSettings.under(tmp_path)}, environ={})


@pytest.fixture
def store(settings: Settings) -> Iterator[SqlStore]:
    with closing(open_store(settings.store_url)) as opened:
        yield opened


def learner_of(
    settings: Settings, store: SqlStore, catalog: HintSetCatalog = CATALOG
) -> PlanLearner:
    return PlanLearner(settings, catalog, store, ManualClock())


def test_what_was_told_is_known_after_a_restart(settings: Settings, store: SqlStore) -> None:
    first: PlanGuesser = learner_of(settings, store)
    first.tell("a", FAST, -1.5, plan_of)
    first.learn()  # type: ignore[attr-defined]
    best = learner_of(settings, store).first_guess("a", plan_of)[0]
    assert best.hint_set == FAST
    assert best.measured
    (record,) = store.learning(agent=AGENT)
    assert record.step == 25
    assert record.replay_size == 1
    assert record.critic_loss is not None


def test_without_anything_new_nothing_is_learnt(settings: Settings, store: SqlStore) -> None:
    learner_of(settings, store).learn()
    assert store.learning(agent=AGENT) == []
    assert not plan_agent_folder(settings).exists()


def test_a_damaged_checkpoint_is_told_and_left_behind(
    settings: Settings, store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder = plan_agent_folder(settings)
    folder.mkdir(parents=True)
    (folder / CHECKPOINT_FILE).write_bytes(b"no checkpoint")
    guesses = learner_of(settings, store).first_guess("a", plan_of)
    assert [guess.hint_set for guess in guesses] == [DEFAULT_HINT_SET]
    assert "begins anew" in caplog.text
