"""Experiment plans: what waits for approval, what was approved, and when that is over.

The store is asked each time, since an operator may decide while no tuner runs.
"""

from __future__ import annotations

from dataclasses import replace

from backend.domain.experiment_plans import ExperimentPlanRecord, PlanState
from backend.errors import ConfigError
from backend.protocols import Clock, Store

REMEDY = "python run.py plan list shows them"


class ExperimentPlans:
    """At most one plan waits, and at most one is approved.

    Args:
        store: keeps them.
        clock: time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    @property
    def newest(self) -> ExperimentPlanRecord | None:
        """The one that was made last."""
        plans = self._store.experiment_plans(limit=1)
        return plans[-1] if plans else None

    @property
    def waiting(self) -> ExperimentPlanRecord | None:
        """The one that waits for approval."""
        return self._newest_in(PlanState.DRAFT)

    @property
    def approved(self) -> ExperimentPlanRecord | None:
        """The one that was approved and is not known to be over."""
        return self._newest_in(PlanState.APPROVED)

    def propose(self, plan: ExperimentPlanRecord) -> ExperimentPlanRecord:
        """Let a new plan wait, in place of the one that waited."""
        with self._store.transaction():
            former = self.waiting
            number = self._store.save_experiment_plan(plan)
            if former is not None:
                self.end(former, f"replaced by experiment plan {number}")
        return replace(plan, id=number)

    def approve(self, plan_id: int, actor: str) -> ExperimentPlanRecord:
        """Approve the plan that waits, in place of the one that was approved.

        Raises:
            ConfigError: it does not wait, or expired meanwhile.
        """
        plan, now = self.waiting, self._clock.now()
        if plan is None or plan.id != plan_id:
            raise ConfigError(f"no experiment plan {plan_id} waits for approval", remedy=REMEDY)
        if now >= plan.expires_at:
            self.end(plan, "it expired before it was approved")
            raise ConfigError(
                f"experiment plan {plan_id} expired at {plan.expires_at:%Y-%m-%d %H:%M} UTC",
                remedy="have a new one drafted: python run.py plan draft",
            )
        with self._store.transaction():
            former = self.approved
            if former is not None:
                self.end(former, f"replaced by experiment plan {plan_id}")
            return self._decide(plan, PlanState.APPROVED, actor)

    def decline(self, plan_id: int, actor: str) -> ExperimentPlanRecord:
        """Decline the plan that waits, or withdraw the approval of one that is in force.

        Raises:
            ConfigError: it neither waits nor is it in force.
        """
        plan = next((p for p in (self.waiting, self.approved) if p and p.id == plan_id), None)
        if plan is None:
            raise ConfigError(f"experiment plan {plan_id} is over, or never was", remedy=REMEDY)
        return self._decide(plan, PlanState.DECLINED, actor)

    def end(self, plan: ExperimentPlanRecord, reason: str) -> None:
        """Record that it is over, and why."""
        self._save(replace(plan, state=PlanState.OVER, reason=reason))

    def count(self, plan: ExperimentPlanRecord) -> None:
        """One more trial begins under it."""
        self._save(replace(plan, begun=plan.begun + 1))

    def _decide(
        self, plan: ExperimentPlanRecord, state: PlanState, actor: str
    ) -> ExperimentPlanRecord:
        now = self._clock.now()
        return self._save(replace(plan, state=state, decided_at=now, decided_by=actor))

    def _save(self, plan: ExperimentPlanRecord) -> ExperimentPlanRecord:
        self._store.save_experiment_plan(plan)
        return plan

    def _newest_in(self, state: PlanState) -> ExperimentPlanRecord | None:
        plans = reversed(self._store.experiment_plans())
        return next((plan for plan in plans if plan.state is state), None)
