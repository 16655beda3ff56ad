"""The tuning loop: observe, propose, prove on comparable load, keep or undo, learn.

Decides what comes next and owns the one trial that may run. Advanced by ticks; it never sleeps.
Which workload is offered is found out in workloads.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backend.ask_and_tell import AskAndTell
from backend.candidates import Candidates
from backend.config import Settings
from backend.deployment import Deployment
from backend.domain.knobs import KnobSpace, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.modes import Mode, Phase, TrialKind, Verdict
from backend.domain.records import EventRecord
from backend.errors import AdjustmentError, KnobError, RefusedChangeError
from backend.final_comparison import FinalComparison
from backend.guidance import Guidance
from backend.learning import Learner
from backend.next_trial import Draft, NextTrial
from backend.permission import Permission
from backend.promotions import Promotions
from backend.protocols import Clock, Store
from backend.recheck import Rechecks
from backend.rollout import Rollout
from backend.sample_filter import IndexChain, load_profile, sample_quality
from backend.state_features import state_vector
from backend.trial_danger import SafetyJudge
from backend.trial_history import TrialHistory
from backend.trial_planner import RunSchedule, TrialPlanner
from backend.trials import MeasuredWindow, Trial, TrialPlan
from backend.workloads import Shift, Workloads


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
        permission: what may be tried now.
        draft: makes an experiment plan, for mode ``approve``.
        guidance: what the other levels bring in.
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
        permission: Permission,
        draft: Draft,
        guidance: Guidance,
        forget_index: Callable[[], None] = lambda: None,
    ) -> None:
        self._forget_index = forget_index
        self._settings, self._level1 = settings, settings.level1
        self._deployment, self._store, self._clock = deployment, store, clock
        self._collect, self._record_window = collect, record_window
        self._judge_safety, self.permission = judge_safety, permission
        self._follow_genome = guidance.follow
        self.phase = Phase.STARTING
        self.paused = False
        self.trial: Trial | None = None
        self.blocked: tuple[str, ...] = ()
        self.resting = False  # set from outside: statements are on trial
        self._state: NDArray[np.float64] | None = None
        self._state_before: NDArray[np.float64] | None = None
        self._sees = True
        self.failures = 0
        self._history = TrialHistory(store, clock)
        self.verdicts = self._history.verdicts
        threshold = settings.safety.rollback_threshold
        self._agent = AskAndTell(learner, deployment, space, threshold, permission, guidance.policy)
        self._candidates = Candidates(self._agent, clock, self._level1.rest_s, guidance.vetting)
        version = deployment.version
        first_factor = version.index if version is not None else 1.0
        self.workloads = Workloads(store, clock, self._level1, first_factor)
        self._planner = TrialPlanner(settings, space, deployment, store, clock, guidance.gate)
        self._comparison = FinalComparison(
            schedule, self._planner, deployment, store, clock, self._level1
        )
        common = (deployment, self.workloads, self._planner, store, clock)
        self._rollout = Rollout(*common, self._level1, self._undone)
        self._rechecks = Rechecks(*common, settings, schedule.recheck_every_s, self._undone)
        self._promotions = Promotions(*common, self._rollout, permission, forget_index)
        self._next = NextTrial(
            *common, self._rollout, self._rechecks, self._candidates, permission, schedule, draft
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
        if sound and not disturbed and self.workloads.ready:
            self._rechecks.observe(window)

    def tick(self) -> None:
        """Do what is due now."""
        now_s = self._clock.monotonic_s()
        if self.trial is not None:
            self._go_on(self.trial, now_s)
        elif self.phase is Phase.FINISHED:
            return
        elif self._deployment.notice():
            self.stand_down("somebody else changed knobs")
            self.relink()
            told = "somebody else changed knobs: that stays, and what is measured is under it"
            self._event("warning", "changed", told)
        elif self._comparison.due(now_s):
            self._compare(now_s)
        elif (hindrances := self._hindrances) and self._rechecks.undo_blind(hindrances):
            self._rollout.drop_probation()
        elif self._may_act() and not self._promotions.deploy_approved():
            self._begin_next()

    def _go_on(self, trial: Trial, now_s: float) -> None:
        """Advance the trial that runs, unless something else comes before it."""
        kind, restarts = trial.plan.kind, trial.plan.needs_restart
        if self._comparison.overdue(now_s) and kind is not TrialKind.FINAL:
            self.interrupt("the final comparison is due")
        elif self._rechecks.come_before(kind):
            self.interrupt("what stands has become much slower: that comes first")
            self._keep(trial)
        elif why := self.permission.why_end(needs_restart=restarts):
            self.interrupt(why)
            self._keep(trial)
        else:
            self._tick_trial(trial)

    def interrupt(self, reason: str) -> None:
        """Abort the running trial, if any (an operator acts, or the run ends)."""
        if self.trial is not None:
            self.trial.abort(reason)
            self._settle(self.trial)

    def stand_down(self, reason: str) -> None:
        """Abort the running trial and drop the promotion that waits for approval."""
        self.interrupt(reason)
        self.permission.approval.drop(reason)

    def resume(self) -> None:
        """Go on after a pause, with a clean count of failures."""
        self.paused = False
        self.failures = 0

    def lost_server(self, reason: str) -> None:
        """The connection was lost: drop the trial; the journal is reconciled elsewhere.

        Nothing is tried before a window could be measured again.
        """
        self._sees = False
        lost, self.trial = self.trial, None
        if lost is not None:
            self.failures += 1
            self._history.lost(lost, reason)

    def put_in_force(self, values: Mapping[str, KnobValue], proposer: str, reason: str) -> bool:
        """Deploy what nothing has proven (see ``Rollout``); False where that cannot be now.

        For demonstrations: where an operator has to be asked it never is.
        """
        may = (
            self.trial is None
            and self._may_act()
            and self._deployment.mode is Mode.AUTO
            and not self._rollout.on_probation
        )
        if may:
            self._candidates.drop()
            self._rollout.put_in_force(values, proposer, reason)
            self._forget_index()
        return may

    def relink(self) -> None:
        """A human changed the configuration: the index goes on against the old reference."""
        self._candidates.drop()
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
        self._candidates.begin_anew()
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

    def _may_act(self) -> bool:
        if self.failures >= self._settings.safety.max_consecutive_failures:
            # Rest, then try again with a clean count.
            self._candidates.rest(f"{self.failures} failures in a row")
            self.failures = 0
        return (
            self._level1.enabled
            and self._deployment.mode in (Mode.APPROVE, Mode.AUTO)
            and not (self.paused or self._deployment.frozen or self.blocked or self.resting)
            and self._sees
            and self.workloads.ready
        )

    @property
    def hindrance(self) -> str:
        """Why nothing new is tried now, for people; "" where something may be."""
        return self._next.hindrance if self._deployment.mode in (Mode.APPROVE, Mode.AUTO) else ""

    @property
    def _hindrances(self) -> tuple[str, ...]:
        """Why no trial may begin at all, not even one that only looks at what stands."""
        closed = self.permission.why_no_return
        return (*self.blocked, closed) if closed else self.blocked

    def _begin_next(self) -> None:
        self._follow_genome()
        plan = self._next.choose(self._state)
        if self._next.phase is not None:
            self.phase = self._next.phase
        if plan is not None:
            self._start(plan)

    def _keep(self, trial: Trial) -> None:
        """What was broken off in its promotion is promising still."""
        if trial.plan.kind is TrialKind.PROMOTION:
            self._candidates.keep(trial.plan)

    def _compare(self, now_s: float) -> None:
        """The end of a bounded run; what is aborted or loses its load is begun anew."""
        self.phase = Phase.FINAL_COMPARISON
        hindrance = self._hindrance()
        if self._comparison.gives_up(now_s, hindrance):
            self.phase = Phase.FINISHED
        elif not hindrance:
            self._start(self._comparison.plan(self.workloads))

    def _hindrance(self) -> str:
        """What keeps the final comparison from beginning; "" for nothing."""
        if self.paused or self._deployment.frozen:
            return "paused or frozen"
        if self.resting:
            return "statements are on trial"
        if not self._sees:
            return "no windows"
        if self.permission.why_no_return:
            return self.permission.why_no_return
        return "" if self.workloads.ready else "no baseline of the workload that is offered"

    # -- running a trial --------------------------------------------------------------------

    def _start(self, plan: TrialPlan) -> None:
        with self._store.transaction():
            refusal = self.permission.begin(plan.kind, plan.after, restarts=plan.needs_restart)
            if not refusal:
                plan = replace(plan, experiment_plan_id=self.permission.experiment_plan_id)
                trial = self._make_trial(plan)
                self._history.save(trial)
        if refusal:
            self._event("warning", "not_tried", f"a {plan.kind.value} did not begin: {refusal}")
            return
        self.workloads.forget_recent()
        self.trial, self._state_before = trial, self._state

    def _make_trial(self, plan: TrialPlan) -> Trial:
        def on_window(measured: MeasuredWindow) -> None:
            self._record_window(measured, trial.record_id)
            self._state = state_vector(measured.window, load_profile(measured.window))
            self.workloads.saw_in_trial(measured.window)
            self._rechecks.saw_in_trial(plan, measured)

        trial = Trial(
            plan,
            collect=self._collect,
            switch=self._deployment,
            clock=self._clock,
            on_window=on_window,
            judge_safety=self._judge_safety,
        )
        return trial

    def _tick_trial(self, trial: Trial) -> None:
        done = trial.progress
        try:
            trial.tick()
        except (AdjustmentError, KnobError) as error:
            self.failures += 1
            if not trial.ending:  # else its verdict stands, and the next tick takes the arm off
                trial.abort(f"the change was not made: {error.message}")
                if isinstance(error, RefusedChangeError):
                    index = self.workloads.in_force.index_standing
                    self._agent.tell_too_slow(trial.plan.after, index, self._state_before)
        if trial.finished:
            self._settle(trial)
        elif trial.progress != done:
            self._history.save(trial)

    def _settle(self, trial: Trial) -> None:
        """Draw the consequences of a finished trial."""
        self.trial = None
        self._history.ended(trial)
        self._next.ended(trial)
        if trial.verdict is Verdict.ABORTED:
            return
        self.failures = 0
        {
            TrialKind.PROBE: self._after_probe,
            TrialKind.PROMOTION: self._after_promotion,
            TrialKind.PROBATION: self._rollout.settle,
            TrialKind.RECHECK: self._rechecks.settle,
            TrialKind.FINAL: self._after_final,
        }[trial.plan.kind](trial)

    def _after_probe(self, trial: Trial) -> None:
        self._tell(trial)
        if not self._candidates.probed(trial.plan, trial.verdict):
            self.phase = Phase.OPTIMISED

    def _after_promotion(self, trial: Trial) -> None:
        self._tell(trial)
        if trial.verdict is Verdict.ACCEPT:
            self._promotions.accepted(trial)

    def _undone(self, told: str) -> None:
        self._forget_index()
        self._candidates.drop()
        self.permission.approval.drop("what stood was undone")
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
