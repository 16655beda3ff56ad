"""Trials: one candidate, its windows, its verdict, as a state machine advanced by ticks.

A trial switches the server between its two arms, waits until a switch has settled, and measures
one window a segment. It never sleeps: each :meth:`Trial.tick` does what is due and returns.
Whatever happens, it ends with the deployed arm on the server; deploying is the caller's part.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from statistics import fmean, stdev
from typing import Protocol

from backend.data_collector import why_no_window, window_between
from backend.domain.knobs import KnobValue
from backend.domain.load import SampleQuality
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.modes import Arm, SafetyAction, TrialKind, TrialState, Verdict
from backend.domain.records import TrialRecord
from backend.domain.safety import SafetyVerdict
from backend.policy_learner import (
    GateSettings,
    Interval,
    Judgement,
    class_intervals,
    judge_probation,
    judge_promotion,
    t_interval,
)
from backend.protocols import Clock
from backend.sample_filter import (
    Reference,
    class_log_ratios,
    latency_index,
    load_distance,
    load_factor,
    load_profile,
    outside_events,
    paired_log_ratio,
    sample_quality,
)

MAX_VOID_WINDOWS = 6
"""Windows in a row that may be void before the trial is given up as inconclusive.

In all, as many may be lost as the trial has at the most: a load that swings for ever ends it too.
"""
COMPARABLE = 0.8
"""Load factor of the sample quality below which more load may explain a slower window."""
MAX_STRADDLE_S = 60.0
"""How long to wait for statements that began before a switch; then the trial is given up."""


@dataclass(frozen=True)
class TrialPlan:
    """Everything about a trial that is set before its first window.

    ``deployed`` is the arm that stands on the server without us; ``other_values`` switch to the
    other one (None: our entry is removed). ``shares`` fixes the compared class set and the call
    shares. A probe is promising when its log ratio is below ``promising_below``, which is beyond
    the noise of one window. ``earlier_log_ratios`` are the promotion's blocks, for its probation.
    """

    kind: TrialKind
    proposer: str
    before: Mapping[str, KnobValue | None]
    after: Mapping[str, KnobValue]
    other_values: Mapping[str, KnobValue | None]
    deployed: Arm
    shares: Reference
    gate: GateSettings
    window_s: float
    settle_s: float
    restart_settle_s: float = 10.0
    needs_restart: bool = False
    min_quality: float = 0.3
    promising_below: float = -0.05
    earlier_log_ratios: tuple[float, ...] = ()
    seed: int = 0

    @property
    def segments_per_block(self) -> int:
        """Windows a block: I C I for probes, two for probation, four otherwise."""
        return {TrialKind.PROBE: 3, TrialKind.PROBATION: 2}.get(self.kind, 4)

    @property
    def max_blocks(self) -> int:
        """Blocks after which the trial ends at the latest."""
        return 1 if self.kind is TrialKind.PROBE else self.gate.max_blocks

    def block(self, rng: random.Random) -> tuple[Arm, ...]:
        """The order of arms of the next block; randomised, balanced against a linear drift."""
        incumbent, candidate = Arm.INCUMBENT, Arm.CANDIDATE
        if self.kind is TrialKind.PROBE:
            return (incumbent, candidate, incumbent)
        pair = (incumbent, candidate) if rng.random() < 0.5 else (candidate, incumbent)
        return pair if self.kind is TrialKind.PROBATION else (*pair, *reversed(pair))


class ArmSwitch(Protocol):
    """Puts an arm on the server (journalled, read back) and takes it off again."""

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        """Apply values; returns the batch's id."""

    def leave(self, batch_id: str, reason: str) -> None:
        """Undo the batch."""


class SafetyJudge(Protocol):
    """Judges a window measured under a candidate; see safety_monitor."""

    def __call__(
        self, window: MetricsWindow, baseline: MetricsWindow | None, log_ratio: float | None
    ) -> SafetyVerdict:
        """``baseline``: the newest incumbent window, ``log_ratio``: against the incumbents.

        Before the trial's first incumbent window: no baseline, and the ratio is against the
        plan's reference.
        """


@dataclass(frozen=True)
class MeasuredWindow:
    """One window of a trial with its quality."""

    arm: Arm
    window: MetricsWindow
    quality: SampleQuality


