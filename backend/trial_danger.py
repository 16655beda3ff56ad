"""Whether a window under a trial's watched arm is too dangerous to go on, and what excuses it.

The safety monitor judges a window by itself. Here its alarm meets what the trial has measured: a
load that rose, a disturbance, chance. What is excused is taken off the server all the same; only
nothing is proven by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backend.domain.metrics import MetricsWindow
from backend.domain.modes import Arm, SafetyAction
from backend.domain.safety import SafetyVerdict
from backend.sample_filter import (
    COMPARABLE,
    latency_index,
    load_distance,
    load_factor,
    load_profile,
    offers_more,
    outside_events,
    paired_log_ratio,
)
from backend.trial_evidence import MeasuredWindow, TrialPlan

CERTAIN = 3.0
"""Past so many times the safety monitor's limit for the latency a single window tells enough."""

Halves = tuple[MetricsWindow, MetricsWindow]
"""A window's first and second half."""


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
class Alarm:
    """The safety monitor wants the watched arm off the server.

    Attributes:
        reasons: its own.
        excuse: why that proves nothing against the arm; "" where it does.
        log_ratio: log of the window's latency index against the trial's other arm; None where
            there is no such window yet.
    """

    reasons: tuple[str, ...]
    excuse: str
    log_ratio: float | None


class Danger:
    """Judges the windows of a trial's watched arm.

    Args:
        plan: of the trial.
        judge_safety: the safety monitor.
    """

    def __init__(self, plan: TrialPlan, judge_safety: SafetyJudge) -> None:
        self._plan, self._judge_safety = plan, judge_safety
        self._costs_ms = plan.shares.costs_ms

    def judge(
        self,
        measured: MeasuredWindow,
        halves: Halves,
        earlier: Sequence[MetricsWindow],
        others: Sequence[MetricsWindow],
    ) -> Alarm | None:
        """The alarm that a window sets off, None for none.

        Args:
            measured: the newest window, with its two ``halves``.
            earlier: valid windows of the same arm before it.
            others: valid windows of the other arm.
        """
        window, newest = measured.window, self._newest(measured.window, others)
        other = newest[-1] if newest else None
        ratio = self._log_ratio([window], newest)
        against = ratio
        if not newest and self._plan.deployed is Arm.INCUMBENT:
            against = self._log_ratio_to_reference(window)
        verdict = self._judge_safety(window, other, against)
        if verdict.action is not SafetyAction.ROLLBACK:
            return None
        excuse = ""
        if not self._stops(window, other, None):  # it is the latency alone
            excuse = self._load_excuse(measured, halves, other)
            if not excuse and ratio is not None:
                together = self._log_ratio([*earlier, window], others) if earlier else None
                excuse = self._chance_excuse(window, other, ratio, together)
        return Alarm(verdict.reasons, excuse, ratio)

    def _newest(
        self, window: MetricsWindow, others: Sequence[MetricsWindow]
    ) -> Sequence[MetricsWindow]:
        """The last two windows of the other arm, only the comparable one where one is."""
        newest = others[-2:]
        if not self._plan.filtered:
            return newest
        return [found for found in newest if self._comparable(window, found)] or newest

    def _load_excuse(
        self, measured: MeasuredWindow, halves: Halves, other: MetricsWindow | None
    ) -> str:
        """Less load excuses nothing: clients that wait for slow answers send less.

        But a rush that was over within the window is less load on the whole, and made it slow
        all the same.
        """
        window = measured.window
        if other is None:
            # The reference is older, perhaps of another load: enough to stop, not to condemn.
            return "the trial has no incumbent window yet: compared with the reference alone"
        spoilt = measured.quality.value < self._plan.min_quality
        apart = spoilt or not self._comparable(window, other)
        risen = (apart and self._offers_more(window, other)) or (
            not self._comparable(*halves) and any(self._offers_more(half, other) for half in halves)
        )
        if self._plan.filtered and (outside_events(window) or risen):
            return "the load had risen, or was disturbed"
        return ""

    def _chance_excuse(
        self,
        window: MetricsWindow,
        other: MetricsWindow | None,
        ratio: float,
        together: float | None,
    ) -> str:
        """Few statements of a heavy class make a short window's index.

        Of equal configurations every fifth window of ten seconds was past the limit on a small
        machine; so a window is believed where it is far past, or its whole arm is past it.
        """
        if together is not None and self._stops(window, other, together):
            return ""
        if self._stops(window, other, ratio / CERTAIN):
            return ""
        return "one window that is so little slower may be chance"

    def _stops(
        self, window: MetricsWindow, other: MetricsWindow | None, log_ratio: float | None
    ) -> bool:
        """Whether the safety monitor would stop the candidate, were this its latency index."""
        return self._judge_safety(window, other, log_ratio).action is SafetyAction.ROLLBACK

    def _log_ratio(
        self, windows: Sequence[MetricsWindow], others: Sequence[MetricsWindow]
    ) -> float | None:
        ratio = paired_log_ratio(windows, others, self._plan.shares)
        return ratio[0] if ratio else None

    def _log_ratio_to_reference(self, window: MetricsWindow) -> float | None:
        """Stand-in for the ratio to the incumbents, where a trial begins with the candidate."""
        index = latency_index([window], self._plan.shares)
        return math.log(index.value) if index is not None and index.value > 0 else None

    def _comparable(self, a: MetricsWindow, b: MetricsWindow) -> bool:
        distance = load_distance(load_profile(a), load_profile(b), a.duration_s, self._costs_ms)
        return load_factor(distance) >= COMPARABLE

    def _offers_more(self, a: MetricsWindow, b: MetricsWindow) -> bool:
        return offers_more(load_profile(a), load_profile(b), self._costs_ms)
