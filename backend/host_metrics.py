"""CPU, memory and disk of the machine under a local server.

Limits come from the server's control group where it has any: in a container the machine's own
numbers mean nothing. https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import psutil

from backend.domain.server import HostFacts

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Version 1 of control groups writes "no limit" as a number near 2**63.
_NO_LIMIT_BYTES = 1 << 60
_SAME_START_S = 60.0
HOST_COUNTERS = frozenset(
    (
        "host_clock_s",
        "host_busy_s",
        "host_iowait_s",
        "host_steal_s",
        "host_read_bytes",
        "host_write_bytes",
        "server_cpu_s",
    )
)
"""What a sample counts. The machine's accounts may begin anew under a server that runs on: a
virtual machine is moved, a disk taken out, a container's statistics are reset."""
_MOST_OF_CORES = 1.5
"""Ticks are coarse: in a short window a little more than all cores may be seen."""
_MOST_BYTES_PER_S = 1e12
_NOISE_S = 1.0
"""So far accounts may fall without having begun anew."""


@dataclass(frozen=True)
class CgroupLimits:
    """The tightest limits above a process, and the folders where they are accounted.

    ``memory_bytes`` and ``cpu_count`` (cores) are None where there is no limit.
    """

    memory_bytes: int | None = None
    memory_folder: Path | None = None
    cpu_count: float | None = None
    cpu_folder: Path | None = None

    def cpu_used_s(self) -> float | None:
        """CPU time used in the limited control group so far, in seconds."""
        if self.cpu_folder is None:
            return None
        usage = _keyed(self.cpu_folder / "cpu.stat").get("usage_usec")
        if usage is not None:
            return usage / 1e6
        nanoseconds = _number(self.cpu_folder / "cpuacct.usage")
        return None if nanoseconds is None else nanoseconds / 1e9

    def memory_used_bytes(self) -> float | None:
        """Memory in use in the limited control group, without file cache that can be dropped."""
        folder = self.memory_folder
        if folder is None:
            return None
        used = _number(folder / "memory.current")
        if used is None:
            used = _number(folder / "memory.usage_in_bytes")
        if used is None:
            return None
        stat = _keyed(folder / "memory.stat")
        return used - stat.get("total_inactive_file", stat.get("inactive_file", 0.0))


@dataclass(frozen=True)
class HostSample:
    """Readings of the machine; names and units as in the metrics catalogue (section host)."""

    counters: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


def cgroup_limits(
    pid: int | None = None, *, proc: Path = _PROC, root: Path = _CGROUP_ROOT
) -> CgroupLimits:
    """The limits of a process's control groups (versions 1 and 2), own process by default."""
    try:
        lines = (proc / str(pid or "self") / "cgroup").read_text().splitlines()
    except OSError:
        return CgroupLimits()
    memory: tuple[int, Path] | None = None
    cpu: tuple[float, Path] | None = None
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        for folder in _upwards(root, controllers, path):
            limit = _memory_limit(folder)
            if limit is not None and (memory is None or limit < memory[0]):
                memory = (limit, folder)
            cores = _cpu_limit(folder)
            if cores is not None and (cpu is None or cores < cpu[0]):
                cpu = (cores, folder)
    return CgroupLimits(
        memory_bytes=memory[0] if memory else None,
        memory_folder=memory[1] if memory else None,
        cpu_count=cpu[0] if cpu else None,
        cpu_folder=cpu[1] if cpu else None,
    )


def find_postmaster(host: str | None, backend_pid: int, started_at: datetime) -> int | None:
    """Process id of the server's first process if it runs on this machine, else None.

    A loopback address proves nothing (a tunnel, a container's port), so the process behind our
    connection must be visible here, and its parent must be as old as the server says.
    """
    if not is_local_address(host):
        return None
    try:
        backend = psutil.Process(backend_pid)
        parent = backend.parent()
        if parent is None or "postgres" not in backend.name():
            return None
        same = abs(parent.create_time() - started_at.timestamp()) < _SAME_START_S
        return int(parent.pid) if same else None
    except psutil.Error:
        return None


