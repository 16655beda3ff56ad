"""What a trial has measured, and what it proves: its plan, its blocks, its record.

Windows go in block by block; each whole block yields one log ratio, each log ratio a judgement
(see gate). Nothing here knows a server or a clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from backend.domain.knobs import KnobValue
from backend.domain.load import SampleQuality
from backend.domain.metrics import MetricsWindow, QueryKey
from backend.domain.modes import Arm, TrialKind
from backend.domain.records import TrialRecord
from backend.gate import (
    GateSettings,
    Judgement,
    judge_final,
    judge_probation,
    judge_probe,
    judge_promotion,
    judge_recheck,
)
from backend.sample_filter import Reference, class_log_ratios, paired_log_ratio

PAIRED = (TrialKind.PROBATION, TrialKind.RECHECK)
"""Kinds whose block is a single pair of windows: short returns to what stood before."""
_COMPARED = (Arm.CANDIDATE, Arm.INCUMBENT)
VANISHED = 0.1
"""A class seen in so unlikely few windows of the candidate may have stopped under it."""


@dataclass(frozen=True)
class TrialPlan:
    """Everything about a trial that is set before its first window.

    ``deployed`` is the arm that stands on the server without us; ``other_values`` switch to the
    other one (None: our entry is removed). ``shares`` fixes the compared class set and the call
    shares. A probe is promising when its log ratio is below ``promising_below``, which is beyond
    the noise of one window. ``earlier_log_ratios`` are the promotion's blocks, for its probation,
    or those of earlier rechecks; a recheck undoes what lies above ``undone_above`` (a log ratio).
    ``filtered``: windows are judged by their sample quality (``level1.sample_filter``).
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
    filtered: bool = True
    min_quality: float = 0.3
    promising_below: float = -0.05
    earlier_log_ratios: tuple[float, ...] = ()
    undone_above: float = 0.0
    seed: int = 0
    experiment_plan_id: int | None = None

    @property
    def watched(self) -> Arm | None:
        """The arm that the safety monitor may stop the trial for.

        Stopping the final comparison would take nothing off. In a recheck what stands is no news,
        but what stood before, on data of today, is.
        """
        if self.kind is TrialKind.FINAL:
            return None
        return Arm.INCUMBENT if self.kind is TrialKind.RECHECK else Arm.CANDIDATE

    @property
    def segments_per_block(self) -> int:
        """Windows a block: I C I for probes, two for probation and recheck, four otherwise."""
        if self.kind is TrialKind.PROBE:
            return 3
        return 2 if self.kind in PAIRED else 4

    @property
    def group_size(self) -> int:
        """Neighbouring windows that must have the same load: pairs, or the three of a probe."""
        return 3 if self.kind is TrialKind.PROBE else 2

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
        return pair if self.kind in PAIRED else (*pair, *reversed(pair))


@dataclass(frozen=True)
class MeasuredWindow:
    """One window of a trial with its quality."""

    arm: Arm
    window: MetricsWindow
    quality: SampleQuality


@dataclass
class Block:
    """Windows of both arms that are compared with each other, in the order set by lot.

    It consists of *groups* of neighbours, each with windows of both arms: the two pairs of ABBA,
    or the whole of a probe. Only within a group must the load be the same.
    """

    order: tuple[Arm, ...]
    group_size: int
    windows: list[MeasuredWindow] = field(default_factory=list)

    @property
    def next_arm(self) -> Arm:
        """The arm of the next window."""
        return self.order[len(self.windows)]

    @property
    def partner(self) -> MeasuredWindow | None:
        """The window with whose load the next one is compared; None where a group begins."""
        return self.windows[-1] if len(self.windows) % self.group_size else None

    @property
    def whole(self) -> bool:
        """Whether every window is there."""
        return len(self.windows) == len(self.order)

    def of(self, arm: Arm) -> list[MetricsWindow]:
        """The windows of one arm."""
        return [m.window for m in self.windows if m.arm is arm]

    @property
    def pairs(self) -> list[tuple[list[MetricsWindow], list[MetricsWindow]]]:
        """Of a whole block, each group's windows of the candidate and of the incumbent."""
        found = []
        for start in range(0, len(self.windows), self.group_size):
            group = self.windows[start : start + self.group_size]
            arms = [[m.window for m in group if m.arm is arm] for arm in _COMPARED]
            found.append((arms[0], arms[1]))
        return found

    def begin_group_anew(self, kept: MeasuredWindow | None = None, first: Arm | None = None) -> int:
        """Drop the unfinished group's windows; how many there were.

        ``kept`` is a good window at another load than the group's: where it can, the group begins
        with it, in the order that this takes. Otherwise it begins with ``first``, if that is given.
        """
        start = len(self.windows) - len(self.windows) % self.group_size
        end = start + self.group_size
        lost = len(self.windows) - start
        del self.windows[start:]
        group, first = self.order[start:end], kept.arm if kept is not None else first
        if first is not None and group[0] is not first:
            # A probe reads the same from both ends: its one order stays.
            group = group[::-1]
            self.order = (*self.order[:start], *group, *self.order[end:])
        if kept is not None and group[0] is kept.arm:
            self.windows.append(kept)
        return lost


