"""What steered classes did in service: steered against default executions, at the clients.

Which execution of a steered class runs the default plan is drawn by lot (a small share), so the two
arms meet the same parameters and the same load, and nothing but the plan tells them apart. They are
compared hour by hour: were more default executions run in a slow hour, for whatever reason, that
hour would not count against them.

*Ratio* is that of mean latencies, steered ÷ default, in the manner of Mantel and Haenszel over the
hours in which both arms ran::

    ratio = sum(T_steered * n_default / n) / sum(T_default * n_steered / n)

with the total time T and the executions n of each hour. Only this is what clients wait for, so it
decides. *Typical* is the ratio of geometric means: what happens to most executions. It says
something where a heavy tail leaves the mean open, and may say the opposite of it.

Both come with an interval that holds at every look at once, however often one looks: the asymptotic
confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
theory and asymptotic confidence sequences", Annals of Statistics 52 (2024), on the log scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from backend.domain.steering import ClassKey, ServiceTimingRecord

ALPHA = 0.0002
"""Chance that an interval ever misses the truth, at either end, however often one looks."""
FEWEST_EXECUTIONS = 20
"""Of either arm, below which no ratio is told."""
BUCKETS_PER_OCTAVE = 8
LAST_BUCKET = 400
"""Its times are of 35 years."""

_TIGHTEST_AT = 0.5
"""Standard deviation of the log ratios for which the intervals are tightest."""
_WIDTH = math.log(2) / BUCKETS_PER_OCTAVE
_WITHIN_BUCKET = _WIDTH**2 / 12
"""Variance of the logarithm inside a bucket."""


@dataclass(frozen=True)
class Ratio:
    """A relative change (-0.5: half of the default plan's) in an interval [low, high].

    Where ``high`` is below 0 steered executions are proven faster, where ``low`` is above 0 slower.
    """

    effect: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmService:
    """What one arm did; times are of executions that ended well, None where there is none.

    Percentiles are read from the histogram, so they are at most 9 % off.
    """

    executions: int = 0
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    cancelled: int = 0
    failed: int = 0


@dataclass(frozen=True)
class ClassService:
    """A class under one hint set.

    Args:
        hint_set: its name.
        began_at, ended_at: of what follows.
        default, steered: the arms.
        ratio: of mean latencies, which decides; None: too few executions (see `hindrance`).
        typical: of geometric means; likewise.
    """

    hint_set: str
    began_at: datetime
    ended_at: datetime
    default: ArmService = field(default_factory=ArmService)
    steered: ArmService = field(default_factory=ArmService)
    ratio: Ratio | None = None
    typical: Ratio | None = None

    @property
    def hindrance(self) -> str:
        """Why there is no ratio, for people; empty where there is one."""
        if self.ratio is not None:
            return ""
        for name, arm in (("default", self.default), ("steered", self.steered)):
            if arm.executions < FEWEST_EXECUTIONS:
                return f"too few executions of the {name} plan ({arm.executions})"
        return "the two plans hardly ran in the same hours"


def service_latency(timings: Iterable[ServiceTimingRecord]) -> Mapping[ClassKey, ClassService]:
    """What each class did under the hint set that it had last.

    Args:
        timings: of any classes, in any order.
    """
    found: dict[ClassKey, list[ServiceTimingRecord]] = {}
    for timing in timings:
        found.setdefault(timing.key, []).append(timing)
    return {key: class_service(of_class) for key, of_class in found.items()}


def class_service(timings: Sequence[ServiceTimingRecord]) -> ClassService:
    """What one class did under the hint set that it had last.

    Args:
        timings: of the class, at least one.
    """
    hint_set = max(timings, key=lambda timing: timing.ended_at).hint_set
    timings = [timing for timing in timings if timing.hint_set == hint_set]
    service = ClassService(
        hint_set,
        began_at=min(timing.started_at for timing in timings),
        ended_at=max(timing.ended_at for timing in timings),
        default=_arm([timing for timing in timings if timing.arm == "default"]),
        steered=_arm([timing for timing in timings if timing.arm == "steered"]),
    )
    ratio, typical = ServiceHours(timings).compare()
    return replace(service, ratio=ratio, typical=typical)


def hourly(timings: Iterable[ServiceTimingRecord]) -> list[ServiceTimingRecord]:
    """The same timings, one record for each class, hint set, arm and hour (of UTC), in order."""
    groups: dict[tuple[int, ClassKey, str, str], list[ServiceTimingRecord]] = {}
    for timing in timings:
        group = (_hour(timing), timing.key, timing.hint_set, timing.arm)
        groups.setdefault(group, []).append(timing)
    return [merged(groups[group]) for group in sorted(groups)]


def merged(timings: Sequence[ServiceTimingRecord]) -> ServiceTimingRecord:
    """One record for several of the same class, hint set and arm; their number is lost alone.

    Raises:
        ValueError: there is none.
    """
    if not timings:
        raise ValueError("no timings to merge")
    buckets: dict[int, int] = {}
    for timing in timings:
        for bucket, executions in timing.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + executions
    return replace(
        timings[0],
        started_at=min(timing.started_at for timing in timings),
        ended_at=max(timing.ended_at for timing in timings),
        executions=sum(timing.executions for timing in timings),
        total_s=math.fsum(timing.total_s for timing in timings),
        cancelled=sum(timing.cancelled for timing in timings),
        failed=sum(timing.failed for timing in timings),
        buckets=buckets,
        id=None,
    )


def _arm(timings: Sequence[ServiceTimingRecord]) -> ArmService:
    if not timings:
        return ArmService()
    all_of_it = merged(timings)
    executions = all_of_it.executions
    p50_ms, p95_ms, p99_ms = (_quantile_ms(all_of_it.buckets, share) for share in (0.5, 0.95, 0.99))
    return ArmService(
        executions,
        all_of_it.total_s / executions * 1e3 if executions else None,
        p50_ms,
        p95_ms,
        p99_ms,
        all_of_it.cancelled,
        all_of_it.failed,
    )


def _quantile_ms(buckets: Mapping[int, int], share: float) -> float | None:
    """A quantile of a histogram, in milliseconds, interpolated on the log scale."""
    wanted = share * sum(buckets.values())
    below = 0
    for bucket, executions in sorted(buckets.items()):
        if executions and below + executions >= wanted:
            inside = (wanted - below) / executions
            return float(2 ** ((bucket + inside) / BUCKETS_PER_OCTAVE) * 1e-3)
        below += executions
    return None


# -- the comparison --------------------------------------------------------------------------

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ArmHours:
    """One arm, hour by hour: each array has one number an hour.

    ``executions`` ended well and took ``total_s`` together, ``lost`` were cancelled or failed. The
    other four are sums over the histogram: of the times (s), their squares, their logarithms and
    these squared.
    """

    executions: Numbers
    lost: Numbers
    total_s: Numbers
    first: Numbers
    second: Numbers
    log_first: Numbers
    log_second: Numbers

    def __getitem__(self, chosen: slice | NDArray[np.bool_]) -> ArmHours:
        return ArmHours(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


class ServiceHours:
    """Both arms of one class under one hint set, hour by hour, ready to be compared.

    Args:
        timings: of this class and hint set.
    """

    def __init__(self, timings: Iterable[ServiceTimingRecord]) -> None:
        timings = list(timings)
        self.hours: Sequence[int] = sorted({_hour(timing) for timing in timings})
        """In which it was executed, counted from 1970, ascending."""
        self.steered, self.default = (
            self._arm([timing for timing in timings if timing.arm == arm])
            for arm in ("steered", "default")
        )

    def _arm(self, timings: Iterable[ServiceTimingRecord]) -> ArmHours:
        sums = np.zeros((7, len(self.hours)))
        place = {hour: index for index, hour in enumerate(self.hours)}
        for timing in timings:
            counts = np.fromiter(timing.buckets.values(), np.float64, len(timing.buckets))
            buckets = np.fromiter(timing.buckets, np.float64, len(timing.buckets))
            logs = (buckets + 0.5) * _WIDTH + math.log(1e-6)
            times = np.exp(logs)
            sums[:, place[_hour(timing)]] += np.array(
                [
                    timing.executions,
                    timing.cancelled + timing.failed,
                    timing.total_s,
                    float(counts @ times),
                    float(counts @ times**2) * (1 + _WITHIN_BUCKET),
                    float(counts @ logs),
                    float(counts @ (logs**2 + _WITHIN_BUCKET)),
                ]
            )
        return ArmHours(*sums)

    def compare(self, first: int = 0) -> tuple[Ratio | None, Ratio | None]:
        """Ratio of means and of geometric means, from one of the hours on.

        Args:
            first: index of that hour.

        Returns:
            None and None where there are too few executions in hours in which both arms ran.
        """
        both = (self.steered.executions > 0) & (self.default.executions > 0)
        known = self.default[both]
        both[:first] = False
        steered, default = self.steered[both], self.default[both]
        if min(steered.executions.sum(), default.executions.sum()) < FEWEST_EXECUTIONS:
            return None, None
        return (
            _ratio_of_means(steered, default, known),
            _ratio_of_geometric_means(steered, default, known),
        )


def _hour(timing: ServiceTimingRecord) -> int:
    return int(timing.started_at.timestamp() // 3600)


def _ratio_of_means(steered: ArmHours, default: ArmHours, known: ArmHours) -> Ratio | None:
    n = steered.executions + default.executions
    ours = float(np.sum(steered.total_s * default.executions / n))
    theirs = float(np.sum(default.total_s * steered.executions / n))
    if ours <= 0 or theirs <= 0:
        return None
    ratio = ours / theirs
    # What each arm's mean would be in each hour, were the ratio the same in all of them.
    expected = (steered.total_s / ratio + default.total_s) / n
    parts = []
    for arm, other, mean, total in (
        (steered, default, expected * ratio, ours),
        (default, steered, expected, theirs),
    ):
        squares = arm.second - 2 * mean * arm.first + arm.executions * mean**2
        parts.append(_spread(arm, other, squares, mean**2, total))
    mean = known.first.sum() / known.executions.sum()
    spread = known.second.sum() / known.executions.sum() / mean**2 - 1
    return _interval(math.log(ratio), _standard_error(parts, spread))


def _ratio_of_geometric_means(steered: ArmHours, default: ArmHours, known: ArmHours) -> Ratio:
    n = steered.executions + default.executions
    weight = steered.executions * default.executions / n
    total = float(weight.sum())
    difference = steered.log_first / steered.executions - default.log_first / default.executions
    estimate = float(np.sum(weight * difference)) / total
    expected = (steered.log_first - steered.executions * estimate + default.log_first) / n
    parts = []
    for arm, other, mean in (
        (steered, default, expected + estimate),
        (default, steered, expected),
    ):
        squares = arm.log_second - 2 * mean * arm.log_first + arm.executions * mean**2
        parts.append(_spread(arm, other, squares, np.ones_like(mean), total))
    mean = known.log_first.sum() / known.executions.sum()
    spread = known.log_second.sum() / known.executions.sum() - mean**2
    return _interval(estimate, _standard_error(parts, spread))


def _spread(
    arm: ArmHours, other: ArmHours, squares: Numbers, unit: Numbers, total: float
) -> tuple[float, float]:
    """The variance of an arm's executions, and what a variance of 1 adds to the log ratio's.

    Args:
        squares: sum of its squared distances from what is expected, hour by hour.
        unit: the square that counts as a variance of 1.
        total: what the weighted sum over the hours is divided by.
    """
    n = arm.executions + other.executions
    weight = (other.executions / n / total) ** 2
    # An hour's expected mean is drawn towards its own executions: n / (n - 1), as for a variance.
    variance = float(np.sum(weight * np.maximum(squares, 0) * n / (n - 1)))
    added = float(np.sum(weight * arm.executions * unit))
    return variance / added, added


def _standard_error(parts: Sequence[tuple[float, float]], known: float) -> float:
    """Both arms count as spread as the wider one, and as the default plan ever was.

    A few executions out of a heavy tail look alike and short; at their own spread, they would
    prove the other arm slower.
    """
    spread = max(known, *(variance for variance, _ in parts))
    return math.sqrt(spread * sum(added for _, added in parts))


def _interval(log_ratio: float, standard_error: float) -> Ratio:
    # A normal mixture over the true log ratio, with the standard deviation _TIGHTEST_AT.
    known = (_TIGHTEST_AT / standard_error) ** 2
    width = standard_error * math.sqrt(2 * (1 + 1 / known) * math.log(math.sqrt(1 + known) / ALPHA))
    low, high = log_ratio - width, log_ratio + width
    return Ratio(math.expm1(log_ratio), math.expm1(low), math.expm1(min(high, 700.0)))
