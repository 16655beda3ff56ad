"""The machine's numbers: limits of control groups, locality, and counters that never fall."""

from __future__ import annotations

import os
from collections import namedtuple
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import psutil
import pytest

from backend import host_metrics
from backend.host_metrics import (
    HostSampler,
    cgroup_limits,
    find_postmaster,
    host_facts,
    is_local_address,
)

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write_file


def limits(tmp_path: Path) -> host_metrics.CgroupLimits:
    return cgroup_limits(7, proc=tmp_path / "proc", root=tmp_path / "cgroup")


# -- control groups ---------------------------------------------------------------------------


def test_version_2_takes_the_tightest_limit_above(tmp_path: Path, write: Write) -> None:
    write("proc/7/cgroup", "0::/box/inner\n")
    write("cgroup/box/inner/memory.max", "max\n")
    write("cgroup/box/inner/cpu.max", "400000 100000\n")
    write("cgroup/box/memory.max", "1073741824\n")
    write("cgroup/box/cpu.max", "150000 100000\n")
    write("cgroup/box/cpu.stat", "usage_usec 2500000\nuser_usec 1\n")
    write("cgroup/box/memory.current", "500000000\n")
    write("cgroup/box/memory.stat", "anon 1\ninactive_file 100000000\n")
    found = limits(tmp_path)
    assert found.memory_bytes == 1073741824
    assert found.cpu_count == 1.5
    assert found.cpu_used_s() == 2.5
    assert found.memory_used_bytes() == 400000000


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path, write: Write) -> None:
    write("proc/7/cgroup", "5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n")
    write("cgroup/memory/job/memory.limit_in_bytes", "2147483648\n")
    write("cgroup/memory/job/memory.usage_in_bytes", "1000\n")
    write("cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 400\n")
    write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n")
    write("cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    write("cgroup/cpu,cpuacct/job/cpuacct.usage", "3000000000\n")
    found = limits(tmp_path)
    assert found.memory_bytes == 2147483648
    assert found.cpu_count == 0.5
    assert found.cpu_used_s() == 3.0
    assert found.memory_used_bytes() == 600


@pytest.mark.parametrize("cgroup", ["0::/\n", "0::/../../elsewhere\n", "garbage\n", ""])
def test_no_limit_is_none(tmp_path: Path, write: Write, cgroup: str) -> None:
    write("proc/7/cgroup", cgroup)
    write("cgroup/memory.max", "max\n")
    write("cgroup/cpu.max", "max 100000\n")
    found = limits(tmp_path)
    assert (found.memory_bytes, found.cpu_count) == (None, None)
    assert found.cpu_used_s() is None
    assert found.memory_used_bytes() is None


def test_a_container_that_sees_its_own_root_finds_its_limit_there(
    tmp_path: Path, write: Write
) -> None:
    # The path is the host's, the mount is the container's: the folder does not exist here.
    write("proc/7/cgroup", "0::/docker/abc\n")
    write("cgroup/memory.max", "1000\n")
    assert limits(tmp_path).memory_bytes == 1000


def test_a_vanished_process_has_no_limits(tmp_path: Path) -> None:
    assert limits(tmp_path) == host_metrics.CgroupLimits()


def test_facts_stay_within_the_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tight = host_metrics.CgroupLimits(memory_bytes=1 << 20, cpu_count=0.25)
    monkeypatch.setattr(host_metrics, "cgroup_limits", lambda pid: tight)
    facts = host_facts(None, str(tmp_path))
    assert (facts.memory_bytes, facts.cpu_count) == (1 << 20, 0.25)
    assert facts.free_disk_bytes is not None
    assert facts.is_local
    assert host_facts(None, str(tmp_path / "nosuch")).free_disk_bytes is None


# -- locality ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [None, "", "/run/postgresql", "localhost", "127.0.0.1", "::1"])
def test_addresses_of_this_machine(host: str | None) -> None:
    assert is_local_address(host)


@pytest.mark.parametrize("host", ["192.0.2.7", "db.example.com", "2001:db8::1"])
def test_addresses_elsewhere(host: str) -> None:
    assert not is_local_address(host)


def test_a_loopback_address_alone_proves_nothing() -> None:
    # A tunnel: the process id means something else here (this test is no server).
    now = datetime.now(timezone.utc)
    assert find_postmaster("127.0.0.1", os.getpid(), now) is None
    assert find_postmaster("127.0.0.1", 2**22 + 1, now) is None
    assert find_postmaster("192.0.2.7", os.getpid(), now) is None


# -- sampling ---------------------------------------------------------------------------------


class Time:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


CpuTimes = namedtuple("CpuTimes", "user nice system idle iowait irq softirq steal guest")


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    none = host_metrics.CgroupLimits()
    monkeypatch.setattr(host_metrics, "cgroup_limits", lambda pid=None: none)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 4)