class TrialEvidence:
    """The blocks of a trial and the judgement on them.

    ``judgement`` is that of the whole blocks so far; its verdict is None while there is more to
    measure.
    """

    def __init__(self, plan: TrialPlan) -> None:
        self.plan = plan
        self.judgement = Judgement(None, None, ())
        self._rng = random.Random(plan.seed)
        self._blocks: list[Block] = []
        self._furthest = 0
        self._log_ratios: list[float] = []
        self._pair_log_ratios: list[float] = []
        self._coverages: list[float] = []
        self._class_ratios: dict[str, list[float]] = {}
        self.begin_block()

    # -- windows in -------------------------------------------------------------------------

    @property
    def block(self) -> Block:
        """The block that is being measured, or the last one."""
        return self._blocks[-1]

    def begin_block(self) -> None:
        """Draw the order of arms of one more block."""
        self._blocks.append(Block(self.plan.block(self._rng), self.plan.group_size))

    def add(self, measured: MeasuredWindow) -> None:
        """Take a valid window of the block's next arm."""
        self.block.windows.append(measured)
        self._furthest = max(self._furthest, sum(len(b.windows) for b in self._blocks))

    def clear_block(self) -> int:
        """Drop the block's windows; how many there were."""
        lost = len(self.block.windows)
        self.block.windows.clear()
        return lost

    def close_block(self) -> bool:
        """Judge the whole block with those before it; False when its arms cannot be compared."""
        candidate, incumbent = self.block.of(Arm.CANDIDATE), self.block.of(Arm.INCUMBENT)
        ratio = paired_log_ratio(candidate, incumbent, self.plan.shares)
        if ratio is None:
            return False
        self._log_ratios.append(ratio[0])
        self._coverages.append(ratio[1])
        pairs = [paired_log_ratio(c, i, self.plan.shares) for c, i in self.block.pairs]
        known = [pair[0] for pair in pairs if pair is not None]
        # Where a pair alone compares nothing, its block still does: then it counts as one.
        self._pair_log_ratios += known if len(known) == len(pairs) else [ratio[0]]
        per_class = class_log_ratios(candidate, incumbent, self.plan.shares.per_class)
        for key, log_ratio in per_class.items():
            self._class_ratios.setdefault(str(key), []).append(log_ratio)
        self.judgement = self._judge()
        return True

    def _judge(self) -> Judgement:
        plan, ratios = self.plan, self._log_ratios
        if plan.kind is TrialKind.PROBE:
            return judge_probe(ratios[0], plan.promising_below)
        if plan.kind is TrialKind.PROBATION:
            return judge_probation(ratios, plan.gate.max_blocks, plan.earlier_log_ratios)
        if plan.kind is TrialKind.RECHECK:
            most = plan.gate.max_blocks
            return judge_recheck(ratios, most, plan.undone_above, plan.earlier_log_ratios)
        if plan.kind is TrialKind.FINAL:
            return judge_final(ratios, self._class_ratios, plan.gate.max_blocks)
        shares = {
            str(key): plan.shares.time_share(key)
            for key in plan.shares.per_class
            if len(self._class_ratios.get(str(key), ())) > 1 or self._suspicious(key)
        }
        coverage = fmean(self._coverages)
        return judge_promotion(
            ratios, self._class_ratios, shares, coverage, plan.gate, self._pair_log_ratios
        )

    def _suspicious(self, key: QueryKey) -> bool:
        """Whether a class that two blocks cannot compare may be the candidate's victim.

        It ran in clearly fewer of the candidate's windows than of the incumbent's, or was slower in
        what there is. A batch job that rests most of the time is neither: nobody can tell, and the
        coverage says how much that is.
        """
        candidate, incumbent = (self.windows(arm) for arm in _COMPARED)
        with_it, without = (sum(key in w.queries for w in some) for some in (candidate, incumbent))
        both = with_it + without
        # One-sided sign test: each of the windows with the class is as likely either arm's.
        chance = sum(math.comb(both, n) for n in range(with_it + 1)) / 2**both
        if chance <= VANISHED:
            return True
        ratios = class_log_ratios(candidate, incumbent, [key])
        return ratios.get(key, 0.0) > math.log1p(self.plan.gate.max_class_regression)

    # -- evidence out -----------------------------------------------------------------------

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
    def most_windows(self) -> int:
        """Windows that the trial measures at the most."""
        return self.plan.max_blocks * self.plan.segments_per_block

    @property
    def progress(self) -> float:
        """Measured windows of the most that there can be, in [0, 1]; never falls."""
        return min(self._furthest / self.most_windows, 1.0)

    def windows(self, arm: Arm) -> list[MetricsWindow]:
        """The valid windows of one arm, in the order of measuring."""
        return [window for block in self._blocks for window in block.of(arm)]

    @property
    def quality(self) -> float | None:
        """Mean quality of the valid windows; None before the first."""
        values = [m.quality.value for block in self._blocks for m in block.windows]
        return fmean(values) if values else None

    def fill(self, record: TrialRecord) -> TrialRecord:
        """The record with what the trial set out to do and what it has measured."""
        record = replace(
            record,
            before=dict(self.plan.before),
            after=dict(self.plan.after),
            reasons=record.reasons or self.judgement.reasons,
            blocks=len(self._log_ratios),
            max_blocks=self.plan.max_blocks,
            block_log_ratios=self.block_log_ratios,
            coverage=fmean(self._coverages) if self._coverages else None,
            quality=self.quality,
            needs_restart=self.plan.needs_restart,
            class_effects=self._class_effects(),
            confidence=self._confidence(),
            experiment_plan_id=self.plan.experiment_plan_id,
        )
        found = self.judgement.interval
        if found is None:
            return record
        if self.plan.kind is TrialKind.PROBE:
            return replace(record, effect=found.effect)
        return replace(record, effect=found.effect, ci_low=found.low, ci_high=found.high)

    def _confidence(self) -> float:
        """Two-sided confidence of the interval shown."""
        gate = self.plan.gate
        if self.plan.kind is TrialKind.PROMOTION:
            return 1 - 2 * gate.alpha / gate.looks
        if self.plan.kind in PAIRED:
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
