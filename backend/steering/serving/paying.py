"""Does a hint set that is served still pay? Pure: timings in, a reason to withdraw it out.

A bad time is looked for from every hour of the last day, and from every midnight before it, until
now; so a good week does not hide a bad hour. Each of these looks has its own small chance of a
false alarm, `service_latency.ALPHA`, which holds however often one looks; together they come to
less than 1 % for a class and a day.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from backend.domain.service_latency import ALPHA, Ratio, ServiceHours, class_service
from backend.domain.steering import HintEvidence, ServiceTimingRecord

LOOK_BACK = timedelta(days=7)
"""Older timings do not count."""
PROBATION_EXECUTIONS = 2000
"""Of the default plan, after which a gain is either proven or not worth waiting for."""
LEVEL_EXECUTIONS = 30
"""Steered ones, from which on their level says something."""
MUCH_SLOWER, MUCH_SLOWER_BY_MS = 2.0, 10.0
"""Times as slow as when it was verified, and by so much: to be verified again, where nothing else
can be said. What clients add to a short statement is no reason."""
COMPARABLE_AFTER = timedelta(hours=1)
"""So long after it was verified, most classes have had default executions to be compared with."""

_ODDS = np.array((2.0, 5.0, 20.0))
"""How much more often steered executions may be lost: the alternatives that are looked for."""


@dataclass(frozen=True)
class Withdrawal:
    """Why a hint set may no longer be served.

    Args:
        reason: for people.
        check_again: nothing was proven; the class is to be verified anew.
    """

    reason: str
    check_again: bool = False


def since_verified(
    timings: Iterable[ServiceTimingRecord], evidence: HintEvidence, now: datetime
) -> list[ServiceTimingRecord]:
    """The timings that count: of this hint set, since it was verified, in the look-back."""
    begin = max(evidence.verified_at, now - LOOK_BACK)
    return [t for t in timings if t.hint_set == evidence.hint_set and t.started_at >= begin]


def judge(
    evidence: HintEvidence,
    timings: Sequence[ServiceTimingRecord],
    *,
    min_gain: float,
    load: float = 1.0,
) -> Withdrawal | None:
    """Whether a hint set must go; None: it stays.

    1. Proven slower than the default plan, from any of the looks on: the mean is; or most
       executions are, and the mean is not known to be faster.
    2. Cancelled or failed more often than the default plan, likewise.
    3. No longer proven faster over all that counts, although there were enough executions of the
       default plan to prove a gain of ``min_gain``.
    4. Too few of those to say: much slower than when it was verified, or most executions lost.

    Args:
        evidence: of the hint set that is served.
        timings: those that count (`since_verified`).
        min_gain: smallest relative gain that is worth steering, in (0, 1).
        load: how many times slower than when they were verified other classes are by now.
    """
    if not timings:
        return None
    hours = ServiceHours(timings)
    ratio, typical = hours.compare()
    return (
        _slower(hours)
        or _lost(hours)
        or (_unproven(hours, ratio, typical, min_gain) if ratio else None)
        or (_changed(evidence, timings, load) if ratio is None else None)
    )


def level(evidence: HintEvidence, timings: Sequence[ServiceTimingRecord]) -> float | None:
    """How many times slower the newest steered executions are than when it was verified.

    The lesser of mean and median, so that neither a tail nor a few slow statements make it.

    Args:
        evidence: of the hint set that is served.
        timings: those that count (`since_verified`).

    Returns:
        None where there are too few.
    """
    newest = _newest(timings)
    if not newest:  # executions of the default plan may be reported first
        return None
    steered = class_service(newest).steered
    if steered.executions < LEVEL_EXECUTIONS:
        return None
    if steered.mean_ms is None or steered.p50_ms is None:
        return None
    return min(steered.mean_ms, steered.p50_ms) / max(evidence.steered_ms, 1e-3)


def _newest(timings: Sequence[ServiceTimingRecord]) -> list[ServiceTimingRecord]:
    """The newest steered timings, as few as have LEVEL_EXECUTIONS."""
    steered = sorted(
        (timing for timing in timings if timing.arm == "steered"),
        key=lambda timing: timing.ended_at,
        reverse=True,
    )
    chosen: list[ServiceTimingRecord] = []
    attempts = 0
    for timing in steered:
        if attempts >= LEVEL_EXECUTIONS:
            break
        chosen.append(timing)
        attempts += timing.executions + timing.cancelled + timing.failed
    return chosen


def _looks(hours: ServiceHours) -> Iterator[int]:
    newest = hours.hours[-1]
    for index, hour in enumerate(hours.hours):
        if index == 0 or newest - hour < 24 or hour % 24 == 0:
            yield index


def _slower(hours: ServiceHours) -> Withdrawal | None:
    for first in _looks(hours):
        ratio, typical = hours.compare(first)
        if ratio is None:
            return None  # later looks have fewer executions still
        proof = ratio if ratio.low > 0 else typical
        if proof is not None and proof.low > 0 and ratio.effect > 0:
            what = "" if proof is ratio else "most of its executions are "
            return Withdrawal(
                f"{what}proven slower than the default plan: {_told(proof)}, {_over(hours, first)}"
            )
    return None


def _lost(hours: ServiceHours) -> Withdrawal | None:
    """A mixture of likelihood ratios: which arm each lost execution fell into.

    By chance it is the default arm with its share of that hour's attempts. An e-process: it passes
    2 / ALPHA with a chance of ALPHA / 2 at most, however often one looks (Ville's inequality).
    """
    steered, default = hours.steered, hours.default
    ours, theirs = steered.executions + steered.lost, default.executions + default.lost
    share = theirs / np.maximum(ours + theirs, 1)
    odds = _ODDS[:, np.newaxis]
    logs = steered.lost * np.log(odds) - (steered.lost + default.lost) * np.log(
        share + odds * (1 - share)
    )
    since: Any = np.cumsum(logs[:, ::-1], axis=1)[:, ::-1]
    evidence = np.logaddexp.reduce(since, axis=0) - math.log(len(_ODDS))
    for first in _looks(hours):
        if evidence[first] > math.log(2 / ALPHA):
            return Withdrawal(
                "cancelled or failed more often than the default plan: "
                f"{steered.lost[first:].sum():.0f} of {ours[first:].sum():.0f} executions against "
                f"{default.lost[first:].sum():.0f} of {theirs[first:].sum():.0f}"
            )
    return None


def _unproven(
    hours: ServiceHours, ratio: Ratio, typical: Ratio | None, min_gain: float
) -> Withdrawal | None:
    if ratio.high < 0 or (typical is not None and typical.high < 0 and ratio.effect < 0):
        return None
    half_width = math.log1p(ratio.high) - math.log1p(ratio.effect)
    enough = float(hours.default.executions.sum()) >= PROBATION_EXECUTIONS
    if half_width > -math.log1p(-min_gain) and not enough:
        return None
    return Withdrawal(
        f"no longer proven faster than the default plan: {_told(ratio)}, {_over(hours, 0)}"
    )


def _changed(
    evidence: HintEvidence, timings: Sequence[ServiceTimingRecord], load: float
) -> Withdrawal | None:
    newest = _newest(timings)
    ended_well = sum(timing.executions for timing in newest)
    lost = sum(timing.cancelled + timing.failed for timing in newest)
    if ended_well + lost >= LEVEL_EXECUTIONS and lost > ended_well:
        return Withdrawal(
            f"to be verified again: {lost} of its last {ended_well + lost} executions were "
            "cancelled or failed, and too few of the default plan to compare",
            check_again=True,
        )
    now = level(evidence, timings)
    served_for = max(timing.ended_at for timing in timings) - evidence.verified_at
    if (
        now is not None
        and served_for >= COMPARABLE_AFTER
        and now > MUCH_SLOWER * max(load, 1.0)
        and (now - 1) * evidence.steered_ms > MUCH_SLOWER_BY_MS
    ):
        return Withdrawal(
            f"to be verified again: its executions take {now:.1f} times as long as when it was "
            f"verified ({evidence.steered_ms:.3g} ms), and too few of the default plan to compare",
            check_again=True,
        )
    return None


def _told(ratio: Ratio) -> str:
    return f"{ratio.effect:+.0%} (between {ratio.low:+.0%} and {ratio.high:+.0%})"


def _over(hours: ServiceHours, first: int) -> str:
    executions = (arm.executions[first:].sum() for arm in (hours.steered, hours.default))
    span = hours.hours[-1] - hours.hours[first] + 1
    return "{:.0f} steered and {:.0f} default executions of the last {} h".format(*executions, span)
