"""A harmful configuration that was put in force without proof is found out and undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.demonstration import INJECTED
from backend.domain.knobs import KnobValue
from backend.domain.modes import TrialKind, Verdict
from backend.orchestrator import SystemOrchestrator
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from tests.scripted_tuner import ScriptedRun
from tests.simulated_run import Run

HARMFUL: dict[str, KnobValue] = {"work_mem": 64, "random_page_cost": 10.0}


@pytest.fixture
def run(tmp_path: Path) -> ScriptedRun:
    target = SimulatedDatabase(ResponseModel(), noise=Noise(0.01, 0.01, 0.3))
    assert target.index_of(target.space.default_config().replace(HARMFUL)) > 1.02
    run = ScriptedRun(tmp_path, target, lambda present: present)
    run.go(300, until=lambda: run.loop.workloads.ready)
    assert run.loop.put_in_force(HARMFUL, INJECTED, "on purpose")
    assert run.entries == HARMFUL
    return run


def test_its_probation_undoes_it(run: ScriptedRun) -> None:
    run.go(600, until=lambda: not run.entries)
    assert run.target.effective_config == run.target.space.default_config()
    assert run.verdicts(TrialKind.PROBATION)[-1] is Verdict.REJECT
    assert "did not stand its probation" in run.events("rollback")[-1]
    (injected,) = run.of_kind(TrialKind.PROMOTION)
    assert (injected.proposer, injected.blocks, injected.effect) == (INJECTED, 0, None)


def test_a_tuner_that_takes_over_undoes_it_too(run: ScriptedRun) -> None:
    run.orchestrator.end()
    run.target.reopen()
    again = SystemOrchestrator(run.settings, target_factory=lambda _: run.target, clock=run.clock)
    again.initialize_components()
    again._components.learner = run.agent  # type: ignore[assignment]
    again.begin()
    taken_over = Run.of(again, run.target, run.settings)
    before = dict(HARMFUL)
    assert again._components.deployment.deviating == before
    taken_over.go(900, until=lambda: not again._components.deployment.deviating)
    assert again._components.deployment.deviating == {}


def test_nothing_is_put_in_force_over_what_is_on_probation(run: ScriptedRun) -> None:
    assert not run.loop.put_in_force({"work_mem": 128}, INJECTED, "once more")
    assert run.entries == HARMFUL
