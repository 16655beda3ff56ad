"""The tuning loop: observe, propose, prove on comparable load, keep or undo, learn.

Decides what comes next and owns the one trial that may run. Advanced by ticks; it never sleeps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.baseline import ASSUMED_NOISE, Baseline
from backend.config import Settings
from backend.deployment import AUTOPILOT, Deployment
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.modes import Arm, Mode, Phase, TrialKind, TrialState, Verdict
from backend.domain.records import EventRecord, PolicyVersionRecord
from backend.errors import AdjustmentError, KnobError, MemoryBudgetError
from backend.learning import Learner
from backend.protocols import Clock, Store
from backend.sample_filter import IndexChain, load_profile
from backend.state_features import state_vector
from backend.trial_history import verdicts_so_far
from backend.trial_planner import RunSchedule, TrialPlanner
from backend.trials import MeasuredWindow, SafetyJudge, Trial, TrialPlan

log = logging.getLogger(__name__)

WAITING = "waiting for approval"
FRUITLESS_PROBES = 8
"""After so many probes without a promising one the loop rests between probes."""
MAX_ASKS = 12
"""Proposals asked for in a row; those that change nothing or take too much memory are dropped."""
MAX_STOPPED_LOG_RATIO = math.log(4.0)
"""A configuration that the safety monitor stopped is told to the agent as at most so much worse."""
MAX_COMPARISONS = 3
"""So often the final comparison is begun; where each was aborted, the run ends without one."""
GRACE_S = 60.0
"""So long a trial may run on when the final comparison is due; then it is aborted."""


@dataclass
class _Probation:
    """A deployment that still has to prove itself."""

    former: PolicyVersionRecord
    former_chain: IndexChain
    values: Mapping[str, KnobValue]
    log_ratios: tuple[float, ...]


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
        on_deployment: told when the deployed configuration has changed.
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
        on_deployment: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_deployment = on_deployment
        self._settings, self._level1 = settings, settings.level1
        self._space, self._deployment, self._learner = space, deployment, learner
        self._store, self._clock = store, clock
        self._collect, self._record_window = collect, record_window
        self._judge_safety, self._schedule = judge_safety, schedule
        self.phase = Phase.STARTING
        self.paused = False
        self.trial: Trial | None = None
        self.chain: IndexChain | None = None
        self.final_trial: Trial | None = None
        self.blocked: tuple[str, ...] = ()
        self._waiting: Trial | None = None
        level1 = settings.level1
        self._baseline = Baseline(level1.baseline_s, level1.window_s, level1.sample_filter)
        self._noise = ASSUMED_NOISE
        self._state: NDArray[np.float64] | None = None
        self._state_before: NDArray[np.float64] | None = None
        self._promising: tuple[Mapping[str, KnobValue], str] | None = None
        self._probation: _Probation | None = None
        self._fruitless = 0
        self._comparisons = 0
        self._sees = True
        self.failures = 0
        self._next_probe_s = -math.inf
        self._planner = TrialPlanner(settings, space, deployment, store, clock)
        self.verdicts = verdicts_so_far(store, clock)

    # -- what the orchestrator calls --------------------------------------------------------

    def observe(self, window: MetricsWindow, quality: float) -> None:
        """Take a window measured outside a trial, with the deployed configuration."""
        self._state = state_vector(window, load_profile(window))
        self._sees = True
        if self.phase in (Phase.STARTING, Phase.BASELINE) and window.calls > 0:
            self.phase = Phase.BASELINE
            if quality >= self._level1.min_quality or not self._level1.sample_filter:
                self._baseline.add(window)
            if self._baseline.complete:
                self._close_baseline()

    def tick(self) -> None:
        """Do what is due now."""
        now_s = self._clock.monotonic_s()
        compare_at_s = self._schedule.compare_at_s
        if self.trial is not None:
            late = compare_at_s is not None and now_s > compare_at_s + GRACE_S
            if late and self.trial.plan.kind is not TrialKind.FINAL:
                self.interrupt("the final comparison is due")
            else:
                self._tick_trial(self.trial)
            return
        if self.phase is Phase.FINISHED:
            return
        if compare_at_s is not None and now_s >= compare_at_s:
            self._compare(now_s - compare_at_s)
        elif self.chain is not None and self._may_try(now_s):
            self._begin_next(now_s)

    def interrupt(self, reason: str) -> None:
        """Abort the running trial, if any (an operator acts, or the run ends)."""
        if self.trial is not None:
            self.trial.abort(reason)
            self._settle(self.trial)

    def stand_down(self, reason: str) -> None:
        """Abort the running trial and drop the one that waits for approval."""
        self.interrupt(reason)
        self._drop_waiting(reason)

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
        """Start the trial that waits for approval; False when it is not that one."""
        waiting = self._waiting
        if waiting is None or trial_id != waiting.record_id:
            return False
        self._waiting = None
        self._start(waiting.plan, trial_id)
        return True

    def decline(self, trial_id: int) -> bool:
        """Drop the trial that waits for approval; False when it is not that one."""
        if self._waiting is None or trial_id != self._waiting.record_id:
            return False
        self._drop_waiting("declined by the operator")
        return True

    def _drop_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.abort(reason)
            self._store.save_trial(waiting.record())
            self.verdicts[Verdict.ABORTED.value] += 1

    def relink(self) -> None:
        """A human changed the configuration: the index goes on against the old reference."""
        self._promising = None
        self._probation = None

    @property
    def usual(self) -> MetricsWindow | None:
        """A window of the baseline, None before there is one."""
        return self._baseline.newest if self.chain is not None else None

    @property
    def activity(self) -> str:
        """What is going on, for people."""
        if self.trial is not None:
            return f"{self.trial.plan.kind.value} trial {self.trial.record_id}"
        if self._waiting is not None:
            return f"trial {self._waiting.record_id} is {WAITING}"
        if self.phase is Phase.BASELINE:
            return "measuring the baseline"
        return "observing"

    @property
    def progress(self) -> float | None:
        """Progress of the activity in [0, 1], None where there is no end to it."""
        if self.trial is not None:
            return self.trial.progress
        if self.phase is Phase.BASELINE:
            return self._baseline.progress
        return None

    # -- baseline ---------------------------------------------------------------------------

    def _close_baseline(self) -> None:
        baseline, version = self._baseline, self._deployment.version
        self.chain = IndexChain(baseline.reference(), version.index if version else 1.0)
        self._noise = baseline.noise()
        self.phase = Phase.LEARNING
        told = f"baseline of {baseline.calls} statements in {baseline.seconds:.0f} s taken"
        self._event("info", "baseline", told)
        config, factor = self._space_config(), self.chain.factor
        self._learner.tell(config, factor, self._state, 1.0, baseline.newest)
        if self._level1.enabled and self._deployment.mode is Mode.ADVISE:
            self._advise()

    def _advise(self) -> None:
        try:
            values = self._difference(self._learner.ask(self._state, self._deployment.present))
        except MemoryBudgetError as error:
            self._event("info", "advice", error.message)
            return
        text = ", ".join(f"{name} = {value}" for name, value in values.items())
        self._event("info", "advice", f"worth a try: {text}" if text else "nothing to advise")

    # -- what to try next -------------------------------------------------------------------

    def _may_try(self, now_s: float) -> bool:
        if self.failures >= self._settings.safety.max_consecutive_failures:
            # Rest, then try again with a clean count.
            self.failures = 0
            self._next_probe_s = now_s + self._level1.rest_s
        return (
            self._level1.enabled
            and self._deployment.mode in (Mode.APPROVE, Mode.AUTO)
            and not (self.paused or self._deployment.frozen or self.blocked)
            and self._sees
            and self._waiting is None
        )

    def _begin_next(self, now_s: float) -> None:
        schedule = self._schedule
        promote = schedule.may_promote(now_s) and self._planner.may_promote_today()
        if self._promising is not None and promote:
            (values, proposer), self._promising = self._promising, None
            self._propose(self._plan(TrialKind.PROMOTION, values, proposer))
        elif self._probation is not None:
            plan = self._planner.turned_around(
                self._plan(TrialKind.PROBATION, self._probation.values, AUTOPILOT),
                self._probation.former.config,
                self._level1.probation_blocks,
            )
            self._propose(replace(plan, earlier_log_ratios=self._probation.log_ratios))
        elif not schedule.may_learn(now_s):
            self.phase = Phase.OPTIMISED
        elif now_s >= self._next_probe_s:
            self._probe(now_s)

    def _probe(self, now_s: float) -> None:
        self.phase = Phase.LEARNING
        for _ in range(MAX_ASKS):
            config = self._learner.ask(self._state, self._deployment.present)
            try:
                values = self._difference(config)
            except MemoryBudgetError as error:
                log.info("a proposal was dropped: %s", error)
                continue
            if values:
                self._propose(self._plan(TrialKind.PROBE, values, self._learner.proposer))
                return
        self._next_probe_s = now_s + self._level1.rest_s

    def _difference(self, config: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
        """What the proposal, shrunk to fit the memory budget, changes."""
        present = self._deployment.present
        clamped = self._learner.fit(present.replace(config))
        return {
            name: clamped[name] for name in self._space.names if clamped[name] != present.get(name)
        }

    def _compare(self, late_s: float) -> None:
        """The end of a bounded run: compare what stands with what stood at its start.

        It changes the server, so only mode ``auto`` makes it. An aborted one is begun anew, a few
        times. Where it cannot be made for as long as it would have taken, the run ends without.
        """
        self.phase = Phase.FINAL_COMPARISON
        blocks = self._schedule.compare_blocks
        longest_s = 2 * blocks * 4 * (self._level1.window_s + self._level1.settle_s)
        mode = self._deployment.mode
        if mode is not Mode.AUTO or self._comparisons >= MAX_COMPARISONS:
            tried = f"tried {self._comparisons} times, mode {mode.value}"
            self._end_without_comparison(tried)
            return
        if self.chain is None or self.paused or self._deployment.frozen or not self._sees:
            if late_s > longest_s:
                self._end_without_comparison("no baseline, paused, frozen, or no windows")
            return
        self._comparisons += 1
        former = self._deployment.root_entries()
        plan = self._planner.turned_around(
            self._plan(TrialKind.FINAL, self._deployment.changed_since(former), AUTOPILOT),
            former,
            blocks,
        )
        self._start(plan, None)
        self.final_trial = self.trial

    def _end_without_comparison(self, why: str) -> None:
        self._event("warning", "not_compared", f"the final comparison could not be made ({why})")
        self.phase = Phase.FINISHED

    def _plan(self, kind: TrialKind, values: Mapping[str, KnobValue], proposer: str) -> TrialPlan:
        assert self.chain is not None  # no trial before the baseline
        return self._planner.plan(kind, values, proposer, self.chain.reference, self._noise)

    # -- running a trial --------------------------------------------------------------------

    def _propose(self, plan: TrialPlan) -> None:
        if self._deployment.mode is Mode.APPROVE and plan.kind is not TrialKind.PROBATION:
            waiting = self._make_trial(plan, None)
            record = replace(waiting.record(), reasons=(WAITING,))
            waiting.record_id = self._store.save_trial(record)
            self._waiting = waiting
        else:
            self._start(plan, None)

    def _start(self, plan: TrialPlan, record_id: int | None) -> None:
        trial = self._make_trial(plan, record_id)
        trial.record_id = self._store.save_trial(trial.record())
        self.trial, self._state_before = trial, self._state

    def _make_trial(self, plan: TrialPlan, record_id: int | None) -> Trial:
        def on_window(measured: MeasuredWindow) -> None:
            self._record_window(measured, trial.record_id)
            self._state = state_vector(measured.window, load_profile(measured.window))

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
            TrialKind.PROBATION: self._after_probation,
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
        if trial.verdict is not Verdict.ACCEPT:
            return
        assert self.chain is not None
        former, former_chain = self._deployment.version, self.chain
        effect = trial.effect_log_ratio or 0.0
        chain = former_chain.link(effect, trial.windows(Arm.CANDIDATE))
        self._deployment.deploy(
            trial.plan.after,
            author=AUTOPILOT,
            index=chain.factor,
            note="; ".join(trial.reasons),
            trial_id=trial.record_id,
        )
        self.chain = chain
        self._on_deployment()
        if former is not None and self._level1.probation_blocks > 0:
            self._probation = _Probation(
                former, former_chain, trial.plan.after, trial.block_log_ratios
            )

    def _after_probation(self, trial: Trial) -> None:
        probation, self._probation = self._probation, None
        if trial.verdict is Verdict.ACCEPT or probation is None:
            return
        self._deployment.return_to(
            probation.former, author=AUTOPILOT, reason="probation: " + "; ".join(trial.reasons)
        )
        self.chain = probation.former_chain
        self._on_deployment()
        self._event("warning", "rollback", "a deployment did not stand its probation: undone")

    def _after_final(self, trial: Trial) -> None:
        self.phase = Phase.FINISHED

    def _tell(self, trial: Trial) -> None:
        """Let the agent learn from the trial, the safety monitor's early stops included.

        It learns in the state before the trial: the candidate's own windows show what the
        candidate does to the server, and nobody knows that when the next one is chosen.
        """
        assert self.chain is not None
        windows = trial.windows(Arm.CANDIDATE)
        log_ratio = trial.effect_log_ratio
        config = self._space_config().replace(
            {n: v for n, v in trial.plan.after.items() if n in self._space}
        )
        if log_ratio is not None and windows:
            objective = self.chain.factor * math.exp(log_ratio)
            quality = trial.quality or 0.0
            self._learner.tell(config, objective, self._state_before, quality, windows[-1])
        elif trial.stopped_log_ratio is not None:
            # One window, but how bad a configuration is leads the agent away from it.
            objective = self.chain.factor * math.exp(
                min(trial.stopped_log_ratio, MAX_STOPPED_LOG_RATIO)
            )
            self._learner.tell(config, objective, self._state_before, 1.0, None)
        elif trial.verdict is Verdict.REJECT:
            bound = self.chain.factor * (1 + self._settings.safety.rollback_threshold)
            self._learner.tell(config, bound, self._state_before, 1.0, None, censored=True)

    def _space_config(self) -> KnobConfig:
        present = self._deployment.present
        return KnobConfig({name: present[name] for name in self._space.names if name in present})

    def _event(self, level: str, kind: str, message: str) -> None:
        self._store.add_event(EventRecord(self._clock.now(), level, kind, message))