def is_local_address(host: str | None) -> bool:
    """Whether a connection to ``host`` (None or a path: a Unix socket) stays on this machine."""
    if not host or host.startswith(("/", "@")) or host in ("localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    interfaces = psutil.net_if_addrs().values()
    return any(entry.address.split("%")[0] == host for group in interfaces for entry in group)


def host_facts(server_pid: int | None, data_directory: str | None) -> HostFacts:
    """Memory, cores and free disk that a local server may use."""
    limits = cgroup_limits(server_pid)
    memory_bytes = int(psutil.virtual_memory().total)
    cores = float(psutil.cpu_count() or 1)
    with contextlib.suppress(OSError, AttributeError):  # gone, or not on this platform
        cores = min(cores, float(len(os.sched_getaffinity(server_pid or 0))))
    return HostFacts(
        memory_bytes=min(memory_bytes, limits.memory_bytes or memory_bytes),
        cpu_count=min(cores, limits.cpu_count or cores),
        free_disk_bytes=_free_disk_bytes(data_directory),
        is_local=True,
    )


def is_possible(name: str, rate: float, cores: float = 0.0) -> bool:
    """Whether a counter can have grown so fast: after a leap its window has no value.

    Args:
        name: of the counter; what is not the machine's is always possible.
        rate: growth a second.
        cores: that the machine is known to have, beside those that we see.
    """
    if name not in HOST_COUNTERS:
        return True
    if name.endswith("_bytes"):
        return rate <= _MOST_BYTES_PER_S
    return rate <= _MOST_OF_CORES * max(cores, os.cpu_count() or 1)


class HostSampler:
    """Samples the machine, and the server's own share of its CPU time.

    Args:
        find_server: gives the process id of the server's first process; asked again after it
            vanished (a restart).
        data_directory: where the free disk space is watched.
        monotonic_s: the clock between two samples.
    """

    def __init__(
        self,
        find_server: Callable[[], int | None] | None = None,
        data_directory: str | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find_server = find_server
        self._data_directory = data_directory
        self._monotonic_s = monotonic_s
        self._server_pid = find_server() if find_server is not None else None
        self._limits = cgroup_limits(self._server_pid)
        self._highest: dict[str, float] = {}
        self._last: tuple[float, float] | None = None

    def sample(self) -> HostSample:
        """Read everything once; what the machine does not offer is left out."""
        sample = HostSample()
        cores, memory_bytes = self._sample_limits(sample)
        times = psutil.cpu_times()
        counters, gauges = sample.counters, sample.gauges
        limited_s = self._limits.cpu_used_s()
        # Guest times are part of user already. What runs at a low priority (nice), such as an
        # evolution, gives way: a machine is not busy with it.
        own_s = (
            times.user
            + times.system
            + sum(getattr(times, name, 0.0) for name in ("irq", "softirq"))
        )
        counters["host_busy_s"] = self._risen("busy", own_s if limited_s is None else limited_s)
        counters["host_iowait_s"] = self._risen("iowait", getattr(times, "iowait", 0.0))
        counters["host_steal_s"] = self._risen("steal", getattr(times, "steal", 0.0))
        now_s = self._monotonic_s()
        counters["host_clock_s"] = now_s
        if self._last is not None and now_s > self._last[0]:
            busy = (counters["host_busy_s"] - self._last[1]) / (now_s - self._last[0])
            if busy >= 0 and is_possible("host_busy_s", busy, cores):
                gauges["host_cpu_percent"] = min(100.0 * busy / cores, 100.0)
        self._last = (now_s, counters["host_busy_s"])
        disks = psutil.disk_io_counters()
        if disks is not None:
            counters["host_read_bytes"] = float(disks.read_bytes)
            counters["host_write_bytes"] = float(disks.write_bytes)
        server_s = self._sample_server()
        if server_s is not None:
            counters["server_cpu_s"] = server_s
        gauges["host_load_1m"] = os.getloadavg()[0]
        free = _free_disk_bytes(self._data_directory)
        if free is not None:
            gauges["host_disk_free_bytes"] = float(free)
        gauges["host_cpu_count"] = cores
        gauges["host_memory_bytes"] = memory_bytes
        return sample

    def _risen(self, name: str, value: float) -> float:
        """Smooth what the kernel's accounts of idle cores fall by; further down they begin anew."""
        highest = self._highest.get(name, value)
        self._highest[name] = value if value < highest - _NOISE_S else max(value, highest)
        return self._highest[name]

    def _sample_limits(self, sample: HostSample) -> tuple[float, float]:
        """Add the use of memory; the cores and bytes that may be used."""
        meminfo = _keyed(_PROC / "meminfo", factor=1024)
        total, available = meminfo.get("MemTotal:"), meminfo.get("MemAvailable:")
        if total is None or available is None:
            memory = psutil.virtual_memory()
            total, available = float(memory.total), float(memory.available)
        if "SwapTotal:" in meminfo:
            swap = meminfo["SwapTotal:"] - meminfo.get("SwapFree:", 0.0)
            sample.gauges["host_swap_used_bytes"] = swap
        used, limit = total - available, self._limits.memory_bytes
        limited_used = self._limits.memory_used_bytes()
        if limit is not None and limit < total and limited_used is not None:
            total, used = float(limit), limited_used
        sample.gauges["host_memory_percent"] = 100.0 * used / total
        cores = float(psutil.cpu_count() or 1)
        return min(cores, self._limits.cpu_count or cores), total

    def _sample_server(self) -> float | None:
        """CPU seconds of the server's first process, its live and its ended children."""
        if self._find_server is None:
            return None
        used_s = _tree_cpu_s(self._server_pid) if self._server_pid is not None else None
        if used_s is None:
            self._server_pid = self._find_server()
            if self._server_pid is None:
                return None
            self._limits = cgroup_limits(self._server_pid)
            self._highest.clear()
            self._last = None
            used_s = _tree_cpu_s(self._server_pid)
        # A child that ends between two reads is missed once.
        return self._risen("server", used_s or 0.0)


def _tree_cpu_s(pid: int) -> float | None:
    own = _cpu_ticks(pid)
    if own is None:
        return None
    return (own + sum(_cpu_ticks(child) or 0 for child in _children(pid))) / _TICKS_PER_S


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in (_PROC / f"{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):  # the kernel was built without this file
        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.Error:
            return []


def _cpu_ticks(pid: int) -> int | None:
    """CPU time of a process and its ended children in clock ticks (/proc/PID/stat, proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # utime, stime, cutime and cstime are fields 14 to 17; two stand before the name's bracket.
    return sum(int(value) for value in fields[11:15]) if len(fields) > 15 else None


def _upwards(root: Path, controllers: str, path: str) -> Iterator[Path]:
    """The folders of a control group and of its parents, the mount's own root last."""
    mounts = [root, root / "unified"] if not controllers else [root / controllers]
    mounts += [root / name for name in controllers.split(",") if name and "=" not in name]
    for mount in mounts:
        folder = mount / path.lstrip("/")
        while folder != mount and mount in folder.parents:
            yield folder
            folder = folder.parent
        yield mount


def _memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        limit = _number(folder / name)
        if limit is not None and limit < _NO_LIMIT_BYTES:
            return int(limit)
    return None


def _cpu_limit(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us = _number(folder / "cpu.cfs_quota_us")
    period_us = _number(folder / "cpu.cfs_period_us")
    if quota_us is None or not period_us or quota_us <= 0:
        return None
    return quota_us / period_us


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _keyed(path: Path, factor: int = 1) -> dict[str, float]:
    """A file of ``name number`` lines, as /proc and control groups have them."""
    values: dict[str, float] = {}
    try:
        for line in path.read_text().splitlines():
            parts = line.split()
            if len(parts) >= 2 and parts[1].isdigit():
                values[parts[0]] = float(parts[1]) * factor
    except OSError:
        return {}
    return values


def _free_disk_bytes(folder: str | None) -> int | None:
    if folder is None:
        return None
    try:
        return int(psutil.disk_usage(folder).free)
    except OSError:
        return None
