"""The tuning loop: observe, propose, prove on comparable load, keep or undo, learn.

Decides what comes next and owns the one trial that may run. Advanced by ticks; it never sleeps.
Which workload is offered is found out in workloads.py.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backend.approval import Approval
from backend.ask_and_tell import AskAndTell
from backend.config import Settings
from backend.deployment import Deployment
from backend.domain.knobs import KnobSpace, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.modes import Mode, Phase, TrialKind, TrialState, Verdict
from backend.domain.records import EventRecord
from backend.errors import AdjustmentError, KnobError, RefusedChangeError
from backend.final_comparison import FinalComparison
from backend.learning import Learner
from backend.protocols import Clock, Store
from backend.rollout import Rollout
from backend.sample_filter import IndexChain, load_profile, sample_quality
from backend.state_features import state_vector
from backend.trial_history import verdicts_so_far
from backend.trial_planner import RunSchedule, TrialPlanner
from backend.trials import MeasuredWindow, SafetyJudge, Trial, TrialPlan
from backend.workloads import Shift, Workloads

log = logging.getLogger(__name__)

FRUITLESS_PROBES = 8
"""After so many probes without a promising one the loop rests between probes."""


class TuningLoop:
    """See the module's text.

    Args:
        settings: the gate's and the phases' settings.
        space: the knobs that may be tried.
        deployment: the one way to change the server.
        learner: the knob agent with its checkpoint; proposals come from it.
        store: trials and events go there.
        clock: time.
        collect: takes a snapshot now.
        record_window: stores a window of a trial.
        judge_safety: the safety monitor.
        schedule: the moments of a bounded run.
        forget_index: called where the windows behind the present index tell nothing any more:
            another configuration stands, or another workload is in force.
    """

    def __init__(
        self,
        settings: Settings,
        space: KnobSpace,
        deployment: Deployment,
        learner: Learner,
        store: Store,
        clock: Clock,
        *,
        collect: Callable[[], MetricsSnapshot],
        record_window: Callable[[MeasuredWindow, int | None], None],
        judge_safety: SafetyJudge,
        schedule: RunSchedule,
        forget_index: Callable[[], None] = lambda: None,
    ) -> None:
        self._forget_index = forget_index
        self._settings, self._level1 = settings, settings.level1
        self._deployment, self._store, self._clock = deployment, store, clock
        self._collect, self._record_window = collect, record_window
        self._judge_safety, self._schedule = judge_safety, schedule
        self.phase = Phase.STARTING
        self.paused = False
        self.trial: Trial | None = None
        self.final_trial: Trial | None = None
        self.blocked: tuple[str, ...] = ()
        self.resting = False  # set from outside: statements are on trial
        self._state: NDArray[np.float64] | None = None
        self._state_before: NDArray[np.float64] | None = None
        self._promising: tuple[Mapping[str, KnobValue], str] | None = None
        self._fruitless = 0
        self._sees = True
        self.failures = 0
        self._next_probe_s = -math.inf
        self.verdicts = verdicts_so_far(store, clock)
        self.approval = Approval(store, self.verdicts)
        self._agent = AskAndTell(learner, deployment, space, settings.safety.rollback_threshold)
        version = deployment.version
        first_factor = version.index if version is not None else 1.0
        self.workloads = Workloads(store, clock, self._level1, first_factor)
        self._planner = TrialPlanner(settings, space, deployment, store, clock)
        self._comparison = FinalComparison(schedule, self._planner, deployment, self._level1)
        self._rollout = Rollout(
            deployment, self.workloads, self._planner, store, self._level1, self._undone
        )

    # -- what the orchestrator calls --------------------------------------------------------

    def observe(self, window: MetricsWindow, *, disturbed: bool = False) -> None:
        """Take a window measured outside a trial, with the deployed configuration.

        What was ``disturbed`` by ourselves tells what is offered, but belongs to no baseline.
        """
        self._state = state_vector(window, load_profile(window))
        self._sees = True
        if self.phase is Phase.STARTING and window.calls > 0:
            self.phase = Phase.BASELINE
        quality = sample_quality(window, coverage=1.0).value
        sound = quality >= self._level1.min_quality or not self._level1.sample_filter
        shift = self.workloads.observe(
            window, self._deployment.deviating, sound=sound and not disturbed
        )
        if shift is not None:
            self._shifted(shift)

    def tick(self) -> None:
        """Do what is due now."""
        now_s = self._clock.monotonic_s()
        if self.trial is not None:
            final = self.trial.plan.kind is TrialKind.FINAL
            if self._comparison.overdue(now_s) and not final:
                self.interrupt("the final comparison is due")
            else:
                self._tick_trial(self.trial)
        elif self.phase is Phase.FINISHED:
            return
        elif self._comparison.due(now_s):
            self._compare(now_s)
        elif not (self.resting or self.paused) and (granted := self.approval.take()) is not None:
            self._start(granted.plan, granted.record_id)
        elif self._may_try(now_s):
            self._begin_next(now_s)

    def interrupt(self, reason: str) -> None:
        """Abort the running trial, if any (an operator acts, or the run ends)."""
        if self.trial is not None:
            self.trial.abort(reason)
            self._settle(self.trial)

    def stand_down(self, reason: str) -> None:
        """Abort the running trial and drop the one that waits for approval."""
        self.interrupt(reason)
        self.approval.drop(reason)

    def resume(self) -> None:
        """Go on after a pause, with a clean count of failures."""
        self.paused = False
        self.failures = 0

    def lost_server(self, reason: str) -> None:
        """The connection was lost: drop the trial; the journal is reconciled elsewhere.

        Nothing is tried before a window could be measured again.
        """
        self._sees = False
        trial = self.trial
        if trial is None:
            return
        self.trial = None
        self.failures += 1
        self.verdicts[Verdict.ABORTED.value] += 1
        record = trial.record()
        self._store.save_trial(
            replace(
                record,
                state=TrialState.FINISHED,
                verdict=Verdict.ABORTED,
                reasons=(reason,),
                finished_at=self._clock.now(),
            )
        )

    def approve(self, trial_id: int) -> bool:
        """Let the trial that waits begin with a tick that may; False when it is not that one."""
        return self.approval.grant(trial_id)

    def decline(self, trial_id: int) -> bool:
        """Drop the trial that waits for approval; False when it is not that one."""
        waits = trial_id == self.approval.trial_id
        if waits:
            self.approval.drop("declined by the operator")
        return waits

    def relink(self) -> None:
        """A human changed the configuration: the index goes on against the old reference."""
        self._promising = None
        self._rollout.changed_by_hand()

    @property
    def chain(self) -> IndexChain | None:
        """The index of the present workload, None before there is one."""
        present = self.workloads.present
        return present.chain if present is not None else None

    @property
    def usual(self) -> MetricsWindow | None:
        """A window of the present workload, None before there is one."""
        present = self.workloads.present
        return present.usual if present is not None else None

    # -- the workload that is offered -------------------------------------------------------

    def _shifted(self, shift: Shift) -> None:
        """Another workload is in force: what was begun for the last one is void."""
        self.approval.drop("the load moved to another workload")
        self._promising, self._fruitless, self._next_probe_s = None, 0, -math.inf
        self._forget_index()
        if self.phase is not Phase.FINAL_COMPARISON and self.phase is not Phase.FINISHED:
            self.phase = Phase.LEARNING
        workload, baseline = shift.workload, shift.baseline
        self._agent.serve(workload.number)
        if baseline is None:
            told = f"the load is that of workload {workload.number} again"
            self._event("info", "workload", f"{told}: index {workload.index_standing:.2f}")
        else:
            told = f"baseline of {baseline.calls} statements in {baseline.seconds:.0f} s taken"
            self._event("info", "baseline", f"workload {workload.number}: {told}")
            # Nothing is told of a known one: the agent is to see that it has come back.
            self._agent.tell_standing(workload.index_standing, self._state, baseline.newest)
        if self._level1.enabled and self._deployment.mode is Mode.ADVISE:
            self._event("info", "advice", self._agent.advice(self._state))

    # -- what to try next -------------------------------------------------------------------

    def _may_try(self, now_s: float) -> bool:
        if self.failures >= self._settings.safety.max_consecutive_failures:
            # Rest, then try again with a clean count.
            self.failures = 0
            self._next_probe_s = now_s + self._level1.rest_s
        return (
            self._level1.enabled
            and self._deployment.mode in (Mode.APPROVE, Mode.AUTO)
            and not (self.paused or self._deployment.frozen or self.blocked or self.resting)
            and self._sees
            and self.workloads.ready
            and self.approval.trial_id is None
        )

    def _begin_next(self, now_s: float) -> None:
        schedule = self._schedule
        promote = schedule.may_promote(now_s) and self._planner.may_promote_today()
        if self._promising is not None and promote:
            (values, proposer), self._promising = self._promising, None
            self._propose(self._plan(TrialKind.PROMOTION, values, proposer))
        elif self._rollout.on_probation:
            plan = self._rollout.plan_probation()
            if plan is not None:
                self._propose(plan)
        elif not schedule.may_learn(now_s):
            self.phase = Phase.OPTIMISED
        elif now_s >= self._next_probe_s:
            self._probe(now_s)

    def _probe(self, now_s: float) -> None:
        self.phase = Phase.LEARNING
        proposal = self._agent.ask(self._state)
        if proposal is not None:
            self._propose(self._plan(TrialKind.PROBE, *proposal))
        else:
            self._next_probe_s = now_s + self._level1.rest_s

    def _compare(self, now_s: float) -> None:
        """The end of a bounded run; what is aborted or loses its load is begun anew."""
        self.phase = Phase.FINAL_COMPARISON
        hindrance = self._hindrance()
        given_up = self._comparison.given_up(now_s, hindrance)
        if given_up:
            self._event(
                "warning", "not_compared", f"the final comparison could not be made ({given_up})"
            )
            self.phase = Phase.FINISHED
        elif not hindrance:
            self._start(self._comparison.plan(self.workloads.in_force), None)
            self.final_trial = self.trial
            number, known = self.workloads.in_force.number, len(self.workloads.known)
            told = f"the final comparison is made on workload {number} of {known}"
            self._event("info", "final_comparison", told)

    def _hindrance(self) -> str:
        """What keeps the final comparison from beginning; "" for nothing."""
        if self.paused or self._deployment.frozen:
            return "paused or frozen"
        if self.resting:
            return "statements are on trial"
        if not self._sees:
            return "no windows"
        return "" if self.workloads.ready else "no baseline of the workload that is offered"

    def _plan(self, kind: TrialKind, values: Mapping[str, KnobValue], proposer: str) -> TrialPlan:
        present = self.workloads.in_force
        return self._planner.plan(kind, values, proposer, present.chain.reference, present.noise)

    # -- running a trial --------------------------------------------------------------------

    def _propose(self, plan: TrialPlan) -> None:
        if self._deployment.mode is Mode.APPROVE and plan.kind is not TrialKind.PROBATION:
            self.approval.ask_for(self._make_trial(plan, None))
        else:
            self._start(plan, None)

    def _start(self, plan: TrialPlan, record_id: int | None) -> None:
        trial = self._make_trial(plan, record_id)
        trial.record_id = self._store.save_trial(trial.record())
        self.workloads.forget_recent()
        self.trial, self._state_before = trial, self._state

    def _make_trial(self, plan: TrialPlan, record_id: int | None) -> Trial:
        def on_window(measured: MeasuredWindow) -> None:
            self._record_window(measured, trial.record_id)
            self._state = state_vector(measured.window, load_profile(measured.window))
            self.workloads.saw_in_trial(measured.window)

        trial = Trial(
            plan,
            collect=self._collect,
            switch=self._deployment,
            clock=self._clock,
            on_window=on_window,
            judge_safety=self._judge_safety,
            record_id=record_id,
        )
        return trial

    def _tick_trial(self, trial: Trial) -> None:
        done = trial.progress
        try:
            trial.tick()
        except (AdjustmentError, KnobError) as error:
            trial.abort(f"the change was not made: {error.message}")
            self.failures += 1
            if isinstance(error, RefusedChangeError):
                index = self.workloads.in_force.index_standing
                self._agent.tell_refused(trial, index, self._state_before)
        if trial.finished:
            self._settle(trial)
        elif trial.progress != done:
            self._store.save_trial(trial.record())

    def _settle(self, trial: Trial) -> None:
        """Draw the consequences of a finished trial."""
        self.trial = None
        record = trial.record()
        self._store.save_trial(record)
        self.verdicts[record.verdict.value if record.verdict else Verdict.ABORTED.value] += 1
        self._event(
            "info",
            "trial",
            f"{record.kind.value} {record.id}: {record.verdict.value if record.verdict else '?'}, "
            + "; ".join(record.reasons),
        )
        if trial.verdict is Verdict.ABORTED:
            return
        self.failures = 0
        {
            TrialKind.PROBE: self._after_probe,
            TrialKind.PROMOTION: self._after_promotion,
            TrialKind.PROBATION: self._rollout.settle,
            TrialKind.FINAL: self._after_final,
        }[trial.plan.kind](trial)

    def _after_probe(self, trial: Trial) -> None:
        self._tell(trial)
        if trial.verdict is Verdict.ACCEPT:
            self._fruitless = 0
            self._promising = (trial.plan.after, trial.plan.proposer)
            return
        self._fruitless += 1
        if self._fruitless >= FRUITLESS_PROBES:
            self.phase = Phase.OPTIMISED
            self._next_probe_s = self._clock.monotonic_s() + self._level1.rest_s

    def _after_promotion(self, trial: Trial) -> None:
        self._tell(trial)
        if trial.verdict is Verdict.ACCEPT:
            self._rollout.deploy(trial)
            self._forget_index()

    def _undone(self, told: str) -> None:
        self._forget_index()
        self._event("warning", "rollback", told)

    def _after_final(self, trial: Trial) -> None:
        # Where the load left in the middle, it is begun anew on what is offered then.
        moved = trial.verdict is Verdict.INCONCLUSIVE and not self.workloads.ready
        self.phase = Phase.FINAL_COMPARISON if moved else Phase.FINISHED

    def _tell(self, trial: Trial) -> None:
        index = self.workloads.in_force.index_standing
        self._agent.tell_trial(trial, index, self._state_before)

    def _event(self, level: str, kind: str, message: str) -> None:
        self._store.add_event(EventRecord(self._clock.now(), level, kind, message))
