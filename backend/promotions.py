"""What becomes of what a promotion has proven: deployed at once, or after an operator's word."""

from __future__ import annotations

from collections.abc import Callable

from backend.deployment import Deployment
from backend.domain.experiment_plans import PromotionRecord, PromotionState
from backend.domain.modes import Mode
from backend.domain.records import EventRecord, TrialRecord
from backend.errors import AdjustmentError, KnobError
from backend.permission import Permission
from backend.protocols import Clock, Store
from backend.rollout import Rollout
from backend.trial_planner import TrialPlanner
from backend.trials import Trial
from backend.workloads import Workloads


class Promotions:
    """See the module's text.

    Args:
        deployment: the mode, and what stands.
        workloads: which of them is offered.
        planner: tells which knobs need a restart.
        store: holds the evidence.
        clock: time.
        rollout: deploys, and puts on probation.
        permission: keeps what waits, and counts what was promoted.
        promoted: told after something was deployed.
    """

    def __init__(
        self,
        deployment: Deployment,
        workloads: Workloads,
        planner: TrialPlanner,
        store: Store,
        clock: Clock,
        rollout: Rollout,
        permission: Permission,
        promoted: Callable[[], None],
    ) -> None:
        self._deployment, self._rollout, self._workloads = deployment, rollout, workloads
        self._planner, self._permission = planner, permission
        self._store, self._clock, self._promoted = store, clock, promoted

    def accepted(self, trial: Trial) -> None:
        """Deploy what an accepted promotion has proven; in mode ``approve`` let it wait.

        Raises:
            AdjustmentError, FrozenError: what stood before stands.
        """
        version, number = self._deployment.version, trial.record_id
        if self._deployment.mode is not Mode.APPROVE:
            self._rollout.deploy(trial)
            self._permission.approval.drop("something else was deployed since")
            self._deployed()
        elif number is not None and version is not None and version.id is not None:
            workload = self._workloads.in_force.number
            self._permission.approval.ask_for(number, version.id, workload)
            self._tell("info", self._permission.approval.told)

    def deploy_approved(self) -> bool:
        """Deploy what was proven, and approved since, once it may be; whether it was dealt with.

        It has to stand against the version that it was proven against, under the same load.
        """
        approval = self._permission.approval
        promotion = approval.promotion if self._deployment.mode is Mode.APPROVE else None
        if promotion is None or promotion.state is not PromotionState.APPROVED:
            return False
        stands = self._deployment.versions.knobs_since()
        if stands is not None and stands.trial_id == promotion.trial_id:
            self._settle_deployed(promotion)  # a tuner was killed before it could say so
            return True
        proven, version = self._store.trial(promotion.trial_id), self._deployment.version
        if proven is None or version is None or version.id != promotion.version_id:
            self._void(promotion, "what it was proven against does not stand any more")
            return True
        restarts = self._planner.restarts(proven.after)
        if promotion.workload != self._workloads.in_force.number or (
            restarts and not self._permission.may_restart
        ):
            return False
        self._deploy(promotion, proven)
        return True

    def _deploy(self, promotion: PromotionRecord, proven: TrialRecord) -> None:
        try:
            self._rollout.deploy_approved(proven)
        except (AdjustmentError, KnobError) as error:
            self._void(promotion, error.message)
            return
        self._settle_deployed(promotion)
        self._deployed()

    def _settle_deployed(self, promotion: PromotionRecord) -> None:
        version = self._deployment.versions.knobs_since()
        told = f"policy version {version.id if version is not None else '?'}"
        self._permission.approval.settle(promotion, PromotionState.DEPLOYED, told)
        self._tell("info", f"the promotion of trial {promotion.trial_id} is deployed as {told}")

    def _deployed(self) -> None:
        self._permission.limits.promoted()
        self._promoted()

    def _void(self, promotion: PromotionRecord, reason: str) -> None:
        self._permission.approval.settle(promotion, PromotionState.VOID, reason)
        self._tell("warning", f"the promotion of trial {promotion.trial_id} is void: {reason}")

    def _tell(self, level: str, message: str) -> None:
        self._store.add_event(EventRecord(self._clock.now(), level, "promotion", message))
