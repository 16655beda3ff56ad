"""When a hint set counts as proven faster: the rule, set before the first run. Pure statistics.

An observation is the log ratio of a pair of runs (hinted / default) of one statement. Statements
take turns, so each has as many pairs. At most three looks, geometrically spaced from ``MIN_PAIRS``
(two a statement at least) to ``max_pairs``, spend an equal part of ``alpha`` each (Bonferroni). A
hint set is *proven* at a look when all of this holds:

* It is faster, shown in one of two ways. *On average*: the wider of two one-sided Student intervals
  of the mean log ratio lies below 0, that over all pairs and that over the statements' means. Pairs
  of one statement resemble each other, so the latter says how far the gain reaches beyond the
  statements that were tried. *Each by itself*: the upper bound of every statement lies below 0,
  its variance shrunk towards the others'. That is a stronger finding, and the only one that a
  single statement allows; where a hint set pays for half of a class's parameters and harms the
  other half, *S* statements drawn by chance are all among the former with 1 in 2^S.
* The mean gain is at least ``min_gain``, and so is that of the summed times: what saves a fifth of
  the short statements and costs a fifth of a long one does not pay.
* No statement may be slower by more than ``MAX_SLOWDOWN`` and the tolerated time.

It is *not proven*, and that ends it early, when a statement is proven slower by more than that, or
a gain of ``min_gain`` is excluded (at ``FUTILITY_ALPHA``, which risks time alone).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean

from backend.policy_learner import Interval, class_intervals, t_interval

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
    """What the pairs of one statement took, in seconds: mean latency of each pair's runs.

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
    """

    proven: bool | None
    reason: str
    interval: Interval


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
            times: of each statement, two pairs or more, of all the same number.
        """
        looks = self.look_rounds
        level = self.alpha / len(looks)
        logs = {str(index): statement.log_ratios for index, statement in enumerate(times)}
        pairs = list(chain.from_iterable(logs.values()))
        interval, proof = self._proof(logs, pairs, level)
        harmed, unclear = _guard(times, class_intervals(logs, GUARD_ALPHA))
        if harmed:
            return Look(False, f"{_some(harmed)} proven slower by {harmed[0][1]:+.0%}", interval)
        at_best = t_interval(pairs, max(FUTILITY_ALPHA, self.alpha) / len(looks)).low
        if at_best > -self.min_gain:
            reason = f"a gain of {self.min_gain:.0%} is excluded: the change is at best {at_best:+.1%}"
            return Look(False, f"{reason} after {len(pairs)} pairs", interval)
        lacking = self._lacking(times, interval)
        if unclear:
            lacking.append(f"{_some(unclear)} may be slower by up to {unclear[0][1]:+.0%}")
        found = f"{-interval.effect:.0%} faster, {interval}, {len(pairs)} pairs"
        if not lacking:
            return Look(True, f"{found} of {len(times)} statement(s); {proof}", interval)
        is_last = len(times[0].default_s) >= looks[-1]
        reason = f"unclear after {len(pairs)} pairs: {'; '.join(lacking)}"
        return Look(False if is_last else None, reason, interval)

    def _proof(
        self, logs: dict[str, list[float]], pairs: list[float], level: float
    ) -> tuple[Interval, str]:
        """The interval that the proof rests on, and what kind of proof it is."""
        if len(logs) == 1:
            return t_interval(pairs, level), "one statement is all that was tried"
        over_means = t_interval([fmean(own) for own in logs.values()], level)
        wider = max(t_interval(pairs, level), over_means, key=lambda found: found.high)
        each = class_intervals(logs, level).values()
        if wider.high < 0 or not all(own.high < 0 for own in each):
            return wider, "on average"
        # The mean of the statements' bounds bounds their mean, however their errors hang together.
        low, high = (math.expm1(fmean(math.log1p(b) for b in bounds)) for bounds in zip(
            *((own.low, own.high) for own in each), strict=True)
        )  # fmt: skip
        return Interval(wider.effect, low, high), "each statement by itself"

    def _lacking(self, times: Sequence[StatementTimes], interval: Interval) -> list[str]:
        lacking = []
        if not interval.high < 0:
            lacking.append(f"the interval {interval} reaches above 0")
        if not -interval.effect >= self.min_gain:
            lacking.append(f"the mean gain {-interval.effect:.1%} is below {self.min_gain:.0%}")
        default_s = sum(chain.from_iterable(statement.default_s for statement in times))
        steered_s = sum(chain.from_iterable(statement.steered_s for statement in times))
        if not steered_s <= (1 - self.min_gain) * default_s:
            saved = 1 - steered_s / max(default_s, _FLOOR_S)
            lacking.append(f"of the summed time {saved:.1%} is saved")
        return lacking


Found = tuple[int, float]
"""A statement's number, from 1, and a relative slowdown."""


def _guard(
    times: Sequence[StatementTimes], intervals: dict[str, Interval]
) -> tuple[list[Found], list[Found]]:
    """Statements that are proven slower, and those that may be; the worst first."""
    default_s = [fmean(statement.default_s) for statement in times]
    tolerated_s = min(TOLERATED_S, MAX_SLOWDOWN * fmean(default_s))
    harmed, unclear = [], []
    for index, (statement, own_default_s) in enumerate(zip(times, default_s, strict=True)):
        own = intervals[str(index)]
        lost_s = fmean(statement.steered_s) - own_default_s
        if own.low > MAX_SLOWDOWN and lost_s > tolerated_s:
            harmed.append((index + 1, own.effect))
        # "Not below" in place of "above": what is no number fulfils neither.
        elif not own.high <= MAX_SLOWDOWN and not own.high * own_default_s <= tolerated_s:
            unclear.append((index + 1, own.high))
    return (
        sorted(harmed, key=lambda found: -found[1]),
        sorted(unclear, key=lambda found: -found[1]),
    )


def _some(found: Sequence[Found]) -> str:
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"statement {found[0][0]}{more}"
