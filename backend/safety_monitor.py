"""The safety monitor: windows and limits in, a verdict out. Pure; it touches nothing.

BLOCK: nothing new is tried until it is over. ROLLBACK: the candidate is undone now. A candidate is
undone for what it may have caused; what the incumbent suffered from just as much only blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.domain.metrics import MetricsWindow
from backend.domain.modes import SafetyAction
from backend.domain.safety import SafetyVerdict

if TYPE_CHECKING:
    from backend.config import Settings


@dataclass(frozen=True)
class SafetyLimits:
    """The bounds of what is tolerated.

    Args:
        enabled: without it every verdict is ALLOW.
        query_timeout_s: the longest that a statement may run.
        cpu_limit_percent: use of the host's cores, in %.
        memory_limit_percent: use of the host's memory without the file cache, in %.
        connections_limit_percent: client sessions in % of max_connections.
        max_error_rate: share of failed statements or rolled back transactions, above that of the
            baseline, in [0, 1].
        rollback_threshold: how much worse than the incumbent a candidate's latency index may be
            (0.15: 15 %).
        max_consecutive_failures: failed trials or collections in a row.
        max_replication_lag_bytes: how far the slowest stand-by may be behind.
        min_free_disk_bytes: free space where the data folder lies.
        min_calls: statements that a window needs before its latency counts as evidence.
    """

    enabled: bool = True
    query_timeout_s: float = 30.0
    cpu_limit_percent: float = 98.0
    memory_limit_percent: float = 92.0
    connections_limit_percent: float = 90.0
    max_error_rate: float = 0.02
    rollback_threshold: float = 0.15
    max_consecutive_failures: int = 3
    max_replication_lag_bytes: float = 256.0 * 1024**2
    min_free_disk_bytes: float = 512.0 * 1024**2
    min_calls: int = 30


def safety_limits(settings: Settings) -> SafetyLimits:
    """The limits that the settings' section ``safety`` asks for."""
    safety = settings.safety
    return SafetyLimits(
        enabled=safety.enabled,
        query_timeout_s=safety.query_timeout,
        cpu_limit_percent=safety.cpu_limit_percent,
        memory_limit_percent=safety.memory_limit_percent,
        connections_limit_percent=safety.connections_limit_percent,
        max_error_rate=safety.max_error_rate,
        rollback_threshold=safety.rollback_threshold,
        max_consecutive_failures=safety.max_consecutive_failures,
    )


