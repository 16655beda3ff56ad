"""Which metrics of backend/catalog/postgresql/metrics.yaml the pages show, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.domain.records import WindowRecord

Reading = Callable[[WindowRecord], "float | None"]


def _gauge(name: str, factor: float = 1.0) -> Reading:
    return lambda window: factor * window.gauges[name] if name in window.gauges else None


def _rate(name: str) -> Reading:
    return lambda window: window.rates.get(name)


@dataclass(frozen=True)
class Shown:
    """One metric as a page shows it.

    Args:
        key: short name for ids.
        label: what it is called on the page.
        unit: ``%`` or ``B/s``.
        read: its value in a window; None where the window does not have it.
        meaning: one line in plain words.
    """

    key: str
    label: str
    unit: str
    read: Reading
    meaning: str


CPU = Shown(
    "cpu",
    "CPU",
    "%",
    _gauge("host_cpu_percent"),
    "Use of all processors of the server's machine, by everything that runs there.",
)
MEMORY = Shown(
    "memory",
    "Memory",
    "%",
    _gauge("host_memory_percent"),
    "Share of the machine's memory in use, without caches that can be given back.",
)
DISK_READ = Shown(
    "read",
    "Disk reads",
    "B/s",
    _rate("host_read_bytes"),
    "Bytes that the machine read from its disks each second.",
)
DISK_WRITE = Shown(
    "write",
    "Disk writes",
    "B/s",
    _rate("host_write_bytes"),
    "Bytes that the machine wrote to its disks each second.",
)
CACHE_HITS = Shown(
    "hits",
    "Cache hits",
    "%",
    _gauge("cache_hit_ratio", 100.0),
    "Share of pages that the server found in its own shared buffers.",
)
TEMP = Shown(
    "temp",
    "Spilled to disk",
    "B/s",
    _rate("temp_bytes"),
    "Temporary files written by sorts and hashes that did not fit into their memory.",
)
WAL = Shown(
    "wal",
    "WAL",
    "B/s",
    _rate("wal_bytes"),
    "Write-ahead log that the server wrote each second.",
)
