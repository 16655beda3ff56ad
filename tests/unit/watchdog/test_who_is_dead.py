"""Whether the holder of a lease lives: its process, the lease's end, steps of the clock."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest

from backend.domain.records import LeaseRecord
from backend.lease import LeaseTime, holder_name, why_ownerless
from tests.fake_server import START, FakeClock
from tests.unit.watchdog.scene import TTL_S, elsewhere


def lease_of(holder: str, *, released: bool = False) -> LeaseRecord:
    return LeaseRecord(1, holder, START + timedelta(seconds=TTL_S), released)


def test_a_living_holder_acts_until_its_lease_runs_out() -> None:
    mine = lease_of(holder_name())
    assert why_ownerless(mine, START) is None
    late = why_ownerless(mine, START + timedelta(seconds=TTL_S + 1))
    assert late is not None
    assert "hangs" in late


def test_a_killed_holder_is_noticed_at_once_even_before_it_is_reaped(
    other_process: subprocess.Popen[bytes],
) -> None:
    lease = lease_of(holder_name(other_process.pid))
    assert why_ownerless(lease, START) is None
    os.kill(other_process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(other_process.pid).status() == psutil.STATUS_ZOMBIE
    assert "died" in str(why_ownerless(lease, START))
    other_process.wait()
    assert "died" in str(why_ownerless(lease, START))


def test_a_reused_pid_is_not_the_holder() -> None:
    host, pid, started = holder_name().rsplit(":", 2)
    assert why_ownerless(lease_of(f"{host}:{pid}:{float(started) - 100:.2f}"), START) is not None


def test_a_step_of_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = lease_of(holder_name())
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 12345.0)
    assert why_ownerless(lease, START) is None


@pytest.mark.parametrize("holder", ["", "watchdog", "a:b:c", "host:-1:x", ":::", "h:1:nan"])
def test_holders_that_cannot_be_told_count_as_alive(holder: str) -> None:
    assert why_ownerless(lease_of(holder), START) is None


def test_a_holder_elsewhere_is_judged_by_its_lease_alone() -> None:
    assert why_ownerless(lease_of(elsewhere()), START) is None
    assert why_ownerless(lease_of(elsewhere()), START + timedelta(seconds=9)) is not None


@pytest.mark.parametrize("step_h", [-1, 1])
def test_a_step_of_the_clock_does_not_move_the_end_of_a_lease(step_h: int) -> None:
    clock, lease = FakeClock(), lease_of(elsewhere())
    time = LeaseTime(clock)
    clock.seconds = TTL_S - 1
    assert why_ownerless(lease, time.now(lease)) is None
    monotonic_s, now = clock.monotonic_s, clock.now
    clock.now = lambda: now() + timedelta(hours=step_h)  # type: ignore[method-assign]
    assert why_ownerless(lease, time.now(lease)) is None
    clock.monotonic_s = lambda: monotonic_s() + 1.5  # type: ignore[method-assign]
    assert "hangs" in str(why_ownerless(lease, time.now(lease)))
    renewed = replace(lease, expires_at=clock.now() + timedelta(seconds=TTL_S))
    assert why_ownerless(renewed, time.now(renewed)) is None


@pytest.mark.parametrize("step_h", [-1, 1])
def test_a_renewal_that_is_first_seen_after_a_step_of_the_clock(step_h: int) -> None:
    clock, lease = FakeClock(), lease_of(elsewhere())
    time = LeaseTime(clock)
    time.now(replace(lease, epoch=0))
    now = clock.now
    clock.now = lambda: now() + timedelta(hours=step_h)  # type: ignore[method-assign]
    clock.seconds = 1.0
    assert why_ownerless(lease, time.now(lease)) is None
    clock.seconds = TTL_S + 1.0
    assert "hangs" in str(why_ownerless(lease, time.now(lease)))