class SafetyMonitor:
    """Judges windows against limits. See the module's text."""

    def __init__(self, limits: SafetyLimits) -> None:
        self.limits = limits

    def judge(
        self,
        window: MetricsWindow | None,
        *,
        baseline: MetricsWindow | None = None,
        log_ratio: float | None = None,
        error_rate: float | None = None,
        consecutive_failures: int = 0,
        candidate_active: bool = False,
    ) -> SafetyVerdict:
        """Judge the newest window.

        Args:
            window: what was measured; None where measuring failed.
            baseline: a window of the incumbent under like load.
            log_ratio: log of the candidate's latency index against the incumbent's.
            error_rate: share of statements that failed for the clients, in [0, 1]; None: the
                share of rolled back transactions stands in for it.
            consecutive_failures: failed trials or collections in a row.
            candidate_active: whether a candidate stood on the server during the window.

        Returns:
            The verdict; each reason names the value and the bound that it passed.
        """
        limits = self.limits
        if not limits.enabled:
            return SafetyVerdict(SafetyAction.ALLOW)
        waits: list[str] = []
        faults: list[str] = []
        if consecutive_failures >= limits.max_consecutive_failures:
            waits.append(
                f"{consecutive_failures} failures in a row (limit "
                f"{limits.max_consecutive_failures})"
            )
        if window is None:
            waits.append("there is no window to judge")
        else:
            waits += self._vetoes(window)
            faults += self._faults(window, baseline, error_rate)
            faults += self._regression(window, log_ratio)
            # Errors are compared with the usual share already, so a usual share hides no rise.
            known = [] if baseline is None else self._faults(baseline, baseline, None)
            shared = {_subject(reason) for reason in known}
            waits += [reason for reason in faults if _subject(reason) in shared]
            faults = [reason for reason in faults if _subject(reason) not in shared]
        reasons = (*faults, *waits)
        if candidate_active and faults:
            return SafetyVerdict(SafetyAction.ROLLBACK, reasons)
        return SafetyVerdict(SafetyAction.BLOCK if reasons else SafetyAction.ALLOW, reasons)

    def _vetoes(self, window: MetricsWindow) -> list[str]:
        """What no candidate causes, and what nothing is tried under."""
        limits, gauges = self.limits, window.gauges
        reasons = []
        cpu = gauges.get("host_cpu_percent", 0.0)
        if cpu > limits.cpu_limit_percent:
            reasons.append(f"CPU use is {cpu:.0f} % (limit {limits.cpu_limit_percent:g} %)")
        used, most = gauges.get("connections_total", 0.0), gauges.get("connections_max", 0.0)
        share = 100.0 * used / most if most > 0 else 0.0
        if share > limits.connections_limit_percent:
            reasons.append(
                f"{used:.0f} of {most:.0f} connections are in use, {share:.0f} % "
                f"(limit {limits.connections_limit_percent:g} %)"
            )
        running = gauges.get("maintenance_running", 0.0)
        if running > 0:
            reasons.append(f"maintenance is running ({math.ceil(running)} commands, limit 0)")
        backups = gauges.get("base_backups_running", 0.0)
        if backups > 0:
            reasons.append(f"a base backup is running ({math.ceil(backups)}, limit 0)")
        if gauges.get("in_recovery", 0.0) > 0:
            reasons.append("the server is a stand-by (in recovery), limit: primaries only")
        return reasons

    def _faults(
        self, window: MetricsWindow, baseline: MetricsWindow | None, error_rate: float | None
    ) -> list[str]:
        """What a candidate may have caused."""
        limits, gauges = self.limits, window.gauges
        reasons = []
        memory = gauges.get("host_memory_percent", 0.0)
        if memory > limits.memory_limit_percent:
            reasons.append(
                f"memory: {memory:.0f} % is in use (limit {limits.memory_limit_percent:g} %)"
            )
        longest_s = gauges.get("longest_statement_s", 0.0)
        if longest_s > limits.query_timeout_s:
            reasons.append(
                f"longest statement: running for {longest_s:.0f} s "
                f"(limit {limits.query_timeout_s:g} s)"
            )
        rate = _rollback_share(window) if error_rate is None else error_rate
        usual = 0.0 if baseline is None or error_rate is not None else _rollback_share(baseline)
        if rate - usual > limits.max_error_rate:
            reasons.append(
                f"errors: {rate:.1%} of statements failed, {usual:.1%} is usual "
                f"(limit {limits.max_error_rate:.1%} more)"
            )
        lag = gauges.get("replication_lag_bytes", 0.0)
        if lag > limits.max_replication_lag_bytes:
            reasons.append(
                f"replication lag: {lag / 1024**2:.0f} MB "
                f"(limit {limits.max_replication_lag_bytes / 1024**2:.0f} MB)"
            )
        free = gauges.get("host_disk_free_bytes", math.inf)
        if free < limits.min_free_disk_bytes:
            reasons.append(
                f"free disk: {free / 1024**2:.0f} MB "
                f"(limit {limits.min_free_disk_bytes / 1024**2:.0f} MB)"
            )
        return reasons

    def _regression(self, window: MetricsWindow, log_ratio: float | None) -> list[str]:
        if log_ratio is None or window.calls < self.limits.min_calls:
            return []
        index, bound = math.exp(min(log_ratio, 100.0)), 1.0 + self.limits.rollback_threshold
        if not index > bound:
            return []
        return [f"latency: index {index:.2f} against the incumbent (limit {bound:.2f})"]


def _rollback_share(window: MetricsWindow) -> float:
    rolled_back = window.rates.get("xact_rollback", 0.0)
    total = rolled_back + window.rates.get("xact_commit", 0.0)
    calls = total * window.duration_s
    # A handful of transactions is no rate.
    return rolled_back / total if calls >= 20 else 0.0


def _subject(reason: str) -> str:
    return reason.partition(":")[0]
