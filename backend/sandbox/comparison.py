"""Candidate against incumbent on one server: interleaved blocks, one log ratio each. No database.

A *block* is four passes over the statements in the order ABBA or BAAB, by lot. A class's time in a
pass is the mean over its statements; its time under an arm is the mean of the block's two passes,
``t``. A class's log ratio is that of its two times. The block's log ratio is that of
``sum(share * t / t_reference)`` under both arms, the latency index: ``share`` is the class's share
of the original's time, ``t_reference`` its time on this server before the first block. (The mean of
the classes' ratios would not do: noise in a denominator only ever adds to it.)

The candidate *fails* when a class breaks (a statement fails, or takes far longer) in every pass of
the candidate and none of the incumbent, in two blocks that follow each other.

After ``min_blocks`` to ``max_blocks`` blocks the evidence is looked at; each look spends an equal
part of ``ALPHA``. It fails when the lower bound of the index or of a class passes what it may lose,
and *passes* as soon as the upper bounds of both exclude that. After the last look, or
when the time is over, it passes too: only what is proven harmful is kept from a live trial, which
has stricter rules and the real data.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from backend.domain.modes import Arm
from backend.gate import Interval, class_intervals, t_interval
from backend.sandbox.outcome import SandboxOutcome, SandboxResult

ALPHA = 0.05
"""Chance, over all looks, that the index's bound misses; a class's bound misses as seldom."""
SLOWER_CLASS_LIMIT = 0.5
"""A class that is proven slower by more than this is badly hurt: the copy is small, and what a
class does there tells less of the original than the sum over all."""
GUARDED_TIME_SHARE = 0.03
_MOST_TOLD = 3
_ORDERS = (
    (Arm.INCUMBENT, Arm.CANDIDATE, Arm.CANDIDATE, Arm.INCUMBENT),
    (Arm.CANDIDATE, Arm.INCUMBENT, Arm.INCUMBENT, Arm.CANDIDATE),
)


class CandidateFailedError(Exception):
    """The candidate is harmful beyond doubt: it does not start, or the server crashed under it."""


class InterruptedCheckError(Exception):
    """The check was asked to stop, or its time is over."""


@dataclass(frozen=True)
class Pass:
    """What one pass over the statements took.

    Args:
        times_s: class → mean latency of its statements that ended well.
        broken: classes of which a statement failed or was stopped, and why.
    """

    times_s: Mapping[str, float]
    broken: Mapping[str, str] = field(default_factory=dict)


class Bench(Protocol):
    """A server on which statements can be run under either arm."""

    def run_pass(self, arm: Arm) -> Pass:
        """Switch to the arm and run every statement.

        Raises:
            CandidateFailedError: only under the candidate.
            InterruptedCheckError: no time is left, or it was asked to stop.
        """


@dataclass(frozen=True)
class ComparisonRule:
    """What is compared, and what the candidate may lose; set before the first pass.

    Args:
        shares: class → share of the original's time, summing to 1.
        reference_s: class → time under the incumbent before the first block, above 0.
        max_regression: relative loss of the index that is too much, such as 0.15.
        min_blocks, max_blocks: blocks before the first and at the last look.
        seed: of the orders.
    """

    shares: Mapping[str, float]
    reference_s: Mapping[str, float]
    max_regression: float
    min_blocks: int = 4
    max_blocks: int = 8
    seed: int = 0

    @property
    def level(self) -> float:
        """The chance of a miss at each look."""
        return ALPHA / (self.max_blocks - self.min_blocks + 1)


@dataclass
class _Evidence:
    blocks: list[float] = field(default_factory=list)
    classes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def compare(bench: Bench, rule: ComparisonRule) -> SandboxResult:
    """Measure blocks until the evidence decides, the last block is done, or time is over."""
    evidence, draw = _Evidence(), random.Random(rule.seed)
    suspects: Mapping[str, str] = {}
    why_ended = ""
    for _ in range(rule.max_blocks):
        try:
            order = draw.choice(_ORDERS)
            passes = [(arm, bench.run_pass(arm)) for arm in order]
        except CandidateFailedError as error:
            return _result(SandboxOutcome.FAILED, [str(error)], evidence, rule)
        except InterruptedCheckError as error:
            why_ended = str(error)
            break
        incumbent = [p for arm, p in passes if arm is Arm.INCUMBENT]
        candidate = [p for arm, p in passes if arm is Arm.CANDIDATE]
        broken = _broken(incumbent, candidate)
        if told := [f"class {key}: {why}" for key, why in broken.items() if key in suspects]:
            more = [f"and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
            return _result(SandboxOutcome.FAILED, told[:_MOST_TOLD] + more, evidence, rule)
        suspects = broken
        before, after = _times_s(incumbent), _times_s(candidate)
        both = sorted(before.keys() & after.keys())
        if not both and not suspects:
            return _result(SandboxOutcome.UNKNOWN, ["no statement ended well"], evidence, rule)
        if not both:
            continue
        for key in both:
            evidence.classes[key].append(math.log(after[key] / before[key]))
        evidence.blocks.append(math.log(_index(after, both, rule) / _index(before, both, rule)))
        if len(evidence.blocks) >= rule.min_blocks and (found := _look(evidence, rule)):
            return found
    return _last_look(evidence, rule, why_ended)


def _broken(incumbent: Sequence[Pass], candidate: Sequence[Pass]) -> dict[str, str]:
    """Classes that broke in every pass of the candidate, and in none of the incumbent, and how."""
    broken = set.intersection(*(set(p.broken) for p in candidate))
    broken -= {key for p in incumbent for key in p.broken}
    return {key: candidate[0].broken[key] for key in sorted(broken)}


def _times_s(passes: Sequence[Pass]) -> dict[str, float]:
    """Mean times of the classes that ended well in every pass."""
    seen = set.intersection(*(set(p.times_s) - set(p.broken) for p in passes))
    return {key: fmean(p.times_s[key] for p in passes) for key in seen}


def _index(times_s: Mapping[str, float], keys: Sequence[str], rule: ComparisonRule) -> float:
    return sum(rule.shares[key] * times_s[key] / rule.reference_s[key] for key in keys)


def _look(evidence: _Evidence, rule: ComparisonRule) -> SandboxResult | None:
    """Fail, pass, or None to go on."""
    if harm := _harm(evidence, rule):
        return _result(SandboxOutcome.FAILED, harm, evidence, rule)
    interval, guarded = _intervals(evidence, rule)
    if interval.high < rule.max_regression and all(
        found.high < SLOWER_CLASS_LIMIT for found in guarded.values()
    ):
        reason = f"not slower by {rule.max_regression:.0%}: {interval}"
        return _result(SandboxOutcome.PASSED, [reason], evidence, rule)
    return None


def _last_look(evidence: _Evidence, rule: ComparisonRule, why_ended: str) -> SandboxResult:
    """What stands when no more blocks come; fewer than ``min_blocks`` prove nothing."""
    blocks = len(evidence.blocks)
    if blocks < rule.min_blocks:
        told = f"{why_ended} after {blocks} of at least {rule.min_blocks} blocks"
        return _result(SandboxOutcome.UNKNOWN, [told], evidence, rule)
    interval, _ = _intervals(evidence, rule)
    reasons = [f"not proven slower by {rule.max_regression:.0%}: {interval}", why_ended]
    return _result(SandboxOutcome.PASSED, [r for r in reasons if r], evidence, rule)


def _harm(evidence: _Evidence, rule: ComparisonRule) -> list[str]:
    interval, guarded = _intervals(evidence, rule)
    harm = []
    if interval.low > rule.max_regression:
        harm.append(f"proven slower by more than {rule.max_regression:.0%}: {interval}")
    harm += [
        f"class {key} is badly hurt: {found}"
        for key, found in guarded.items()
        if found.low > SLOWER_CLASS_LIMIT
    ]
    return harm


def _intervals(
    evidence: _Evidence, rule: ComparisonRule
) -> tuple[Interval, Mapping[str, Interval]]:
    interval = t_interval(evidence.blocks, rule.level)
    # Many classes are looked at: each misses with its part of the chance.
    level = rule.level / max(len(evidence.classes), 1)
    found = class_intervals(evidence.classes, level)
    return interval, {
        key: own for key, own in found.items() if rule.shares[key] >= GUARDED_TIME_SHARE
    }


def _result(
    outcome: SandboxOutcome, reasons: Sequence[str], evidence: _Evidence, rule: ComparisonRule
) -> SandboxResult:
    enough = len(evidence.blocks) >= 2
    return SandboxResult(
        outcome,
        tuple(reasons),
        t_interval(evidence.blocks, rule.level) if enough else None,
        class_intervals(evidence.classes, rule.level) if enough else {},
        blocks=len(evidence.blocks),
    )
