"""The gate. Whether a trial's evidence is enough to change what is deployed.

Pure statistics on one log ratio a block. The rule is set before the trial:

* Looks after ``min_blocks`` ... ``max_blocks`` blocks; each spends an equal part of ``alpha``
  (Bonferroni over the looks), so the chance of a false promotion is at most ``alpha`` however
  often we look. The bound at a look is Student's one-sided interval of the mean log ratio, taken
  over the pairs that blocks consist of: eight pairs tell more of their own spread than four blocks.
* *Accept*: the upper bound is below 0, the mean gain at least ``min_improvement``, coverage and
  quality suffice, and every guarded class has an upper bound that does not pass
  ``max_class_regression``. A class that vanished under the candidate has none: it may have
  stopped, timed out, or have become too slow to be seen.
* *Reject*: the lower bound, at ``futility_alpha``, excludes a gain of ``min_improvement``, or a
  guarded class is proven worse by more than ``max_class_regression``.
* Otherwise go on; after ``max_blocks`` the trial is *inconclusive*.

A class's variance is shrunk towards the median of all classes' (the moderated t of Smyth, 2004,
doi:10.2202/1544-6115.1027): four blocks alone say too little about one class.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median, variance

from scipy import stats

from backend.config import Level1Section
from backend.domain.modes import Verdict

PRIOR_DEGREES = 6.0
"""Degrees of freedom, at the most, that the median of all classes lends to a class's variance.

Never more than the other classes have: a class that stands alone borrows nothing.
"""


@dataclass(frozen=True)
class GateSettings:
    """Bounds of the gate; see the settings of level1.

    ``futility_alpha`` is the chance that a trial of a true gain is given up as hopeless: it risks
    time, not the server, so it need not be as small as ``alpha``.
    """

    alpha: float = 0.05
    futility_alpha: float = 0.05
    min_improvement: float = 0.02
    min_blocks: int = 4
    max_blocks: int = 8
    max_class_regression: float = 0.10
    min_coverage: float = 0.7
    guarded_time_share: float = 0.03

    @classmethod
    def of(cls, level1: Level1Section) -> GateSettings:
        """The bounds that the settings name."""
        return cls(
            alpha=level1.alpha,
            min_improvement=level1.min_improvement,
            min_blocks=level1.min_blocks,
            max_blocks=level1.max_blocks,
            max_class_regression=level1.max_class_regression,
            min_coverage=level1.min_coverage,
        )

    @property
    def looks(self) -> int:
        """How often a trial is looked at, at the most."""
        return self.max_blocks - self.min_blocks + 1


@dataclass(frozen=True)
class Interval:
    """A relative effect (-0.25: a quarter lower) and its bounds."""

    effect: float
    low: float
    high: float

    @classmethod
    def of_log(cls, mean: float, margin: float) -> Interval:
        """From a mean log ratio and the half width of its interval."""
        return cls(math.expm1(mean), math.expm1(mean - margin), math.expm1(mean + margin))

    def __str__(self) -> str:
        return f"{self.effect:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


@dataclass(frozen=True)
class Judgement:
    """The state of the evidence: a verdict, or None to go on."""

    verdict: Verdict | None
    interval: Interval | None
    reasons: tuple[str, ...]
    class_intervals: Mapping[str, Interval] = field(default_factory=dict)


def t_interval(log_ratios: Sequence[float], alpha_one_sided: float) -> Interval:
    """Student's interval of the mean log ratio; each side misses with ``alpha_one_sided``.

    Raises:
        ValueError: fewer than two blocks.
    """
    n = len(log_ratios)
    if n < 2:
        raise ValueError(f"an interval needs at least 2 blocks, not {n}")
    standard_error = math.sqrt(_variance(log_ratios) / n)
    quantile = _t_quantile(1 - alpha_one_sided, n - 1)
    return Interval.of_log(fmean(log_ratios), quantile * standard_error)


@functools.lru_cache(maxsize=1024)
def _t_quantile(level: float, degrees: float) -> float:
    """Student's quantile; a rule has few of them, and each takes SciPy a tenth of a millisecond."""
    return float(stats.t.ppf(level, degrees))


