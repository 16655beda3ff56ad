"""The safety monitor: each bound, both sides of it, with and without a candidate."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.config import Settings
from backend.domain.metrics import MetricsWindow, QueryKey, QueryWindow
from backend.domain.modes import SafetyAction
from backend.safety_monitor import SafetyLimits, SafetyMonitor, safety_limits

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
LIMITS = SafetyLimits()
MONITOR = SafetyMonitor(LIMITS)
CALM = {
    "host_cpu_percent": 50.0,
    "host_memory_percent": 40.0,
    "connections_total": 10.0,
    "connections_max": 100.0,
    "longest_statement_s": 1.0,
    "replication_lag_bytes": 0.0,
    "maintenance_running": 0.0,
    "host_disk_free_bytes": 1e12,
}


def window(
    calls: int = 1000, commit: float = 100.0, rollback: float = 0.0, **gauges: float
) -> MetricsWindow:
    key = QueryKey(1, 1, 1)
    return MetricsWindow(
        started_at=START,
        ended_at=START + timedelta(seconds=10),
        duration_s=10.0,
        rates={"xact_commit": commit, "xact_rollback": rollback},
        gauges={**CALM, **gauges},
        queries={key: QueryWindow(key, calls, 5.0 * calls)},
    )


def test_a_calm_window_is_allowed() -> None:
    verdict = MONITOR.judge(window(), candidate_active=True, baseline=window(), log_ratio=0.05)
    assert verdict.action is SafetyAction.ALLOW
    assert verdict.reasons == ()


VETOES = [
    ({"host_cpu_percent": 98.0}, {"host_cpu_percent": 99.5}, "CPU use is 100 % (limit 98 %)"),
    ({"connections_total": 90.0}, {"connections_total": 95.0}, "95 of 100 connections .* 95 %"),
    ({"maintenance_running": 0.0}, {"maintenance_running": 0.5}, "maintenance is running"),
    ({"base_backups_running": 0.0}, {"base_backups_running": 1.0}, "base backup is running"),
    ({"in_recovery": 0.0}, {"in_recovery": 1.0}, "stand-by"),
]
FAULTS = [
    ({"host_memory_percent": 92.0}, {"host_memory_percent": 93.0}, r"93 % is in use \(limit 92 %"),
    ({"longest_statement_s": 30.0}, {"longest_statement_s": 31.0}, r"31 s \(limit 30 s\)"),
    ({"replication_lag_bytes": 0.0}, {"replication_lag_bytes": 1e9}, r"954 MB \(limit 256 MB\)"),
    ({"host_disk_free_bytes": 1e9}, {"host_disk_free_bytes": 1e8}, r"95 MB \(limit 512 MB\)"),
    ({"rollback": 2.0}, {"rollback": 10.0}, r"9\.1% of statements failed, 0\.0% is usual"),
]


@pytest.mark.parametrize(("fine", "bad", "told"), VETOES)
def test_what_no_candidate_causes_only_blocks(
    fine: dict[str, float], bad: dict[str, float], told: str
) -> None:
    for candidate_active in (False, True):
        assert (
            MONITOR.judge(window(**fine), candidate_active=candidate_active).action
            is SafetyAction.ALLOW
        )
        verdict = MONITOR.judge(window(**bad), candidate_active=candidate_active)
        assert verdict.action is SafetyAction.BLOCK
        assert len(verdict.reasons) == 1
        _matches(told, verdict.reasons[0])


@pytest.mark.parametrize(("fine", "bad", "told"), FAULTS)
def test_what_a_candidate_may_have_caused_undoes_it(
    fine: dict[str, float], bad: dict[str, float], told: str
) -> None:
    assert MONITOR.judge(window(**fine), candidate_active=True).action is SafetyAction.ALLOW
    verdict = MONITOR.judge(window(**bad), candidate_active=True, baseline=window())
    assert verdict.action is SafetyAction.ROLLBACK
    _matches(told, verdict.reasons[0])
    assert MONITOR.judge(window(**bad)).action is SafetyAction.BLOCK


@pytest.mark.parametrize(("fine", "bad", "told"), FAULTS)
def test_what_the_incumbent_suffered_too_does_not_undo_the_candidate(
    fine: dict[str, float], bad: dict[str, float], told: str
) -> None:
    verdict = MONITOR.judge(window(**bad), candidate_active=True, baseline=window(**bad))
    assert verdict.action is not SafetyAction.ROLLBACK


def test_regression_needs_a_candidate_and_enough_calls() -> None:
    worse = math.log(1.2)
    verdict = MONITOR.judge(window(), log_ratio=worse, candidate_active=True)
    assert verdict.action is SafetyAction.ROLLBACK
    assert verdict.reasons == ("latency: index 1.20 against the incumbent (limit 1.15)",)
    few = window(calls=LIMITS.min_calls - 1)
    assert MONITOR.judge(few, log_ratio=worse, candidate_active=True).action is SafetyAction.ALLOW
    slightly = math.log(1.14)
    allowed = MONITOR.judge(window(), log_ratio=slightly, candidate_active=True)
    assert allowed.action is SafetyAction.ALLOW


def test_client_errors_stand_above_rolled_back_transactions() -> None:
    fine = MONITOR.judge(window(rollback=50.0), error_rate=0.0, candidate_active=True)
    assert fine.action is SafetyAction.ALLOW
    bad = MONITOR.judge(window(), error_rate=0.05, candidate_active=True)
    assert bad.action is SafetyAction.ROLLBACK
    assert "5.0% of statements failed" in bad.reasons[0]


def test_usual_rollbacks_do_not_hide_that_most_fail_under_the_candidate() -> None:
    usual = window(rollback=10.0)
    verdict = MONITOR.judge(window(rollback=150.0), baseline=usual, candidate_active=True)
    assert verdict.action is SafetyAction.ROLLBACK
    assert "60.0% of statements failed, 9.1% is usual" in verdict.reasons[0]


def test_usual_rollbacks_are_no_errors() -> None:
    usual = window(rollback=10.0)
    verdict = MONITOR.judge(window(rollback=11.0), baseline=usual, candidate_active=True)
    assert verdict.action is SafetyAction.ALLOW


def test_a_handful_of_transactions_is_no_rate() -> None:
    assert MONITOR.judge(window(commit=0.1, rollback=1.0)).action is SafetyAction.ALLOW


def test_failures_in_a_row_block() -> None:
    assert MONITOR.judge(window(), consecutive_failures=2).action is SafetyAction.ALLOW
    verdict = MONITOR.judge(window(), consecutive_failures=3)
    assert verdict.action is SafetyAction.BLOCK
    assert verdict.reasons == ("3 failures in a row (limit 3)",)


def test_without_a_window_nothing_is_tried() -> None:
    assert MONITOR.judge(None).action is SafetyAction.BLOCK


def test_switched_off_it_allows_everything() -> None:
    off = SafetyMonitor(SafetyLimits(enabled=False))
    bad = window(host_memory_percent=99.0)
    assert off.judge(bad, candidate_active=True).action is SafetyAction.ALLOW
    assert off.judge(None).action is SafetyAction.ALLOW


def test_missing_metrics_are_no_alarm() -> None:
    bare = MetricsWindow(START, START + timedelta(seconds=10), 10.0, {}, {}, {})
    assert MONITOR.judge(bare, candidate_active=True).action is SafetyAction.ALLOW


def test_limits_come_from_the_settings() -> None:
    settings = Settings.model_validate(
        {"safety": {"query_timeout": 12.0, "rollback_threshold": 0.3}}
    )
    limits = safety_limits(settings)
    assert limits.query_timeout_s == 12.0
    assert limits.rollback_threshold == 0.3
    assert limits.max_consecutive_failures == settings.safety.max_consecutive_failures


@given(
    gauges=st.dictionaries(
        st.sampled_from([*CALM, "in_recovery"]), st.floats(0, 1e15, allow_nan=False)
    ),
    log_ratio=st.none() | st.floats(-1e6, 1e6),
    active=st.booleans(),
)
def test_only_an_active_candidate_is_undone_and_never_without_a_reason(
    gauges: dict[str, float], log_ratio: float | None, active: bool
) -> None:
    verdict = MONITOR.judge(window(**gauges), log_ratio=log_ratio, candidate_active=active)
    if verdict.action is SafetyAction.ROLLBACK:
        assert active
    assert (verdict.action is SafetyAction.ALLOW) == (verdict.reasons == ())
    assert all("limit" in reason for reason in verdict.reasons)


def _matches(pattern: str, text: str) -> None:

    plain = pattern if "\\" in pattern or ".*" in pattern else re.escape(pattern)
    assert re.search(plain, text), text
