"""The tuner's eyes: windows of what is deployed, judged and recorded, between trials and inside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from backend.components import Components
from backend.data_collector import why_no_window, window_between
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.modes import SafetyAction
from backend.domain.safety import SafetyVerdict
from backend.sample_filter import latency_index, sample_quality
from backend.trials import MeasuredWindow
from backend.tuning_loop import TuningLoop

log = logging.getLogger(__name__)

DISTURBED_QUALITY = 0.1
"""Of a window in which statements were on trial: it counts towards nothing."""
MOST_DISTURBED = 3
"""Windows in a row in which statements were on trial, after which their CPU use counts too."""


class Observer:
    """Forms windows where no trial measures, and records those that trials measure.

    Args:
        parts: the tuner's parts.
        loop: gives the tuning loop, which is made after its observer.
        disturbed: whether statements were on trial since it was asked last.

    Attributes:
        safety: the verdict on the newest window.
        host_cpu_percent: of the newest window in which no statement was on trial, or of the newest
            at all where there has been none for long; None: not known.
    """

    def __init__(
        self,
        parts: Components,
        loop: Callable[[], TuningLoop],
        disturbed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._parts, self._loop = parts, loop
        self._disturbed = disturbed
        self._last: MetricsSnapshot | None = None
        self.safety = SafetyVerdict(SafetyAction.ALLOW)
        self.host_cpu_percent: float | None = None
        self._disturbed_in_row = 0

    def forget(self) -> None:
        """No window reaches from before to after this moment."""
        self._last = None

    def observe(self) -> None:
        """Take a snapshot; with the one before it, a window of the deployed configuration.

        Raises:
            ServerConnectionError: the server is gone.
        """
        parts, loop = self._parts, self._loop()
        if loop.trial is not None:
            self.forget()
            return
        last, self._last = self._last, None  # a snapshot that fails leaves none behind
        snapshot = self._last = parts.collector.collect()
        if last is None:
            return
        window = window_between(last, snapshot)
        if window is None:
            log.info("no window: %s", why_no_window(last, snapshot))
            return
        self.safety = parts.monitor.judge(
            window, baseline=loop.usual, consecutive_failures=loop.failures
        )
        disturbed = self._disturbed()
        self._disturbed_in_row = self._disturbed_in_row + 1 if disturbed else 0
        if not disturbed or self._disturbed_in_row > MOST_DISTURBED:
            self.host_cpu_percent = window.gauges.get("host_cpu_percent")
        loop.observe(window, disturbed=disturbed)
        coverage = 1.0  # before the baseline there is nothing to compare with
        if loop.chain is not None:
            index = latency_index([window], loop.chain.reference)
            coverage = index.coverage if index else 0.0
        quality = sample_quality(window, coverage=coverage)
        if disturbed:
            reasons = (*quality.reasons, "statements were on trial meanwhile")
            quality = replace(quality, value=min(quality.value, DISTURBED_QUALITY), reasons=reasons)
        parts.recorder.record(
            window,
            quality,
            phase=loop.phase,
            config=parts.deployment.deviating,
            chain=loop.chain,
        )

    def record_trial_window(self, measured: MeasuredWindow, trial_id: int | None) -> None:
        """Record a window that the running trial has measured, void ones too."""
        parts, loop = self._parts, self._loop()
        assert loop.trial is not None  # only trials call this
        deployed = measured.arm is loop.trial.plan.deployed
        config = dict(parts.deployment.deviating)
        if not deployed:
            for name, value in loop.trial.plan.other_values.items():
                if value is None:
                    config.pop(name, None)
                else:
                    config[name] = value
        parts.recorder.record(
            measured.window,
            measured.quality,
            phase=loop.phase,
            config=config,
            chain=loop.chain,
            deployed=deployed,
            arm=measured.arm,
            trial_id=trial_id,
        )

    def judge_candidate(
        self, window: MetricsWindow, baseline: MetricsWindow | None, log_ratio: float | None
    ) -> SafetyVerdict:
        """The safety monitor's word on a window under a candidate; see trial_danger.SafetyJudge."""
        return self._parts.monitor.judge(
            window, baseline=baseline, log_ratio=log_ratio, candidate_active=True
        )