def _variance(values: Sequence[float]) -> float:
    """The sample variance; NaN where a value is not finite, so that no bound is ever met."""
    return variance(values) if all(map(math.isfinite, values)) else math.nan


def class_intervals(
    log_ratios: Mapping[str, Sequence[float]],
    alpha_one_sided: float,
    *,
    typical: Callable[[Iterable[float]], float] = median,
) -> dict[str, Interval]:
    """Moderated intervals of the classes seen in at least two blocks.

    ``typical`` makes one variance of all classes'. The median bears a class that is out of line;
    of variances of two or three blocks it is far too low, their mean is not.
    """
    seen = {key: values for key, values in log_ratios.items() if len(values) >= 2}
    if not seen:
        return {}
    variances = {key: _variance(values) for key, values in seen.items()}
    prior = typical(variances.values())
    all_degrees = sum(len(values) - 1 for values in seen.values())
    intervals = {}
    for key, values in seen.items():
        own_degrees = len(values) - 1
        lent = min(PRIOR_DEGREES, all_degrees - own_degrees)
        degrees = own_degrees + lent
        moderated = (own_degrees * variances[key] + lent * prior) / degrees
        quantile = _t_quantile(1 - alpha_one_sided, degrees)
        intervals[key] = Interval.of_log(
            fmean(values), quantile * math.sqrt(moderated / len(values))
        )
    return intervals


def judge_promotion(
    block_log_ratios: Sequence[float],
    class_log_ratios: Mapping[str, Sequence[float]],
    time_shares: Mapping[str, float],
    coverage: float,
    settings: GateSettings,
    pair_log_ratios: Sequence[float] = (),
) -> Judgement:
    """Look at a promotion's blocks.

    Args:
        block_log_ratios: log(index under the candidate / under the incumbent), one a block.
        class_log_ratios: the same by query class.
        time_shares: each class's share of the reference's execution time, in [0, 1].
        coverage: share of the reference time that the compared classes hold.
        settings: the rule, set before the trial.
        pair_log_ratios: the same, one a pair of neighbouring windows; () takes the blocks.
    """
    blocks = len(block_log_ratios)
    last_look = blocks >= settings.max_blocks
    if blocks < 2:
        return Judgement(None, None, (f"{blocks} of at least {settings.min_blocks} blocks",))
    interval = _promotion_interval(
        block_log_ratios, pair_log_ratios, settings.alpha / settings.looks
    )
    futility = max(settings.alpha, settings.futility_alpha) / settings.looks
    at_best = _promotion_interval(block_log_ratios, pair_log_ratios, futility).low
    classes = class_intervals(class_log_ratios, 0.05)
    if blocks < settings.min_blocks:
        return Judgement(
            None, interval, (f"{blocks} of at least {settings.min_blocks} blocks",), classes
        )
    guarded = {
        key: found
        for key, found in classes.items()
        if time_shares.get(key, 0.0) >= settings.guarded_time_share
    }
    limit = settings.max_class_regression
    hurt = [key for key, found in guarded.items() if found.low > limit]
    # "Not below" in place of "above": what is no number fulfils neither.
    unclear = [key for key, found in guarded.items() if not found.high <= limit]
    unseen = [
        key
        for key, share in time_shares.items()
        if share >= settings.guarded_time_share and key not in classes
    ]

    if hurt:
        reason = f"{len(hurt)} query class(es) proven slower by more than {limit:.0%}"
        return Judgement(Verdict.REJECT, interval, (reason,), classes)
    if at_best > -settings.min_improvement:
        reason = (
            f"a gain of {settings.min_improvement:.0%} is excluded: "
            f"the change is at best {at_best:+.1%}"
        )
        return Judgement(Verdict.REJECT, interval, (reason,), classes)

    lacking = []
    if not interval.high < 0:
        lacking.append(f"the interval reaches {interval.high:+.1%}, it must stay below 0")
    if interval.effect > -settings.min_improvement:
        lacking.append(
            f"the mean gain of {-interval.effect:.1%} is below {settings.min_improvement:.0%}"
        )
    if not coverage >= settings.min_coverage:
        lacking.append(f"coverage {coverage:.0%} is below {settings.min_coverage:.0%}")
    if unclear:
        lacking.append(f"{len(unclear)} query class(es) may be slower by more than {limit:.0%}")
    if unseen:
        share = sum(time_shares[key] for key in unseen)
        lacking.append(
            f"{len(unseen)} query class(es) with {share:.0%} of the reference time ran too seldom "
            "in two blocks of both arms to be compared"
        )
    if not lacking:
        reason = f"latency index {interval} over {blocks} blocks"
        return Judgement(Verdict.ACCEPT, interval, (reason,), classes)
    verdict = Verdict.INCONCLUSIVE if last_look else None
    return Judgement(verdict, interval, tuple(lacking), classes)


