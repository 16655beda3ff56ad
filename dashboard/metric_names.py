"""Which metrics of backend/catalog/postgresql/metrics.yaml the pages show, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backend.domain.records import WindowRecord

Reading = Callable[[WindowRecord], "float | None"]


def _first(kind: str, *names: str) -> Reading:
    def read(window: WindowRecord) -> float | None:
        values = window.gauges if kind == "gauge" else window.rates
        return next((float(values[n]) for n in names if n in values), None)

    return read


def _ratio(part: str, *others: str) -> Reading:
    def read(window: WindowRecord) -> float | None:
        if part not in window.rates:
            return None
        total = sum(window.rates.get(name, 0.0) for name in (part, *others))
        return 100.0 * window.rates[part] / total if total > 0 else None

    return read


@dataclass(frozen=True)
class Shown:
    """One metric as a page shows it.

    Args:
        key: short name for ids.
        label: what it is called on the page.
        unit: ``%``, ``B/s``, ``1/s`` or ``ms``.
        read: its value in a window; None where the window does not have it.
        meaning: one line in plain words.
        lower_is_better: None where neither direction is good by itself.
    """

    key: str
    label: str
    unit: str
    read: Reading
    meaning: str
    lower_is_better: bool | None = None


CPU = Shown(
    "cpu", "CPU", "%", _first("gauge", "cpu_percent"),
    "Use of all processors of the server's machine, by everything that runs there.",
)
MEMORY = Shown(
    "memory", "Memory", "%", _first("gauge", "memory_percent"),
    "Share of the machine's memory in use, without caches that can be given back.",
)
DISK_READ = Shown(
    "read", "Disk reads", "B/s", _first("rate", "disk_read_bytes"),
    "Bytes that the machine read from its disks each second.", True,
)
DISK_WRITE = Shown(
    "write", "Disk writes", "B/s", _first("rate", "disk_write_bytes"),
    "Bytes that the machine wrote to its disks each second.", True,
)
CACHE_HITS = Shown(
    "hits", "Cache hits", "%", _ratio("blocks_hit", "blocks_read"),
    "Share of pages that the server found in its own shared buffers.", False,
)
TEMP = Shown(
    "temp", "Spilled to disk", "B/s", _first("rate", "temp_bytes"),
    "Temporary files that sorts and hashes wrote because work_mem was too small.", True,
)
WAL = Shown(
    "wal", "WAL", "B/s", _first("rate", "wal_bytes"),
    "Write-ahead log that the server wrote each second.",
)
RESOURCES: Sequence[Shown] = (CPU, MEMORY, DISK_READ, DISK_WRITE, CACHE_HITS, TEMP, WAL)
