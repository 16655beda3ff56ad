"""Trials: one candidate, its windows, its verdict, as a state machine advanced by ticks.

A trial switches the server between its two arms, waits until a switch has settled, and measures
one window a segment. It never sleeps: each :meth:`Trial.tick` does what is due and returns.
Whatever happens, it ends with the deployed arm on the server; deploying is the caller's part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from backend.data_collector import why_no_window, window_between
from backend.domain.knobs import KnobValue
from backend.domain.load import SampleQuality
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.modes import Arm, TrialState, Verdict
from backend.domain.records import TrialRecord
from backend.errors import ConflictError
from backend.gate import Judgement
from backend.protocols import Clock
from backend.sample_filter import (
    COMPARABLE,
    UNFILTERED,
    latency_index,
    load_profile,
    sample_quality,
)
from backend.trial_danger import Danger, Halves, SafetyJudge
from backend.trial_evidence import MeasuredWindow, TrialEvidence, TrialPlan

__all__ = ["ArmSwitch", "MeasuredWindow", "Trial", "TrialPlan"]

MAX_VOID_WINDOWS = 6
"""Windows in a row that may be void before the trial is given up as inconclusive.

As many may be lost in all as it has, at least twice this: a load that swings for ever ends it too.
"""
MAX_EXCUSES = 3
"""How often a trial goes on after the safety monitor took its candidate off under more load."""
STOPPED = "stopped by the safety monitor"
NO_WAY_BACK = "what stood before is far worse by now, says the safety monitor: what stands stays"
"""Where a recheck returned to it."""
MAX_STRADDLE_S = 60.0
"""How long to wait for statements that began before a switch; then the trial is given up."""


class ArmSwitch(Protocol):
    """Puts an arm on the server (journalled, read back) and takes it off again."""

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        """Apply values; returns the batch's id."""

    def leave(self, batch_id: str, reason: str) -> None:
        """Undo the batch.

        Raises:
            ConflictError: somebody else changed one of its knobs meanwhile, and that stays.
        """