@dataclass
class _Block:
    order: tuple[Arm, ...]
    windows: list[MeasuredWindow] = field(default_factory=list)

    def of(self, arm: Arm) -> list[MetricsWindow]:
        return [m.window for m in self.windows if m.arm is arm]


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
        self.judgement = Judgement(None, None, ())
        self._collect, self._switch, self._clock = collect, switch, clock
        self._on_window, self._judge_safety = on_window, judge_safety
        self._rng = random.Random(plan.seed)
        self._blocks: list[_Block] = [_Block(plan.block(self._rng))]
        self._arm = plan.deployed
        self._batch_id: str | None = None
        self._due_s = clock.monotonic_s()
        self._switched_s: float | None = None
        self._first: MetricsSnapshot | None = None
        self._middle: MetricsSnapshot | None = None
        self._void_in_row = 0
        self._lost_windows = 0
        self._furthest = 0
        self._ending: tuple[Verdict, tuple[str, ...]] | None = None
        self._log_ratios: list[float] = []
        self._coverages: list[float] = []
        self._class_ratios: dict[str, list[float]] = {}

    # -- the machine ------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether there is a verdict and the deployed arm stands again."""
        return self.state is TrialState.FINISHED

    @property
    def measuring(self) -> bool:
        """Whether a window is open now."""
        return self.state is TrialState.MEASURING

    def tick(self) -> None:
        """Do what is due. Errors of the server or the journal pass through to the caller."""
        now_s = self._clock.monotonic_s()
        if self._ending is not None and not self.finished:
            self._finish(*self._ending)  # taking the other arm off failed before
            return
        if self.finished or now_s < self._due_s:
            return
        if self.state is TrialState.APPLYING:
            self._enter_arm(self._next_arm(), now_s)
        elif self.state is TrialState.SETTLING:
            self._open_window(now_s)
        elif self.state is TrialState.MEASURING:
            self._read_window(now_s)

    def abort(self, reason: str, verdict: Verdict = Verdict.ABORTED) -> None:
        """End the trial now and take the other arm off the server."""
        if not self.finished:
            self._finish(verdict, (reason,))

    def _next_arm(self) -> Arm:
        block = self._blocks[-1]
        return block.order[len(block.windows)]

    def _enter_arm(self, arm: Arm, now_s: float) -> None:
        if arm is self._arm:
            self._due_s = now_s
        else:
            if arm is self.plan.deployed:
                self._leave_arm("the segment is over")
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
            self._switch.leave(self._batch_id, reason)
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

    def _take_window(
        self, window: MetricsWindow, halves: tuple[MetricsWindow, MetricsWindow]
    ) -> None:
        block = self._blocks[-1]
        before = [m for b in self._blocks for m in b.windows]
        index = latency_index([window], self.plan.shares)
        quality = sample_quality(
            window,
            coverage=index.coverage if index else 0.0,
            # Blocks stand for themselves, so a load that moved between two of them spoils none.
            paired=load_profile(block.windows[-1].window) if block.windows else None,
            halves=halves,
            min_coverage=self.plan.gate.min_coverage,
        )
        measured = MeasuredWindow(self._arm, window, quality)
        self._on_window(measured)
        if self._arm is Arm.CANDIDATE and self._endangers(measured, before):
            return
        if quality.value < self.plan.min_quality:
            self._void_block("; ".join(quality.reasons) or "low sample quality")
            return
        self._void_in_row = 0
        block.windows.append(measured)
        self._furthest = max(self._furthest, sum(len(b.windows) for b in self._blocks))
        if len(block.windows) == len(block.order):
            self._close_block(block)

    def _endangers(self, measured: MeasuredWindow, before: Sequence[MeasuredWindow]) -> bool:
        incumbents = [m.window for m in before if m.arm is Arm.INCUMBENT][-2:]
        ratio = paired_log_ratio([measured.window], incumbents, self.plan.shares)
        log_ratio = ratio[0] if ratio else None
        if not incumbents and self.plan.deployed is Arm.INCUMBENT:
            log_ratio = self._log_ratio_to_reference(measured.window)
        verdict = self._judge_safety(
            measured.window, incumbents[-1] if incumbents else None, log_ratio
        )
        if verdict.action is not SafetyAction.ROLLBACK:
            return False
        reasons = ("stopped by the safety monitor", *verdict.reasons)
        if not incumbents and not self._rolls_back(measured.window, None):
            # The reference is older, perhaps of another load: enough to stop, not to condemn.
            reason = "the trial has no incumbent window yet: compared with the reference alone"
            self._finish(Verdict.INCONCLUSIVE, (*reasons, reason))
        elif incumbents and self._excused(measured, incumbents[-1]):
            # It goes at once all the same, but nothing is proven against it.
            self._finish(Verdict.INCONCLUSIVE, (*reasons, "the load had risen, or was disturbed"))
        else:
            self._finish(Verdict.REJECT, reasons)
        return True

    def _excused(self, measured: MeasuredWindow, incumbent: MetricsWindow) -> bool:
        """Whether load or outside events, not the candidate, may have made the window slow.

        Less load excuses nothing: clients that wait for slow answers send less.
        """
        window = measured.window
        now, before = load_profile(window), load_profile(incumbent)
        apart = load_factor(load_distance(now, before, window.duration_s)) < COMPARABLE
        spoilt = apart or measured.quality.value < self.plan.min_quality
        if not outside_events(window) and not (spoilt and now.calls_per_s > before.calls_per_s):
            return False
        return not self._rolls_back(window, incumbent)

    def _rolls_back(self, window: MetricsWindow, incumbent: MetricsWindow | None) -> bool:
        """Whether the safety monitor would stop the candidate even without the latency index."""
        verdict = self._judge_safety(window, incumbent, None)
        return verdict.action is SafetyAction.ROLLBACK

    def _log_ratio_to_reference(self, window: MetricsWindow) -> float | None:
        """Stand-in for the ratio to the incumbents, where a trial begins with the candidate."""
        index = latency_index([window], self.plan.shares)
        return math.log(index.value) if index is not None and index.value > 0 else None

    def _void_block(self, reason: str) -> None:
        """A block whose pairs are spoilt is begun anew: its windows belong together."""
        windows = self._blocks[-1].windows
        self._lost_windows += len(windows)
        windows.clear()
        self._void(reason)

    def _void(self, reason: str) -> None:
        self._void_in_row += 1
        self._lost_windows += 1
        if self._void_in_row >= MAX_VOID_WINDOWS:
            self._finish(
                Verdict.INCONCLUSIVE, (f"{self._void_in_row} windows in a row were void", reason)
            )
        elif self._lost_windows >= max(self._most_windows, MAX_VOID_WINDOWS):
            self._finish(Verdict.INCONCLUSIVE, (f"{self._lost_windows} windows were lost", reason))

    # -- evidence ---------------------------------------------------------------------------

    def _close_block(self, block: _Block) -> None:
        candidate, incumbent = block.of(Arm.CANDIDATE), block.of(Arm.INCUMBENT)
        ratio = paired_log_ratio(candidate, incumbent, self.plan.shares)
        if ratio is None:
            self._void_block("no query class ran often enough in both arms")
            return
        self._log_ratios.append(ratio[0])
        self._coverages.append(ratio[1])
        per_class = class_log_ratios(candidate, incumbent, self.plan.shares.per_class)
        for key, log_ratio in per_class.items():
            self._class_ratios.setdefault(str(key), []).append(log_ratio)
        self.judgement = self._judge()
        if self.judgement.verdict is not None:
            self._finish(self.judgement.verdict, self.judgement.reasons)
        else:
            self._blocks.append(_Block(self.plan.block(self._rng)))

    def _judge(self) -> Judgement:
        plan, ratios = self.plan, self._log_ratios
        if plan.kind is TrialKind.PROBE:
            return self._judge_probe(ratios[0])
        if plan.kind is TrialKind.PROBATION:
            return judge_probation(ratios, plan.gate.max_blocks, plan.earlier_log_ratios)
        shares = {str(key): plan.shares.time_share(key) for key in plan.shares.per_class}
        if plan.kind is TrialKind.PROMOTION:
            return judge_promotion(
                ratios, self._class_ratios, shares, fmean(self._coverages), plan.gate
            )
        if len(ratios) < plan.gate.max_blocks:
            interval = t_interval(ratios, 0.025) if len(ratios) > 1 else None
            return Judgement(None, interval, ())
        interval = t_interval(ratios, 0.025)
        clear = interval.high < 0 or interval.low > 0
        verdict = (
            Verdict.INCONCLUSIVE
            if not clear
            else (Verdict.ACCEPT if interval.high < 0 else Verdict.REJECT)
        )
        reason = f"{interval.effect:+.1%} [{interval.low:+.1%}, {interval.high:+.1%}]"
        return Judgement(verdict, interval, (reason,), class_intervals(self._class_ratios, 0.025))

    def _judge_probe(self, log_ratio: float) -> Judgement:
        """A probe's single ratio against the noise of one window."""
        interval = Interval.of_log(log_ratio, 0.0)
        promising = log_ratio < self.plan.promising_below
        reason = f"one window: {interval.effect:+.1%}"
        if promising:
            return Judgement(Verdict.ACCEPT, interval, (reason, "promising: worth a promotion"))
        return Judgement(Verdict.REJECT, interval, (reason, "not promising"))

    # -- results ----------------------------------------------------------------------------

    def _finish(self, verdict: Verdict, reasons: tuple[str, ...]) -> None:
        self._ending = verdict, reasons
        self._leave_arm("the trial is over")
        self.verdict, self.reasons = verdict, reasons
        self.finished_at = self._clock.now()
        self.state = TrialState.FINISHED

    @property
    def block_log_ratios(self) -> tuple[float, ...]:
        """log(index under the candidate / under the incumbent) of each whole block so far."""
        return tuple(self._log_ratios)

    @property
    def effect_log_ratio(self) -> float | None:
        """Mean log ratio of the blocks so far; None before the first."""
        return fmean(self._log_ratios) if self._log_ratios else None

    @property
    def block_spread(self) -> float | None:
        """Standard deviation of the blocks' log ratios; None below two."""
        return stdev(self._log_ratios) if len(self._log_ratios) > 1 else None

    @property
    def progress(self) -> float:
        """Measured windows of the most that there can be, in [0, 1]; never falls."""
        return min(self._furthest / self._most_windows, 1.0)

    @property
    def _most_windows(self) -> int:
        return self.plan.max_blocks * self.plan.segments_per_block

    def windows(self, arm: Arm) -> list[MetricsWindow]:
        """The valid windows of one arm."""
        return [m.window for block in self._blocks for m in block.windows if m.arm is arm]

    @property
    def quality(self) -> float | None:
        """Mean quality of the valid windows; None before the first."""
        values = [m.quality.value for block in self._blocks for m in block.windows]
        return fmean(values) if values else None

    def record(self) -> TrialRecord:
        """The trial as the store holds it."""
        found = self.judgement.interval
        log_ratio = self.effect_log_ratio
        record = TrialRecord(
            id=self.record_id,
            kind=self.plan.kind,
            state=self.state,
            proposer=self.plan.proposer,
            created_at=self.created_at,
            finished_at=self.finished_at,
            before=dict(self.plan.before),
            after=dict(self.plan.after),
            verdict=self.verdict,
            reasons=self.reasons or self.judgement.reasons,
            blocks=len(self._log_ratios),
            max_blocks=self.plan.max_blocks,
            block_log_ratios=self.block_log_ratios,
            coverage=fmean(self._coverages) if self._coverages else None,
            quality=self.quality,
            needs_restart=self.plan.needs_restart,
            class_effects=self._class_effects(),
            confidence=self._confidence(),
            progress=1.0 if self.finished else self.progress,
        )
        if found is None or log_ratio is None:
            return record
        if self.plan.kind is TrialKind.PROBE:
            return replace(record, effect=found.effect)
        return replace(record, effect=found.effect, ci_low=found.low, ci_high=found.high)

    def _confidence(self) -> float:
        """Two-sided confidence of the interval shown."""
        gate = self.plan.gate
        if self.plan.kind is TrialKind.PROMOTION:
            return 1 - 2 * gate.alpha / gate.looks
        if self.plan.kind is TrialKind.PROBATION:
            return 1 - 2 * 0.05 / max(gate.max_blocks - 2, 1)
        return 0.95

    def _class_effects(self) -> dict[str, dict[str, float]]:
        candidate = Reference.from_windows(self.windows(Arm.CANDIDATE)).per_class
        incumbent = Reference.from_windows(self.windows(Arm.INCUMBENT)).per_class
        intervals = self.judgement.class_intervals
        effects: dict[str, dict[str, float]] = {}
        for key in self.plan.shares.per_class:
            if key not in candidate or key not in incumbent:
                continue
            ours, theirs = candidate[key][1], incumbent[key][1]
            if theirs <= 0:
                continue
            found = {
                "candidate_ms": ours,
                "incumbent_ms": theirs,
                "effect": ours / theirs - 1,
                "time_share": self.plan.shares.time_share(key),
            }
            if str(key) in intervals:
                interval = intervals[str(key)]
                found |= {
                    "effect": interval.effect,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                }
            effects[str(key)] = found
        return effects
