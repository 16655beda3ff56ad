"""When a hint set counts as proven faster: the rule, set before the first run. Pure statistics.

An observation is the log ratio of a pair of runs (hinted / default) of one statement. Statements
take turns, so each has as many pairs. At most three looks, geometrically spaced from ``MIN_PAIRS``
(two a statement at least) to ``max_pairs``, spend an equal part of ``alpha`` each (Bonferroni). A
hint set is *proven* at a look when all of this holds:

* It is faster, shown in one of two ways. *On average*: the wider of two one-sided Student intervals
  of the mean log ratio lies below 0, that over all pairs and that over the statements' means. Pairs
  of one statement resemble each other, so the latter says how far the gain reaches beyond the
  statements that were tried. *Each by itself*: the upper bound of every one of the *S* statements
  lies below 0, its variance shrunk towards the others'; at a level whose *S*-th power is that of
  the look, and no weaker than ``GUARD_ALPHA``. (However effects that add up to nothing are
  distributed, all are proven with at most that chance: the normal distribution is log-concave.)
  It says nothing of others; where a hint set pays for one half of a class's parameters and harms
  the other half, *S* statements drawn by lot are all of the former with a chance of 1 in 2^S.
* The mean gain is at least ``min_gain``, and so is that of the summed times: what saves a fifth of
  the short statements and costs a fifth of a long one does not pay.
* No statement may be slower by more than ``MAX_SLOWDOWN`` and the tolerated time: its upper bound
  at ``GUARD_ALPHA`` stays below. Where only this is lacking, those statements get more pairs.

It is *not proven*, and that ends it early, when a statement is proven slower by more than that, or
a gain of ``min_gain`` is excluded (at ``FUTILITY_ALPHA``, which risks time alone). Simulations of
chances and powers: docs/steering-live.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean

from backend.gate import Interval, class_intervals, t_interval

MIN_PAIRS = 8
MAX_SLOWDOWN = 0.10
"""Of a single statement, relative to its default plan."""
TOLERATED_S = 1e-3
"""A statement may lose this much, or a tenth of what the statements take on average if that is
less: a tenth of a very short statement among longer ones is no harm."""
FUTILITY_ALPHA = 0.05
GUARD_ALPHA = 0.05
_FLOOR_S = 1e-6


@dataclass
class StatementTimes:
    """What the pairs of one statement took, in seconds.

    Where the default plan timed out, its time is the time-out: a lower bound, so the pair's log
    ratio is an upper bound.
    """

    default_s: list[float] = field(default_factory=list)
    steered_s: list[float] = field(default_factory=list)

    @property
    def log_ratios(self) -> list[float]:
        """One a pair: ln(hinted / default)."""
        return [
            math.log(max(steered, _FLOOR_S) / max(default, _FLOOR_S))
            for default, steered in zip(self.default_s, self.steered_s, strict=True)
        ]


@dataclass(frozen=True)
class Look:
    """What a look at the evidence found.

    Args:
        proven: True, False, or None to go on.
        reason: for people.
        interval: of the relative change of the time, one-sided bounds at the rule's confidence.
        unclear: indices of the statements that alone stand between it and a proof, since they may
            be slower: only these need more pairs. When they have twice as many,
            :meth:`VerificationRule.look_again` judges.
    """

    proven: bool | None
    reason: str
    interval: Interval
    unclear: tuple[int, ...] = ()


@dataclass(frozen=True)
class VerificationRule:
    """The rule for so many statements.

    Args:
        statements: that are compared, at least 1.
        min_gain: smallest relative gain that is worth serving, in (0, 1).
        alpha: chance of a false proof, over all looks.
        max_pairs: pairs at which it ends; rounded down to whole rounds, but never below two.
    """

    statements: int
    min_gain: float
    alpha: float
    max_pairs: int

    def __post_init__(self) -> None:
        if self.statements < 1:
            raise ValueError("a verification needs a statement")
        if not 0 < self.min_gain < 1 or not 0 < self.alpha < 0.5:
            raise ValueError(f"min_gain {self.min_gain} in (0, 1), alpha {self.alpha} in (0, 0.5)")
        if self.max_pairs < MIN_PAIRS:
            raise ValueError(f"max_pairs = {self.max_pairs} is below {MIN_PAIRS}")

    @property
    def look_rounds(self) -> tuple[int, ...]:
        """After how many rounds (one pair of each statement) the evidence is looked at."""
        first = max(2, math.ceil(MIN_PAIRS / self.statements))
        last = max(first, self.max_pairs // self.statements)
        return tuple(sorted({first, round(math.sqrt(first * last)), last}))

    @property
    def confidence(self) -> float:
        """Of each one-sided bound."""
        return 1 - self.alpha / len(self.look_rounds)

    def look(self, times: Sequence[StatementTimes]) -> Look:
        """Judge complete rounds.

        Args:
            times: of each statement, of all as many pairs: those of one of ``look_rounds``.
        """
        looks = self.look_rounds
        level = self.alpha / len(looks)
        logs = {str(index): statement.log_ratios for index, statement in enumerate(times)}
        pairs = list(chain.from_iterable(logs.values()))
        interval, proof = _proof(logs, pairs, level)
        slower = _Slower.of(times)
        if slower.proven:
            return Look(False, slower.proven, interval)
        at_best = t_interval(pairs, max(FUTILITY_ALPHA, self.alpha) / len(looks)).low
        if at_best > -self.min_gain:
            reason = (
                f"a gain of {self.min_gain:.0%} is excluded after {len(pairs)} pairs: "
                f"the change is at best {at_best:+.1%}"
            )
            return Look(False, reason, interval)
        lacking = self._lacking(times)
        if not interval.high < 0:
            lacking.insert(0, f"the change of {interval} may be none")
        is_last = len(times[0].default_s) >= looks[-1]
        if lacking:
            lacking += [slower.possible] if slower.unclear else []
            reason = f"unclear after {len(pairs)} pairs: {'; '.join(lacking)}"
            return Look(False if is_last else None, reason, interval)
        reason = f"{interval} after {len(pairs)} pairs of {len(times)} statement(s), {proof}"
        if slower.unclear:
            return Look(None, f"{reason}; {slower.possible}", interval, slower.unclear)
        return Look(True, reason, interval)

    def look_again(self, times: Sequence[StatementTimes], found: Look) -> Look:
        """Judge once more what was faster at a look, but for statements that were unclear.

        Args:
            times: of each statement; those of ``found.unclear`` have more pairs now.
            found: the look. What it showed stays the evidence: it was taken by the rule.
        """
        slower = _Slower.of(times)
        lacking = [slower.proven] if slower.proven else self._lacking(times)
        if lacking:
            return Look(False, "; ".join(lacking), found.interval)
        if not slower.unclear:
            return Look(True, found.reason.split("; ")[0], found.interval)
        pairs = sum(len(statement.default_s) for statement in times)
        if pairs >= 2 * self.max_pairs:
            return Look(False, f"unclear after {pairs} pairs: {slower.possible}", found.interval)
        return Look(None, found.reason, found.interval, slower.unclear)

    def _lacking(self, times: Sequence[StatementTimes]) -> list[str]:
        """What is missing from the gain, each statement weighing as much as any other."""
        lacking = []
        gain = -math.expm1(fmean(fmean(statement.log_ratios) for statement in times))
        if not gain >= self.min_gain:
            lacking.append(f"the mean gain of {gain:.1%} is below {self.min_gain:.0%}")
        default_s = sum(fmean(statement.default_s) for statement in times)
        steered_s = sum(fmean(statement.steered_s) for statement in times)
        if not steered_s <= (1 - self.min_gain) * default_s:
            saved = 1 - steered_s / max(default_s, _FLOOR_S)
            lacking.append(f"of the summed time only {saved:.1%} is saved")
        return lacking


def _proof(
    logs: Mapping[str, Sequence[float]], pairs: Sequence[float], level: float
) -> tuple[Interval, str]:
    """The interval that a proof rests on, and what kind of proof it is."""
    over_pairs = t_interval(pairs, level)
    if len(logs) == 1:
        return over_pairs, "the only one there was"
    over_means = t_interval([fmean(own) for own in logs.values()], level)
    wider = max(over_pairs, over_means, key=lambda interval: interval.high)
    each_level = min(level ** (1 / len(logs)), GUARD_ALPHA)
    each = class_intervals(logs, each_level, typical=fmean).values()
    if wider.high < 0 or not all(own.high < 0 for own in each):
        return wider, "on average"
    # The mean of the statements' bounds bounds their mean, however their errors hang together.
    low = math.expm1(fmean(math.log1p(own.low) for own in each))
    high = math.expm1(fmean(math.log1p(own.high) for own in each))
    return Interval(wider.effect, low, high), "each by itself"


@dataclass(frozen=True)
class _Slower:
    """Statements that are slower under the hint set by more than they may be.

    Args:
        proven: which are, in words; empty for none.
        unclear: indices of those that may be, and ``possible``: in words.
    """

    proven: str
    unclear: tuple[int, ...]
    possible: str

    @classmethod
    def of(cls, times: Sequence[StatementTimes]) -> _Slower:
        logs = {str(index): statement.log_ratios for index, statement in enumerate(times)}
        # The median of variances of two pairs each would be far too low.
        intervals = class_intervals(logs, GUARD_ALPHA, typical=fmean)
        default_s = [fmean(statement.default_s) for statement in times]
        tolerated_s = min(TOLERATED_S, MAX_SLOWDOWN * fmean(default_s))
        proven: dict[int, float] = {}
        unclear: dict[int, float] = {}
        for index, own_default_s in enumerate(default_s):
            own = intervals[str(index)]
            lost_s = fmean(times[index].steered_s) - own_default_s
            if own.low > MAX_SLOWDOWN and lost_s > tolerated_s:
                proven[index] = own.effect
            # "Not below" in place of "above": what is no number fulfils neither.
            elif not own.high <= MAX_SLOWDOWN and not own.high * own_default_s <= tolerated_s:
                unclear[index] = own.high
        of = f"{{}} of {len(times)} statement(s) {{}} slower by {{}}{{:.0%}}"
        return cls(
            of.format(len(proven), "proven", "", max(proven.values())) if proven else "",
            tuple(unclear),
            of.format(len(unclear), "may be", "up to ", max(unclear.values())) if unclear else "",
        )
