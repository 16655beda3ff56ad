"""A genome that is deployed while the tuner runs, on the simulated database: no restart needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.domain.policies import GenomeRecord
from backend.evolution.present import default_genome
from tests.simulated_run import Run, make_target

pytestmark = pytest.mark.slow

SHORT = {"window_s": 5, "settle_s": 1, "baseline_s": 30, "rest_s": 30}


def deploy(run: Run, **genes: float) -> int:
    """Deploy a genome as an evolution does, for any workload; returns its id."""
    return run.store.add_genome(
        GenomeRecord(
            at=run.clock.now(), study="s", generation=1, origin="evolved",
            genes={**default_genome(run.settings).values, **genes}, fitness={}, profile={},
            comparison={}, deployed=True,
        )
    )  # fmt: skip


def test_it_is_taken_up_before_the_next_trial(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target(), **SHORT)
    run.go(300, until=lambda: run.loop.trial is not None)
    assert run.loop.trial is not None
    first = run.loop.trial
    number = deploy(run, min_improvement=0.05, gamma=0.4)
    run.go(300, until=lambda: run.loop.trial is None)
    assert first.plan.gate.min_improvement == run.settings.level1.min_improvement
    run.go(300, until=lambda: run.loop.trial is not None)
    assert run.loop.trial is not None
    assert run.loop.trial.plan.gate.min_improvement == 0.05
    run.orchestrator.save_status()
    status = run.store.status()
    assert status is not None
    assert status.genome == number
    assert not status.measures_alone
    assert any("genome in force" in event.message for event in run.store.events())
    run.orchestrator.end()


def test_what_is_measured_alone_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target(), **SHORT)
    run.go(15)
    run.orchestrator.save_status()
    status = run.store.status()
    assert status is not None
    assert status.measures_alone
    run.orchestrator.end()
