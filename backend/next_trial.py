"""What is tried next: what stands comes before what is new, and proofs before looks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from backend.ask_and_tell import State
from backend.candidates import Candidates
from backend.deployment import Deployment
from backend.domain.experiment_plans import ExperimentPlanRecord, PlanState
from backend.domain.knobs import KnobValue
from backend.domain.modes import Mode, Phase, TrialKind, Verdict
from backend.domain.records import EventRecord
from backend.permission import Permission
from backend.protocols import Clock, Store
from backend.recheck import Rechecks
from backend.rollout import Rollout
from backend.trial_planner import RunSchedule, TrialPlanner
from backend.trials import Trial, TrialPlan
from backend.workloads import Workloads

DRAFTS_AGAIN_AFTER = timedelta(days=1)
"""After an operator has declined a plan the tuner drafts none by itself for so long."""

RETURN_AGAIN_AFTER_S = 10.0
"""After a trial that returns to what stood before was broken off the next one waits so long; twice
as long after each further one, up to:"""
RETURN_AGAIN_AT_MOST_S = 900.0

Draft = Callable[[], ExperimentPlanRecord]
"""Makes the tuner's own experiment plan."""


class NextTrial:
    """Chooses the next trial.

    Args:
        deployment: the mode.
        workloads: which of them is offered.
        planner: makes the plans.
        store: is told what was drafted.
        clock: time.
        rollout, rechecks, candidates: what there is to try.
        permission: what may be tried now.
        schedule: the moments of a bounded run.
        draft: makes an experiment plan, where mode ``approve`` has none.
    """

    def __init__(
        self,
        deployment: Deployment,
        workloads: Workloads,
        planner: TrialPlanner,
        store: Store,
        clock: Clock,
        rollout: Rollout,
        rechecks: Rechecks,
        candidates: Candidates,
        permission: Permission,
        schedule: RunSchedule,
        draft: Draft,
    ) -> None:
        self._deployment = deployment
        self._schedule, self._planner, self._permission = schedule, planner, permission
        self._rollout, self._rechecks = rollout, rechecks
        self._candidates, self._workloads = candidates, workloads
        self._draft, self._store, self._clock = draft, store, clock
        self.hindrance = ""
        self.phase: Phase | None = None
        self._broken_off, self._may_return_s = 0, 0.0

    def choose(self, state: State) -> TrialPlan | None:
        """The trial to begin now, None where there is none.

        ``hindrance`` says for people why nothing new is tried, ``phase`` where the run stands
        from now on, None where it stands as it did.

        Args:
            state: of the server, for the agent.
        """
        self.phase = None
        if self._rollout.on_probation:
            # Whatever the hour: what cannot be proven any more is undone here.
            probation = self._rollout.plan_probation()
            if probation is None or not self._may_return(probation.other_values):
                return None
            return probation
        if self._rechecks.alarm is not None:
            return self._rechecks.plan() if self._may_return(self._rechecks.returning) else None
        self.hindrance = self._permission.why_no_experiment()
        if self.hindrance:
            self._draft_where_missing()
            return None
        promotion = self._promotion()
        if promotion is not None:
            return promotion
        if not self._schedule.may_learn(self._clock.monotonic_s()):
            self.phase = Phase.OPTIMISED
        elif not self._candidates.resting:
            self.phase = Phase.LEARNING
            return self._probe(state)
        else:
            self.hindrance = self._candidates.hindrance
        return None

    def ended(self, trial: Trial) -> None:
        """Take note of a trial that is over: one that is broken off again and again has to wait.

        Something stands in its way that lasts, such as a setting of a role for one of the knobs.
        """
        if trial.plan.kind not in (TrialKind.PROBATION, TrialKind.RECHECK):
            return
        if trial.verdict is not Verdict.ABORTED:
            self._broken_off, self._may_return_s = 0, 0.0
            return
        wait_s = min(RETURN_AGAIN_AFTER_S * 2.0**self._broken_off, RETURN_AGAIN_AT_MOST_S)
        self._broken_off = min(self._broken_off + 1, 10)
        self._may_return_s = self._clock.monotonic_s() + wait_s

    def _may_return(self, values: Collection[str]) -> bool:
        """Whether a trial may begin that only returns to what stood before, in these knobs."""
        self.hindrance = self._permission.why_no_return
        wait_s = self._may_return_s - self._clock.monotonic_s()
        if not self.hindrance and wait_s > 0:
            told = "the last look at what stood before was broken off"
            self.hindrance = f"{told}; the next one in {wait_s:.0f} s"
        return not self.hindrance and self._has_time(TrialKind.PROBATION, values)

    def _promotion(self) -> TrialPlan | None:
        promising = self._candidates.promising
        may = self._schedule.may_promote(self._clock.monotonic_s())
        if promising is None or not (may and self._permission.limits.may_promote):
            return None
        if not self._has_time(TrialKind.PROMOTION, promising[0]):
            return None  # it is kept for the next hours
        return self._plan(TrialKind.PROMOTION, *self._candidates.take_promising())

    def _probe(self, state: State) -> TrialPlan | None:
        if not self._has_time(TrialKind.PROBE, {}):
            return None
        proposal = self._candidates.ask(state, self._workloads.in_force.index_standing)
        return self._plan(TrialKind.PROBE, *proposal) if proposal is not None else None

    def _plan(self, kind: TrialKind, values: Mapping[str, KnobValue], proposer: str) -> TrialPlan:
        present = self._workloads.in_force
        return self._planner.plan(kind, values, proposer, present.chain.reference, present.noise)

    def _has_time(self, kind: TrialKind, values: Collection[str]) -> bool:
        least_s, restarts = self._planner.least_s(kind, values), self._planner.restarts(values)
        has = self._permission.has_time(kind, least_s, needs_restart=restarts)
        if not has:
            self.hindrance = f"too little is left of the hours for a {kind.value}"
        return has

    def _draft_where_missing(self) -> None:
        """In mode ``approve`` something waits for the operator, unless one was declined lately."""
        plans, mode = self._permission.plans, self._deployment.mode
        if mode is not Mode.APPROVE or plans.approved is not None or plans.waiting is not None:
            return
        newest, now = plans.newest, self._clock.now()
        if newest is not None and newest.state is PlanState.DECLINED:
            decided_at = newest.decided_at or newest.created_at
            if now < decided_at + DRAFTS_AGAIN_AFTER:
                return
        plan = plans.propose(self._draft())
        told = f"experiment plan {plan.id} was drafted, and waits for approval"
        self._store.add_event(EventRecord(now, "info", "experiment_plan", told))