def _promotion_interval(
    blocks: Sequence[float], pairs: Sequence[float], alpha_one_sided: float
) -> Interval:
    """Student's interval over the pairs, with the wider of both standard errors.

    Pairs tell more of their own spread, but those of a block may resemble each other; blocks may
    not, but four of them can lie close together by chance.
    """
    if len(pairs) <= len(blocks):
        return t_interval(blocks, alpha_one_sided)
    error = max(math.sqrt(_variance(some) / len(some)) for some in (blocks, pairs))
    quantile = _t_quantile(1 - alpha_one_sided, len(pairs) - 1)
    return Interval.of_log(fmean(pairs), quantile * error)


def judge_probation(
    block_log_ratios: Sequence[float],
    max_blocks: int,
    earlier: Sequence[float] = (),
    alpha: float = 0.05,
) -> Judgement:
    """Whether the deployed configuration still beats the former one.

    Accept as soon as it is clear after three blocks; proven worse: reject (undo). Where its own
    blocks are still unclear after ``max_blocks``, they are pooled with those of the promotion:
    accept when the pooled interval is below 0 and the probation's own mean too, else undo.
    Selection favours a promotion's blocks, so a probation that points the other way outweighs them.

    Args:
        block_log_ratios: log(deployed / former), one a block.
        max_blocks: blocks after which there is a verdict.
        earlier: the promotion's log ratios, one a block.
        alpha: chance, over all looks at its own blocks, that a side of the interval misses; the
            pooled look, taken once, has as much again.
    """
    blocks = len(block_log_ratios)
    if blocks < min(3, max_blocks) or blocks < 2:
        return Judgement(None, None, (f"{blocks} of at least 3 blocks",))
    level = alpha / max(max_blocks - 2, 1)
    interval = t_interval(block_log_ratios, level)
    if interval.high < 0:
        return Judgement(Verdict.ACCEPT, interval, (f"still better: {interval}",))
    if interval.low > 0:
        return Judgement(Verdict.REJECT, interval, (f"proven worse: {interval}",))
    if blocks < max_blocks:
        return Judgement(None, interval, (f"not clear yet: {interval}",))
    unclear = f"unclear at the end: {interval}"
    if not earlier:
        return Judgement(Verdict.REJECT, interval, (unclear,))
    pooled = t_interval([*earlier, *block_log_ratios], alpha)
    together = f"with the promotion's {len(earlier)} blocks {pooled}"
    if pooled.high < 0 and interval.effect < 0:
        return Judgement(Verdict.ACCEPT, interval, (f"still better {together}", unclear))
    return Judgement(Verdict.REJECT, interval, (unclear, together))


