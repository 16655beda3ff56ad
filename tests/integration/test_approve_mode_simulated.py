"""Mode ``approve`` on the simulated server: nothing without a plan, no promotion without a word."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backend.domain.experiment_plans import ExperimentPlanRecord, PlanState, PromotionState
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.modes import CommandKind, CommandState, Mode, TrialKind, Verdict
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_drift import TurnedModel
from tests.scripted_tuner import ScriptedRun

GOOD: dict[str, KnobValue] = {"random_page_cost": 1.2, "jit": False, "work_mem": 98304}
NOISE = Noise(sigma=0.01, shared_sigma=0.01, per_call=0.3)
KNOBS = {
    "random_page_cost": {"low": 1.1, "high": 4},
    "jit": {"choices": [True, False]},
    "work_mem": {"low": "4MB", "high": "128MB"},
}


class Approving(ScriptedRun):
    """A run in mode ``approve`` that would try ``GOOD``."""

    def __init__(
        self,
        folder: Path,
        target: SimulatedDatabase | None = None,
        propose: object = GOOD,
        mode: Mode = Mode.APPROVE,
    ) -> None:
        target = target or SimulatedDatabase(ResponseModel(seed=0), noise=NOISE, seed=0)
        super().__init__(folder, target, propose, mode=mode)  # type: ignore[arg-type]

    @property
    def plan(self) -> ExperimentPlanRecord:
        return self.store.experiment_plans()[-1]

    def draft(self, **changes: object) -> int:
        document = {"knobs": KNOBS, "trials": 20, "days": 1, **changes}
        done = self.command(CommandKind.DRAFT_PLAN, document=document)
        assert done.state is CommandState.DONE, done.result
        assert self.plan.id is not None
        return self.plan.id

    def approved(self, **changes: object) -> int:
        number = self.draft(**changes)
        done = self.command(CommandKind.APPROVE_PLAN, plan_id=number)
        assert done.state is CommandState.DONE, done.result
        return number

    def proven(self) -> int:
        """Run until a promotion waits; the id of its trial."""
        self.go(900, until=lambda: bool(self.store.promotions()))
        (promotion,) = self.store.promotions()
        assert promotion.state is PromotionState.WAITING
        return promotion.trial_id

    def restarted(self) -> Approving:
        """The same store and server with the next tuner, as a kill would leave them."""
        self.orchestrator.end()
        self.target.reopen()
        folder = self.settings.paths.data_dir
        return Approving(folder, self.target)


@pytest.fixture
def run(tmp_path: Path) -> Approving:
    return Approving(tmp_path)


def test_a_whole_course_with_a_plan(run: Approving) -> None:
    run.go(120)
    assert run.plan.state is PlanState.DRAFT  # the tuner's own
    assert run.plan.author == "autopilot"
    assert set(GOOD) <= set(run.plan.ranges)
    assert not run.store.trials()
    assert not run.store.changes()

    number = run.approved()
    assert [p.state for p in run.store.experiment_plans()] == [PlanState.OVER, PlanState.APPROVED]
    trial_id = run.proven()
    assert run.entries == {}  # proven, and not deployed
    kinds = [trial.kind for trial in run.store.trials()]
    assert {TrialKind.PROBE, TrialKind.PROMOTION} == set(kinds)
    assert {trial.experiment_plan_id for trial in run.store.trials()} == {number}
    assert run.plan.begun == len(kinds)

    evidence = run.store.trial(trial_id)
    assert evidence is not None
    assert evidence.verdict is Verdict.ACCEPT
    assert evidence.ci_high is not None
    assert evidence.ci_high < 0
    assert evidence.class_effects
    assert run.store.windows(trial_id=trial_id)

    run.go(120)
    assert run.entries == {}
    assert len(run.store.trials()) == len(kinds)  # nothing new while it waits

    done = run.command(CommandKind.APPROVE, trial_id=trial_id)
    assert done.state is CommandState.DONE
    run.go(10)
    assert run.entries == GOOD
    assert run.store.promotions()[-1].state is PromotionState.DEPLOYED
    assert run.store.promotions()[-1].decided_by == "tester"
    version = run.store.policy_versions()[-1]
    assert version.trial_id == trial_id
    assert version.index < 0.97
    run.go(400, until=lambda: run.passed(TrialKind.PROBATION))
    assert run.passed(TrialKind.PROBATION)  # nobody was asked
    run.orchestrator.end()
    assert not run.store.open_changes()


def test_what_is_declined_is_never_deployed(run: Approving) -> None:
    run.go(60)
    run.approved()
    trial_id = run.proven()
    assert run.command(CommandKind.DECLINE, trial_id=trial_id).state is CommandState.DONE
    refused = run.command(CommandKind.APPROVE, trial_id=trial_id)
    assert refused.state is CommandState.REFUSED
    run.go(120)
    assert run.entries == {}
    assert run.store.promotions()[0].state is PromotionState.DECLINED
    run.orchestrator.end()


def test_plan_and_promotion_survive_a_restart(run: Approving) -> None:
    run.go(60)
    number = run.approved()
    run.go(200, until=lambda: bool(run.of_kind(TrialKind.PROBE)))
    begun = run.plan.begun
    second = run.restarted()
    assert (second.plan.id, second.plan.begun) == (number, begun)
    trial_id = second.proven()
    third = second.restarted()
    third.go(60)
    assert third.entries == {}
    assert third.command(CommandKind.APPROVE, trial_id=trial_id).state is CommandState.DONE
    third.go(60, until=lambda: bool(third.entries))
    assert third.entries == GOOD
    third.orchestrator.end()


def test_nothing_outside_its_ranges_is_ever_tried(tmp_path: Path) -> None:
    def wild(present: KnobConfig) -> KnobConfig:
        value = 1.05 + 0.05 * (len(run.store.trials()) % 40) if hasattr(run, "store") else 2.0
        return present.replace(
            {"random_page_cost": value, "work_mem": 1_000_000, "effective_io_concurrency": 100}
        )

    run = Approving.__new__(Approving)
    Approving.__init__(run, tmp_path, propose=wild)
    run.go(60)
    run.approved(knobs={"random_page_cost": {"low": 1.5, "high": 2.0}}, trials=6)
    run.go(900, until=lambda: run.plan.state is PlanState.OVER)
    tried = [dict(trial.after) for trial in run.store.trials()]
    assert tried
    assert all(set(values) == {"random_page_cost"} for values in tried)
    assert all(1.5 <= float(values["random_page_cost"]) <= 2.0 for values in tried)
    written = {change.knob for change in run.store.changes()}
    assert written <= {"random_page_cost"}
    run.orchestrator.end()


def test_what_slipped_past_the_first_look_is_stopped_before_it_begins(run: Approving) -> None:
    run.go(60)
    run.command(CommandKind.PAUSE)
    run.approved(knobs={"random_page_cost": {"low": 1.5, "high": 2.0}})
    present = run.loop.workloads.in_force
    for values in ({"random_page_cost": 1.2}, {"jit": False}):
        rogue = run.loop._planner.plan(
            TrialKind.PROBE, values, "a test", present.chain.reference, present.noise
        )
        run.loop._start(rogue)
        assert run.loop.trial is None
    assert not run.store.trials()
    assert not run.store.changes()
    assert run.plan.begun == 0
    told = run.events("not_tried")
    assert "random_page_cost = 1.2 is outside its range" in told[0]
    assert "jit is not in experiment plan" in told[1]
    run.orchestrator.end()


def test_it_is_over_when_its_trials_are_used_up(run: Approving) -> None:
    run.go(60)
    run.approved(trials=1)
    run.go(300, until=lambda: run.plan.author == "autopilot" and run.plan.begun == 0)
    used = run.store.experiment_plans()[-2]
    assert (used.state, used.begun, used.reason) == (PlanState.OVER, 1, "its 1 trials are used up")
    assert len(run.store.trials()) == 1
    assert run.plan.state is PlanState.DRAFT  # the next one waits
    run.go(200)
    assert len(run.store.trials()) == 1
    run.orchestrator.end()


def test_it_is_over_when_it_expires_and_so_is_its_trial(run: Approving) -> None:
    run.go(60)
    number = run.approved()
    run.go(100, until=lambda: run.loop.trial is not None and run.loop.trial.progress > 0)
    run.clock.advance(86_400)
    run.go(5)
    (trial,) = run.store.trials()
    assert trial.reasons == (f"experiment plan {number} expired",)
    run.go(30)
    over = next(p for p in run.store.experiment_plans() if p.id == number)
    assert over.state is PlanState.OVER
    assert "expired" in over.reason
    assert run.target.effective_config == run.target.space.default_config()
    run.orchestrator.end()


def test_a_plan_of_another_server_is_over(run: Approving) -> None:
    run.go(60)
    run.command(CommandKind.PAUSE)
    number = run.approved()
    run.store.save_experiment_plan(replace(run.plan, server_id="another"))
    run.command(CommandKind.RESUME)
    run.go(60)
    over = next(p for p in run.store.experiment_plans() if p.id == number)
    assert (over.state, over.reason) == (PlanState.OVER, "it was made for another server")
    assert not run.store.trials()
    run.orchestrator.end()


def test_a_declined_plan_ends_its_trial_and_is_not_drafted_again_at_once(run: Approving) -> None:
    run.go(60)
    number = run.approved()
    run.go(100, until=lambda: run.loop.trial is not None and run.loop.trial.progress > 0)
    done = run.command(CommandKind.DECLINE_PLAN, plan_id=number)
    assert done.state is CommandState.DONE
    run.go(60)
    (trial,) = run.store.trials()
    assert trial.verdict is Verdict.ABORTED
    assert run.plan.state is PlanState.DECLINED
    assert run.target.effective_config == run.target.space.default_config()
    run.clock.advance(86_400)
    run.go(60)
    assert run.plan.state is PlanState.DRAFT  # after a day it asks again
    run.orchestrator.end()


def test_rollbacks_wait_for_nobody(run: Approving) -> None:
    run.go(60)
    run.approved()
    trial_id = run.proven()
    run.command(CommandKind.APPROVE, trial_id=trial_id)
    run.go(400, until=lambda: run.passed(TrialKind.PROBATION))
    commands = len(run.store.commands())
    run.go(60)
    run.target.drift(TurnedModel(run.target.model, 1.0))
    run.go(900, until=lambda: not run.entries)
    assert run.entries == {}
    assert len(run.store.commands()) == commands
    run.orchestrator.end()


def test_what_was_approved_outside_the_plans_hours_stands_its_probation_there(
    run: Approving,
) -> None:
    run.go(60)
    begin = run.clock.now()
    end = begin.replace(second=0, microsecond=0) + timedelta(minutes=10)
    run.approved(hours=[f"{begin:%a} {begin:%H:%M}-{end:%H:%M}"])
    trial_id = run.proven()
    run.go(600, until=lambda: run.clock.now() > end)
    assert run.command(CommandKind.APPROVE, trial_id=trial_id).state is CommandState.DONE
    run.go(400, until=lambda: run.passed(TrialKind.PROBATION))
    assert run.entries == GOOD
    run.go(60)
    assert "outside the hours of experiment plan" in run.loop.hindrance
    assert all(t.created_at < end for t in run.store.trials() if t.kind.is_experiment)
    run.orchestrator.end()


def test_a_draft_that_nobody_decides_on_makes_room_for_the_next(run: Approving) -> None:
    run.go(60)
    first = run.plan
    run.clock.advance((first.expires_at - first.created_at).total_seconds())
    run.go(60)
    states = [plan.state for plan in run.store.experiment_plans()]
    assert states == [PlanState.OVER, PlanState.DRAFT]
    run.orchestrator.end()


def test_in_another_mode_an_approval_says_that_it_does_not_count_there(tmp_path: Path) -> None:
    run = Approving(tmp_path, mode=Mode.ADVISE)
    run.go(60)
    number = run.draft()
    done = run.command(CommandKind.APPROVE_PLAN, plan_id=number)
    assert "it counts in mode approve, this is advise" in done.result
    run.go(120)
    assert not run.store.trials()
    run.orchestrator.end()


def test_a_change_by_hand_voids_what_waits(run: Approving) -> None:
    run.go(60)
    run.approved()
    trial_id = run.proven()
    run.command(CommandKind.SET_KNOBS, knobs={"random_page_cost": 3.0})
    assert run.store.promotions()[0].state is PromotionState.VOID
    refused = run.command(CommandKind.APPROVE, trial_id=trial_id)
    assert refused.state is CommandState.REFUSED
    run.orchestrator.end()


def test_frozen_what_waits_stays_and_is_deployed_after_the_thaw(run: Approving) -> None:
    run.go(60)
    run.approved()
    trial_id = run.proven()
    run.command(CommandKind.FREEZE, reason="the sale begins")
    run.command(CommandKind.APPROVE, trial_id=trial_id)
    run.go(60)
    assert run.entries == {}
    run.command(CommandKind.UNFREEZE)
    run.go(30)
    assert run.entries == GOOD
    run.orchestrator.end()


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.ADVISE, Mode.APPROVE])
def test_no_mode_escalates_by_itself(tmp_path: Path, mode: Mode) -> None:
    run = Approving(tmp_path, mode=mode)
    run.go(300)
    run.orchestrator.save_status()
    second = run.restarted() if mode is Mode.APPROVE else run
    second.clock.advance(timedelta(days=8).total_seconds())
    second.go(120)
    assert second.orchestrator._components.deployment.mode is mode
    assert not second.store.changes()
    assert not second.store.trials()
    second.orchestrator.end()


def test_in_mode_approve_nothing_unproven_is_put_in_force(run: Approving) -> None:
    run.go(60)
    assert not run.loop.put_in_force({"random_page_cost": 8.0}, "the test", "a demonstration")
    assert run.entries == {}
    run.orchestrator.end()
