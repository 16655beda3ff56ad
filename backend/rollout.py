"""From a proven promotion to a deployment that stands: deploy, prove again, or undo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from backend.config import Level1Section
from backend.deployment import ALL_VERSIONS, AUTOPILOT, Deployment
from backend.domain.knobs import KnobValue
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import Arm, TrialKind, TrialState, Verdict
from backend.domain.policies import PolicyVersionRecord
from backend.domain.records import TrialRecord
from backend.protocols import Clock, Store
from backend.trial_planner import TrialPlanner
from backend.trials import Trial, TrialPlan
from backend.workloads import Workload, Workloads

_ALL_TRIALS = 100_000


@dataclass(frozen=True)
class Probation:
    """A deployment that still has to prove itself, in the workload that it was proven in.

    Attributes:
        former: the version to return to.
        workload: that workload's number.
        before: that workload before the promotion; None where an earlier tuner promoted.
        values: what was promoted.
        log_ratios: the promotion's blocks.
    """

    former: PolicyVersionRecord
    workload: int
    before: Workload | None
    values: Mapping[str, KnobValue]
    log_ratios: tuple[float, ...]


class Rollout:
    """Deploys what a promotion has proven, and undoes what does not stand its probation.

    Args:
        deployment: the one way to change the server.
        workloads: are told what stands.
        planner: makes the probation's plan.
        store: what an earlier tuner promoted is found there.
        clock: time.
        level1: the probation's length.
        undone: told after something was undone.
    """

    def __init__(
        self,
        deployment: Deployment,
        workloads: Workloads,
        planner: TrialPlanner,
        store: Store,
        clock: Clock,
        level1: Level1Section,
        undone: Callable[[str], None],
    ) -> None:
        self._deployment, self._workloads, self._planner = deployment, workloads, planner
        self._store, self._clock = store, clock
        self._level1, self._undone = level1, undone
        self._probation = self._left_by_an_earlier_tuner()

    @property
    def on_probation(self) -> bool:
        """Whether what stands has yet to prove itself."""
        return self._probation is not None

    def deploy(self, trial: Trial) -> None:
        """Deploy what an accepted promotion has proven in the present workload.

        Raises:
            AdjustmentError, FrozenError: what stood before stands.
        """
        self._deploy(trial.record(), trial.windows(Arm.CANDIDATE))

    def deploy_approved(self, promotion: TrialRecord) -> None:
        """Deploy what was proven a while ago in the present workload, and was approved now.

        Raises:
            AdjustmentError, FrozenError: what stood before stands.
        """
        self._deploy(promotion, ())

    def _deploy(self, promotion: TrialRecord, windows: Sequence[MetricsWindow]) -> None:
        former, before = self._deployment.version, self._workloads.in_force
        log_ratios = promotion.block_log_ratios
        chain = before.linked(fmean(log_ratios) if log_ratios else 0.0, windows)
        self._deployment.deploy(
            promotion.after,
            author=AUTOPILOT,
            index=chain.factor,
            note="; ".join(promotion.reasons),
            trial_id=promotion.id,
        )
        self._workloads.promoted(chain, self._deployment.deviating)
        if former is not None and self._level1.probation_blocks > 0:
            self._probation = Probation(former, before.number, before, promotion.after, log_ratios)

    def put_in_force(self, values: Mapping[str, KnobValue], proposer: str, reason: str) -> None:
        """Deploy what nothing has proven, as a promotion that was wrong would; for demonstrations.

        It is recorded as what it is, and from then on its probation has to find it out.

        Raises:
            AdjustmentError, FrozenError: what stood before stands.
        """
        former, before = self._deployment.version, self._workloads.in_force
        now, present = self._clock.now(), self._deployment.present
        record = TrialRecord(
            kind=TrialKind.PROMOTION,
            state=TrialState.FINISHED,
            proposer=proposer,
            created_at=now,
            finished_at=now,
            before={name: present.get(name) for name in values},
            after=dict(values),
            verdict=Verdict.ACCEPT,
            reasons=(reason,),
        )
        chain = before.linked(0.0, ())
        self._deployment.deploy(
            values,
            author=AUTOPILOT,
            index=chain.factor,
            note=reason,
            trial_id=self._store.save_trial(record),
        )
        self._workloads.promoted(chain, self._deployment.deviating)
        if former is not None:
            self._probation = Probation(former, before.number, before, values, ())

    def plan_probation(self) -> TrialPlan | None:
        """The probation that is due; None where there is none, or its workload is not offered.

        Then nothing can prove the deployment, and it is undone: in the workload that is offered
        it never was proven.
        """
        probation, present = self._probation, self._workloads.in_force
        if probation is None:
            return None
        if probation.workload != present.number:
            self._undo(probation, f"workload {probation.workload} is not offered any more")
            return None
        plan = self._planner.plan(
            TrialKind.PROBATION, probation.values, AUTOPILOT, present.chain.reference, present.noise
        )
        former, blocks = probation.former.config, self._level1.probation_blocks
        turned = self._planner.turned_around(plan, former, blocks)
        return replace(turned, earlier_log_ratios=probation.log_ratios)

    def settle(self, trial: Trial) -> None:
        """Undo what did not stand its probation, one without a verdict included."""
        if self._probation is not None and trial.verdict is not Verdict.ACCEPT:
            self._undo(self._probation, "; ".join(trial.reasons))
        self._probation = None

    def drop_probation(self) -> None:
        """What was on probation was undone for another reason."""
        self._probation = None

    def changed_by_hand(self) -> None:
        """A human has changed what stands: that is theirs, and on no probation."""
        self._probation = None
        self._workloads.changed(self._deployment.deviating)

    def _undo(self, probation: Probation, reason: str) -> None:
        self._deployment.return_to(
            probation.former, author=AUTOPILOT, reason=f"probation: {reason}"
        )
        self._probation = None
        self._workloads.undone(probation.before, self._deployment.deviating)
        self._undone("a deployment did not stand its probation: undone")

    def _left_by_an_earlier_tuner(self) -> Probation | None:
        """The probation of what stands, where the tuner that promoted it did not end it.

        None too where its workload is not known any more: then it stands, as before.
        """
        version, store = self._deployment.versions.knobs_since(), self._store
        if version is None or version.author != AUTOPILOT or version.trial_id is None:
            return None
        if self._level1.probation_blocks == 0:
            return None
        promotion = store.trial(version.trial_id)
        versions = {found.id: found for found in store.policy_versions(limit=ALL_VERSIONS)}
        former = versions.get(version.parent_id)
        workload = next(
            (w for w in self._workloads.known if dict(w.config) == dict(version.config)), None
        )
        stood = any(
            trial.kind is TrialKind.PROBATION
            and trial.verdict is Verdict.ACCEPT
            and trial.created_at >= version.created_at
            for trial in store.trials(limit=_ALL_TRIALS)
        )
        if promotion is None or former is None or workload is None or stood:
            return None
        return Probation(former, workload.number, None, promotion.after, promotion.block_log_ratios)
