"""What a trial came to, and which configuration its method leaves behind.

A measurement is worth its quality: with a weight of its quality, and what is missing to 1 counted
as an index of 1, the defaults'. So a window that was spoilt from outside makes no lucky winner.
Peers know of no quality: for them each measurement counts as whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from backend.domain.knobs import KnobConfig
from backend.sample_filter import Reference
from benchmarks.harness.windows import Measured, ratio_to

CENSORED_FROM = 1.15
"""What a time-out or a crash is told as at least: the index at which the product stops a trial."""


@dataclass(frozen=True)
class Outcome:
    """What trying a configuration came to.

    ``quality``: in [0, 1], the mean over the windows that ``objective`` is made of, as a probe's.
    ``drift``: log ratio of the defaults just after to the defaults just before; its spread is the
    noise of two windows.
    """

    objective: float
    quality: float
    coverage: float
    censored: bool
    reason: str = ""
    drift: float | None = None


Tried = Sequence[tuple[KnobConfig, Outcome]]
"""Configurations with what trying each came to, in order; one may be in it more than once."""


def judge(
    candidate: Measured | None,
    defaults: Sequence[Measured],
    shares: Reference,
    timeouts: int,
    crash: str,
) -> Outcome:
    """What a trial's windows say; a time-out or a crash leaves a lower bound."""
    if candidate is None:
        return Outcome(CENSORED_FROM, 1.0, 0.0, True, crash or "it could not be measured")
    found = ratio_to(candidate, defaults, shares)
    if found is None:
        return Outcome(CENSORED_FROM, 1.0, 0.0, True, "no statement came back often enough")
    objective, coverage = math.exp(found[0]), found[1]
    if timeouts > 0:
        reason = f"{timeouts} statements timed out"
        return Outcome(max(objective, CENSORED_FROM), 1.0, coverage, True, reason)
    qualities = [candidate.quality(shares, defaults[0]), *(d.quality(shares) for d in defaults)]
    quality = fmean(each.value for each in qualities)
    reasons = dict.fromkeys(reason for each in qualities for reason in each.reasons)
    return Outcome(objective, quality, coverage, False, "; ".join(reasons))


def as_whole(tried: Tried) -> Tried:
    """The same measurements, each counting as whole."""
    return [(config, replace(outcome, quality=1.0)) for config, outcome in tried]


def measured_indexes(tried: Tried, defaults: KnobConfig) -> dict[KnobConfig, float]:
    """The index of each configuration by its own measurements, worth their quality.

    Of several the mean of the logarithms, weighted; where the weights add up to less than 1, what
    is missing counts as 1, the defaults' index. A configuration that was ever censored does not
    come into question, nor do the defaults.
    """
    barred = {defaults, *(config for config, outcome in tried if outcome.censored)}
    measured: dict[KnobConfig, list[Outcome]] = {}
    for config, outcome in tried:
        if config not in barred:
            measured.setdefault(config, []).append(outcome)
    return {config: _worth(outcomes) for config, outcomes in measured.items()}


def _worth(outcomes: Sequence[Outcome]) -> float:
    """The index that measurements of one configuration are worth."""
    weight = sum(outcome.quality for outcome in outcomes)
    total = sum(outcome.quality * math.log(outcome.objective) for outcome in outcomes)
    return math.exp(total / max(1.0, weight))


def lowest_measured(tried: Tried, defaults: KnobConfig, most: int) -> list[KnobConfig]:
    """The configurations that measured better than the defaults, the lowest first."""
    found = measured_indexes(tried, defaults)
    return sorted((c for c, index in found.items() if index < 1.0), key=lambda c: found[c])[:most]


def best_measured(tried: Tried, defaults: KnobConfig) -> tuple[KnobConfig, float]:
    """The configuration with the lowest index, and that index; the defaults if none is below 1."""
    found = {defaults: 1.0, **measured_indexes(tried, defaults)}
    best = min(found, key=lambda config: found[config])
    return best, found[best]


def next_to_confirm(best: Sequence[KnobConfig], again: Tried) -> KnobConfig:
    """Which of these is measured again next: the one with the least quality so far, in order.

    So one whose window was spoilt is soon looked at once more. ``best`` holds at least one.
    """
    seen = dict.fromkeys(best, 0.0)
    for config, outcome in again:
        seen[config] += outcome.quality
    return min(best, key=lambda config: seen[config])
