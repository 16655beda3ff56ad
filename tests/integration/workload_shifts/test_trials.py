"""Trials, advice and what was approved, where the load shifts between two workloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.domain.modes import CommandKind, Mode, TrialKind, Verdict
from tests.integration.workload_shifts.shifting_run import BEST, DAY, SPACE, Shifting


def test_trials_go_on_by_night_and_again_by_day(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(1000, until=lambda: run.promoted() and run.loop.trial is None)
    best_by_day = run.model.index_by_day(run.target.effective_config)
    assert best_by_day < 0.62
    factor_by_day = run.loop.workloads.in_force.chain.factor
    assert factor_by_day == pytest.approx(best_by_day, rel=0.05)

    run.clients.offer("night")
    run.go(1000, until=lambda: run.promoted(2))
    assert run.number() == 2
    before = run.store.policy_versions()[-2].config
    assert run.store.policy_versions()[-1].index == pytest.approx(
        run.model.index_by_night(BEST["night"]) / run.model.index_by_night(before), rel=0.1
    )
    run.go(200, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION)[1:])

    run.clients.offer("day")
    run.go(1000, until=lambda: run.promoted(3))
    assert run.number() == 1
    assert len(run.told("baseline")) == 2  # the day's was kept
    assert run.loop.workloads.in_force.chain.factor == pytest.approx(factor_by_day, rel=0.1)
    assert run.model.index_by_day(run.target.effective_config) == pytest.approx(best_by_day)
    # What the agent was told is on the scale of each workload, whatever stood meanwhile.
    by_day = [objective for workload, objective in run.agent.objectives if workload == "shop"]
    assert by_day[0] == 1.0
    assert by_day[1:] == pytest.approx([best_by_day] * 4, rel=0.15)
    by_night = [objective for workload, objective in run.agent.objectives if workload == "shop 2"]
    assert by_night[0] == 1.0
    assert len(by_day) + len(by_night) == len(run.agent.objectives)
    run.orchestrator.end()


def test_a_trial_that_the_load_leaves_proves_nothing(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(600, until=lambda: run.tried(TrialKind.PROMOTION))
    run.clients.offer("night")
    run.go(300, until=lambda: run.loop.trial is None)
    assert run.verdicts(TrialKind.PROMOTION) == [Verdict.INCONCLUSIVE]
    assert run.target.effective_config == SPACE.default_config()
    # Before it is known what is offered now, nothing is tried.
    run.go(20)
    assert run.loop.trial is None
    run.go(60, until=lambda: run.loop.trial is not None)
    assert run.number() == 2
    assert run.loop.trial is not None
    offered = set(run.target.keys[len(DAY) :])
    assert set(run.loop.trial.plan.shares.per_class) == offered
    run.orchestrator.end()


class TestProbation:
    def test_where_the_load_leaves_in_the_middle_it_is_undone(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.tried(TrialKind.PROBATION))
        run.clients.offer("night")
        run.go(300, until=lambda: run.loop.trial is None)
        assert run.verdicts(TrialKind.PROBATION) == [Verdict.INCONCLUSIVE]
        assert run.target.effective_config == SPACE.default_config()
        run.clients.offer("day")
        run.go(60, until=lambda: run.loop.workloads.ready)
        assert run.loop.workloads.in_force.chain.factor == 1.0  # as before the promotion
        run.orchestrator.end()

    def test_where_the_load_left_before_it_began_it_is_undone(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.promoted())
        run.command(CommandKind.PAUSE)
        run.clients.offer("night")
        run.go(120)
        assert run.number() == 2
        assert run.target.effective_config["jit"] is False  # paused: it stands, not yet proven
        run.command(CommandKind.RESUME)
        run.go(5, until=lambda: bool(run.told("rollback")))
        assert run.target.effective_config == SPACE.default_config()
        assert TrialKind.PROBATION not in {trial.kind for trial in run.store.trials()[2:]}
        run.orchestrator.end()

    def test_waits_for_its_workload_while_nothing_may_be_tried(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.promoted())
        run.command(CommandKind.PAUSE)
        run.clients.offer("night")
        run.go(120)
        run.clients.offer("day")
        run.go(60)
        run.command(CommandKind.RESUME)
        run.go(300, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION))
        assert Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION)
        assert run.target.effective_config["jit"] is False
        run.orchestrator.end()


def test_what_was_approved_waits_for_the_load_that_it_was_proven_under(tmp_path: Path) -> None:
    run = Shifting(tmp_path, mode=Mode.APPROVE)
    run.go(300, until=lambda: bool(run.store.experiment_plans()))
    run.command(CommandKind.APPROVE_PLAN, plan_id=1)
    run.go(900, until=lambda: bool(run.store.promotions()))
    (promotion,) = run.store.promotions()
    run.clients.offer("night")
    run.go(300, until=lambda: run.number() == 2)
    run.command(CommandKind.APPROVE, trial_id=promotion.trial_id)
    deployment = run.orchestrator._components.deployment
    run.go(60)
    assert deployment.deviating == {}
    run.clients.offer("day")
    run.go(300, until=lambda: bool(deployment.deviating))
    assert run.number() == 1
    proven = run.store.trial(promotion.trial_id)
    assert proven is not None
    assert deployment.deviating == dict(proven.after)
    run.orchestrator.end()


def test_each_workload_gets_its_advice(tmp_path: Path) -> None:
    run = Shifting(tmp_path, mode=Mode.ADVISE)
    for workload, number in (("day", 1), ("night", 2), ("day", 1)):
        run.clients.offer(workload)
        run.go(200, until=lambda number=number: run.number() == number)  # type: ignore[misc]
    day = "worth a try: random_page_cost = 1.2, jit = False"
    assert run.told("advice") == [day, "worth a try: random_page_cost = 8.0", day]
    assert not run.store.trials()
    run.orchestrator.end()