def judge_recheck(
    block_log_ratios: Sequence[float],
    max_blocks: int,
    undone_above: float,
    earlier: Sequence[float] = (),
    alpha: float = 0.05,
) -> Judgement:
    """Whether what has stood for a while still beats what it replaced.

    Looks from the third block on, with equal parts of ``alpha``. Accept (it stands): its interval
    lies below 0. Reject (it goes): its interval lies above ``undone_above``. After ``max_blocks``
    the blocks of earlier rechecks that were not clear are taken together with these for one more
    look. Else it is inconclusive and stands: what a promotion and a probation have proven is not
    given up for want of evidence.

    Args:
        block_log_ratios: log(what stands / what it replaced), one a block.
        max_blocks: blocks after which there is a verdict.
        undone_above: log ratio; -0.02 undoes what gains less than 2 %, 0.02 what costs more.
        earlier: log ratios of the earlier rechecks since the last clear one, one a block.
        alpha: chance, over all looks at its own blocks, that a side of the interval misses; the
            look at all of them has as much again.
    """
    blocks = len(block_log_ratios)
    if blocks < min(3, max_blocks) or blocks < 2:
        return Judgement(None, None, (f"{blocks} of at least 3 blocks",))
    interval = t_interval(block_log_ratios, alpha / max(max_blocks - 2, 1))
    judged = _still_better(interval, undone_above)
    if judged.verdict is None and blocks >= max_blocks:
        together = t_interval([*earlier, *block_log_ratios], alpha) if earlier else interval
        judged = _still_better(together, undone_above)
        if judged.verdict is None:
            return replace(judged, verdict=Verdict.INCONCLUSIVE)
    return judged


def _still_better(interval: Interval, undone_above: float) -> Judgement:
    if interval.high < 0:
        return Judgement(Verdict.ACCEPT, interval, (f"still better: {interval}",))
    if interval.low > math.expm1(undone_above):
        worse = "proven worse" if interval.low > 0 else "too small a gain is left"
        return Judgement(Verdict.REJECT, interval, (f"{worse}: {interval}",))
    return Judgement(None, interval, (f"not clear: {interval}",))


def judge_probe(log_ratio: float, promising_below: float) -> Judgement:
    """Whether a probe's single ratio goes beyond the noise of one window.

    Its interval has no width: one block says nothing about its own error.
    """
    interval = Interval.of_log(log_ratio, 0.0)
    reason = f"one window: {interval.effect:+.1%}"
    if log_ratio < promising_below:
        return Judgement(Verdict.ACCEPT, interval, (reason, "promising: worth a promotion"))
    return Judgement(Verdict.REJECT, interval, (reason, "not promising"))


def judge_final(
    block_log_ratios: Sequence[float],
    class_log_ratios: Mapping[str, Sequence[float]],
    max_blocks: int,
) -> Judgement:
    """The comparison at the end of a run: all its blocks, then one two-sided 95 % interval."""
    blocks = len(block_log_ratios)
    if blocks < max_blocks or blocks < 2:
        interval = t_interval(block_log_ratios, 0.025) if blocks > 1 else None
        return Judgement(None, interval, (f"{blocks} of {max_blocks} blocks",))
    interval = t_interval(block_log_ratios, 0.025)
    if interval.high < 0:
        verdict = Verdict.ACCEPT
    elif interval.low > 0:
        verdict = Verdict.REJECT
    else:
        verdict = Verdict.INCONCLUSIVE
    return Judgement(verdict, interval, (str(interval),), class_intervals(class_log_ratios, 0.025))


def trial_alpha(nth_promotion_today: int, alpha: float, daily_alpha: float) -> float:
    """The allowance of a day's nth promotion trial (from 1), one-sided.

    ``daily_alpha / (n (n + 1))`` sums to ``daily_alpha``, so the chance of any false promotion
    in a day stays below it whatever their number.

    Raises:
        ValueError: n is below 1.
    """
    n = nth_promotion_today
    if n < 1:
        raise ValueError(f"the first promotion of a day is number 1, not {n}")
    return min(alpha, daily_alpha / (n * (n + 1)))