class Trial:
    """A running trial.

    Args:
        plan: what was set beforehand.
        collect: takes a snapshot of the server now.
        switch: changes arms.
        clock: time.
        on_window: told of every window measured (void ones too).
        judge_safety: asked after each window under the candidate.
        record_id: the stored record's id, for the journal.
    """

    def __init__(
        self,
        plan: TrialPlan,
        *,
        collect: Callable[[], MetricsSnapshot],
        switch: ArmSwitch,
        clock: Clock,
        on_window: Callable[[MeasuredWindow], None],
        judge_safety: SafetyJudge,
        record_id: int | None = None,
    ) -> None:
        self.plan = plan
        self.state = TrialState.APPLYING
        self.verdict: Verdict | None = None
        self.reasons: tuple[str, ...] = ()
        self.record_id = record_id
        self.created_at = clock.now()
        self.finished_at: datetime | None = None
        self.stopped_log_ratio: float | None = None  # of the window that the monitor rejected by
        self._collect, self._switch, self._clock = collect, switch, clock
        self._on_window, self._danger = on_window, Danger(plan, judge_safety)
        self._evidence = TrialEvidence(plan)
        self._arm = plan.deployed
        self._batch_id: str | None = None
        self._due_s = clock.monotonic_s()
        self._switched_s: float | None = None
        self._first: MetricsSnapshot | None = None
        self._middle: MetricsSnapshot | None = None
        self._void_in_row = 0
        self._lost_windows = 0
        self._excuses = 0
        self._costs_ms = plan.shares.costs_ms
        self._ending: tuple[Verdict, tuple[str, ...]] | None = None
        self._conflict = ""

    # -- the machine ------------------------------------------------------------------------

    def tick(self) -> None:
        """Do what is due. Errors of the server or the journal pass through to the caller."""
        now_s = self._clock.monotonic_s()
        if self._ending is not None and not self.finished:
            self._finish(*self._ending)  # taking the other arm off failed before
            return
        if self.finished or now_s < self._due_s:
            return
        if self.state is TrialState.APPLYING:
            self._enter_arm(self._evidence.block.next_arm, now_s)
        elif self.state is TrialState.SETTLING:
            self._open_window(now_s)
        elif self.state is TrialState.MEASURING:
            self._read_window(now_s)

    def abort(self, reason: str, verdict: Verdict = Verdict.ABORTED) -> None:
        """End the trial now and take the other arm off the server."""
        if not self.finished:
            self._finish(verdict, (reason,))

    def _enter_arm(self, arm: Arm, now_s: float) -> None:
        if arm is self._arm:
            self._due_s = now_s
        else:
            if arm is self.plan.deployed:
                self._leave_arm("the segment is over")
                if self._conflict:
                    self._finish(Verdict.ABORTED, ())
                    return
            else:
                self._batch_id = self._switch.enter(self.plan.other_values, self.record_id)
            self._arm = arm
            self._switched_s = self._clock.monotonic_s()
            settle_s = self.plan.settle_s
            if self.plan.needs_restart:
                settle_s = max(settle_s, self.plan.restart_settle_s)
            self._due_s = self._switched_s + settle_s
        self.state = TrialState.SETTLING

    def _leave_arm(self, reason: str) -> None:
        if self._batch_id is not None:
            try:
                self._switch.leave(self._batch_id, reason)
            except ConflictError as error:  # it is off; whose knob it is now may not be tried
                self._conflict = error.message
            self._batch_id = None
            self._arm = self.plan.deployed

    def _open_window(self, now_s: float) -> None:
        snapshot = self._collect()
        if self._switched_s is not None:
            since_s = now_s - self._switched_s
            oldest_s = snapshot.gauges.get("longest_statement_s", 0.0)
            if oldest_s > since_s >= MAX_STRADDLE_S:
                reason = (
                    f"a statement that began before the switch still runs after {since_s:.0f} s "
                    f"(limit {MAX_STRADDLE_S:g} s): no window would belong to one arm alone"
                )
                self._finish(Verdict.INCONCLUSIVE, (reason,))
                return
            if oldest_s > since_s:
                self._due_s = now_s + 0.5
                return
        self._switched_s = None
        self._first, self._middle = snapshot, None
        self._due_s = now_s + self.plan.window_s / 2
        self.state = TrialState.MEASURING

    def _read_window(self, now_s: float) -> None:
        snapshot = self._collect()
        if self._middle is None:
            self._middle = snapshot
            self._due_s = now_s + self.plan.window_s / 2
            return
        first, middle = self._first, self._middle
        self._first = self._middle = None
        self.state = TrialState.APPLYING
        self._due_s = now_s
        assert first is not None  # set in _open_window, which alone leads here
        window = window_between(first, snapshot)
        halves = (window_between(first, middle), window_between(middle, snapshot))
        if window is None or halves[0] is None or halves[1] is None:
            self._void(why_no_window(first, snapshot) or "no window could be formed")
            return
        self._take_window(window, (halves[0], halves[1]))

    def _take_window(self, window: MetricsWindow, halves: Halves) -> None:
        block, partner = self._evidence.block, self._evidence.block.partner
        quality = alone = self._quality(window, halves, None)
        if partner is not None:
            quality = self._quality(window, halves, partner.window)
        measured = MeasuredWindow(self._arm, window, quality)
        self._on_window(measured)
        excused = self._arm is self.plan.watched and self._judge_danger(measured, halves)
        if self.finished:
            return
        if quality.value < self.plan.min_quality:
            # Where only the load has moved since its partner, it begins a pair at the new load.
            kept = MeasuredWindow(self._arm, window, alone)
            good = alone.value >= COMPARABLE
            self._lost_windows += block.begin_group_anew(kept if good else None)
            self._void("; ".join(quality.reasons) or "low sample quality")
        else:
            self._void_in_row = 0
            self._evidence.add(measured)
            if block.whole:
                self._close_block()
        if excused and self._evidence.block.partner is None and not self.finished:
            self._evidence.block.begin_group_anew(first=self._arm.other)

    def _quality(
        self,
        window: MetricsWindow,
        halves: Halves,
        partner: MetricsWindow | None,
    ) -> SampleQuality:
        if not self.plan.filtered:
            return UNFILTERED
        index = latency_index([window], self.plan.shares)
        return sample_quality(
            window,
            coverage=index.coverage if index else 0.0,
            paired=load_profile(partner) if partner is not None else None,
            halves=halves,
            min_coverage=self.plan.gate.min_coverage,
            costs_ms=self._costs_ms,
        )

    def _close_block(self) -> None:
        if not self._evidence.close_block():
            self._lost_windows += self._evidence.clear_block()
            self._void("no query class ran often enough in both arms")
        elif self.judgement.verdict is not None:
            self._finish(self.judgement.verdict, self.judgement.reasons)
        else:
            self._evidence.begin_block()

    def _judge_danger(self, measured: MeasuredWindow, halves: Halves) -> bool:
        """Ask the safety monitor, which may end the trial; True: it would have, but is excused.

        Then nothing is proven against the candidate: it is taken off at once all the same, since
        the incumbent's turn is next, and the trial goes on, a few times. A recheck swaps the arms.
        """
        alarm = self._danger.judge(
            measured, halves, self.windows(self._arm), self.windows(self._arm.other)
        )
        if alarm is None:
            return False
        candidate = self._arm is Arm.CANDIDATE
        reasons = (STOPPED if candidate else NO_WAY_BACK, *alarm.reasons)
        if not alarm.excuse:
            self.stopped_log_ratio = alarm.log_ratio
            self._finish(Verdict.REJECT if candidate else Verdict.ACCEPT, reasons)
        elif self._excuses >= MAX_EXCUSES:
            self._finish(Verdict.INCONCLUSIVE, (*reasons, alarm.excuse))
        self._excuses += 1
        return True

    def _void(self, reason: str) -> None:
        self._void_in_row += 1
        self._lost_windows += 1
        if self._void_in_row >= MAX_VOID_WINDOWS:
            self._finish(
                Verdict.INCONCLUSIVE, (f"{self._void_in_row} windows in a row were void", reason)
            )
        elif self._lost_windows >= max(self._evidence.most_windows, 2 * MAX_VOID_WINDOWS):
            self._finish(Verdict.INCONCLUSIVE, (f"{self._lost_windows} windows were lost", reason))

    def _finish(self, verdict: Verdict, reasons: tuple[str, ...]) -> None:
        self._ending = verdict, reasons
        self._leave_arm("the trial is over")
        if self._conflict:  # what was measured last was not the arms
            verdict, reasons = Verdict.ABORTED, (*reasons, self._conflict)
        self.verdict, self.reasons = verdict, reasons
        self.finished_at = self._clock.now()
        self.state = TrialState.FINISHED

    # -- results ----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether there is a verdict and the deployed arm stands again."""
        return self.state is TrialState.FINISHED

    @property
    def ending(self) -> bool:
        """Whether a verdict waits until the other arm could be taken off."""
        return self._ending is not None and not self.finished

    @property
    def measuring(self) -> bool:
        """Whether a window is open now."""
        return self.state is TrialState.MEASURING

    @property
    def block_log_ratios(self) -> tuple[float, ...]:
        """log(index under the candidate / under the incumbent) of each whole block so far."""
        return self._evidence.block_log_ratios

    @property
    def effect_log_ratio(self) -> float | None:
        """Mean log ratio of the blocks so far; None before the first."""
        return self._evidence.effect_log_ratio

    @property
    def block_spread(self) -> float | None:
        """Standard deviation of the blocks' log ratios; None below two."""
        return self._evidence.block_spread

    @property
    def judgement(self) -> Judgement:
        """The state of the evidence after the last whole block."""
        return self._evidence.judgement

    @property
    def progress(self) -> float:
        """Measured windows of the most that there can be, in [0, 1]; never falls."""
        return self._evidence.progress

    def windows(self, arm: Arm) -> list[MetricsWindow]:
        """The valid windows of one arm."""
        return self._evidence.windows(arm)

    @property
    def quality(self) -> float | None:
        """Mean quality of the valid windows; None before the first."""
        return self._evidence.quality

    def record(self) -> TrialRecord:
        """The trial as the store holds it."""
        return self._evidence.fill(
            TrialRecord(
                id=self.record_id,
                kind=self.plan.kind,
                state=self.state,
                proposer=self.plan.proposer,
                created_at=self.created_at,
                finished_at=self.finished_at,
                before=self.plan.before,
                after=self.plan.after,
                verdict=self.verdict,
                reasons=self.reasons,
                progress=1.0 if self.finished else self.progress,
            )
        )