@pytest.mark.usefixtures("unlimited")
def test_the_cores_use_between_two_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    readings = iter(
        [
            CpuTimes(100.0, 1.0, 50.0, 900.0, 9.0, 1.0, 1.0, 2.0, 30.0),
            CpuTimes(110.0, 1.0, 56.0, 903.0, 8.5, 2.0, 4.0, 3.0, 35.0),
        ]
    )
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    sampler = HostSampler(monotonic_s=time)
    first = sampler.sample()
    time.now_s = 10.0
    second = sampler.sample()
    assert "host_cpu_percent" not in first.gauges
    assert second.counters["host_busy_s"] - first.counters["host_busy_s"] == pytest.approx(20)
    assert second.gauges["host_cpu_percent"] == pytest.approx(50)  # 20 s of 4 cores in 10 s
    assert second.counters["host_steal_s"] == 3.0
    assert second.counters["host_iowait_s"] == 9.0  # the kernel's went back, ours does not


def test_a_limited_group_is_what_counts(
    monkeypatch: pytest.MonkeyPatch, write: Write, tmp_path: Path
) -> None:
    write("g/cpu.stat", "usage_usec 1000000\n")
    write("g/memory.current", "300\n")
    group = host_metrics.CgroupLimits(
        memory_bytes=1000, memory_folder=tmp_path / "g", cpu_count=0.5, cpu_folder=tmp_path / "g"
    )
    monkeypatch.setattr(host_metrics, "cgroup_limits", lambda pid=None: group)
    time = Time()
    sampler = HostSampler(monotonic_s=time)
    sampler.sample()
    write("g/cpu.stat", "usage_usec 3000000\n")
    time.now_s = 8.0
    sample = sampler.sample()
    assert sample.counters["host_busy_s"] == 3.0
    assert sample.gauges["host_cpu_percent"] == pytest.approx(50)  # 2 s of half a core in 8 s
    assert sample.gauges["host_cpu_count"] == 0.5
    assert sample.gauges["host_memory_percent"] == pytest.approx(30)
    assert sample.gauges["host_memory_bytes"] == 1000


def test_the_servers_share_includes_its_children_and_never_falls() -> None:
    sampler = HostSampler(find_server=os.getppid)
    first = sampler.sample().counters["server_cpu_s"]
    end_s = psutil.Process().cpu_times().user + 0.05
    while psutil.Process().cpu_times().user < end_s:  # we are a child of that "server"
        pass
    second = sampler.sample().counters["server_cpu_s"]
    assert second > first > 0


def test_a_server_that_cannot_be_found_has_no_share() -> None:
    asked: list[int] = []

    def nowhere() -> int | None:
        asked.append(1)
        return None

    sampler = HostSampler(find_server=nowhere)
    assert "server_cpu_s" not in sampler.sample().counters
    assert "server_cpu_s" not in sampler.sample().counters
    assert len(asked) == 3  # asked again each time: it may have been restarted


def test_a_real_sample_holds_what_the_catalogue_says(tmp_path: Path) -> None:
    from backend.catalog.metrics import postgresql_metrics

    sampler = HostSampler(find_server=os.getpid, data_directory=str(tmp_path))
    sampler.sample()
    sample = sampler.sample()
    known = {m.name: m.kind for m in postgresql_metrics().metrics.values() if not m.expressions}
    assert all(known[name] == "counter" for name in sample.counters)
    assert all(known[name] == "gauge" for name in sample.gauges)
    assert {"host_busy_s", "server_cpu_s"} <= set(sample.counters)
    assert 0 < sample.gauges["host_memory_percent"] <= 100
