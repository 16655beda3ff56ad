"""The joint budget of memory and disk: no single knob is too large, but all together may be.

The sum counts what the knobs allow at the same time, in a busy but not freakish moment: every
client runs one statement, with its parallel workers, and each of these processes sorts once and
hashes once. https://www.postgresql.org/docs/current/runtime-config-resource.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.server import HostFacts
from backend.errors import MemoryBudgetError

SORTS_PER_PROCESS = 1
HASHES_PER_PROCESS = 1
HOST_SHARE = 0.8
"""The server's memory knobs together get at most this share of the machine."""
DISK_SHARE = 0.5
"""WAL gets at most this share of the free disk; temporary files and growth need the rest."""

_KB = 1024
_PAGE = 8192
_GB = 1024**3
# The servers' defaults stand in for what a configuration does not name (native units).
_DEFAULTS: Mapping[str, float] = {
    "shared_buffers": 16384,
    "wal_buffers": -1,
    "work_mem": 4096,
    "hash_mem_multiplier": 2.0,
    "max_parallel_workers_per_gather": 2,
    "max_parallel_workers": 8,
    "autovacuum_max_workers": 3,
    "autovacuum_work_mem": -1,
    "maintenance_work_mem": 65536,
    "temp_buffers": 1024,
    "max_wal_size": 1024,
}
# In which order knobs give way, and down to what at first. Maintenance in the background can wait;
# what statements sort and hash in cannot.
_GIVE_WAY: tuple[tuple[str, float], ...] = (
    ("autovacuum_work_mem", 65536),
    ("maintenance_work_mem", 65536),
    ("work_mem", 4096),
    ("hash_mem_multiplier", 1.0),
    ("temp_buffers", 1024),
    ("max_parallel_workers_per_gather", 0),
    ("shared_buffers", 16384),
    ("work_mem", 64),
    ("maintenance_work_mem", 1024),
    ("autovacuum_work_mem", 1024),
)


class MemoryBudget:
    """The budget of one server.

    Args:
        host: the machine; a size of 0 or None is not known and not held against anything.
        clients: how many statements may run at once.
        memory_limit_gb: what the memory knobs together may add up to, in GB.
        present: the configuration in effect: it fills in what a proposal does not name, and what
            it takes already is not held against a proposal that takes no more.
    """

    def __init__(
        self,
        host: HostFacts,
        clients: int,
        memory_limit_gb: float,
        *,
        present: Callable[[], Mapping[str, KnobValue]] | None = None,
    ) -> None:
        self._host = host
        self._clients = max(clients, 1)
        self._limit_bytes = memory_limit_gb * _GB
        if host.memory_bytes > 0:
            self._limit_bytes = min(self._limit_bytes, HOST_SHARE * host.memory_bytes)
        self._present = present or dict

    def parts(self, config: Mapping[str, KnobValue]) -> Mapping[str, float]:
        """What each use of memory may add up to, in bytes."""
        return memory_parts({**self._present(), **config}, self._clients)

    def check(self, config: Mapping[str, KnobValue]) -> None:
        """Refuse a configuration that takes too much.

        Raises:
            MemoryBudgetError: with the sum, its parts and the limit.
        """
        parts = self.parts(config)
        total, limit = sum(parts.values()), self._memory_limit()
        if total > limit:
            told = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
            raise MemoryBudgetError(
                f"these settings could take {_size(total)} of memory, the limit is "
                f"{_size(limit)}: {told}",
                remedy="lower work_mem or shared_buffers, or raise safety.memory_limit_gb",
            )
        wal, wal_limit = self._wal_mb(config), self._wal_limit_mb()
        if wal > wal_limit:
            raise MemoryBudgetError(
                f"max_wal_size = {wal:g} MB is more than {DISK_SHARE:.0%} of the free disk "
                f"({wal_limit:g} MB)",
                remedy="lower max_wal_size, or free disk space",
            )

    def clamp(self, config: Mapping[str, KnobValue]) -> KnobConfig:
        """Shrink a proposal until it passes, maintenance first, then work_mem.

        Only named knobs are touched.

        A proposal whose other parts take too much already comes back as small as it gets, and
        ``check`` still refuses it.
        """
        values = dict(config)
        limit = self._memory_limit()
        for name, floor in _GIVE_WAY:
            if sum(self.parts(values).values()) <= limit:
                break
            if name in values:
                values[name] = self._shrunk(values, name, floor, limit)
        if "max_wal_size" in values and self._wal_mb(values) > self._wal_limit_mb():
            values["max_wal_size"] = math.floor(self._wal_limit_mb())
        return KnobConfig(values)

    # -- inside -----------------------------------------------------------------------------

    def _memory_limit(self) -> float:
        standing = memory_parts(self._present(), self._clients) if self._present() else {}
        return max(self._limit_bytes, sum(standing.values()))

    def _wal_mb(self, config: Mapping[str, KnobValue]) -> float:
        return _number({**self._present(), **config}, "max_wal_size")

    def _wal_limit_mb(self) -> float:
        standing = _number(self._present(), "max_wal_size")
        if self._host.free_disk_bytes is None:
            return math.inf
        return max(standing, DISK_SHARE * self._host.free_disk_bytes / 1024**2)

    def _shrunk(
        self, values: Mapping[str, KnobValue], name: str, floor: float, limit: float
    ) -> KnobValue:
        """The largest value between the floor and the present one that fits; else the floor.

        The sum is linear in each knob alone (or stays as it is), so two points give the line.
        """
        high = _number(values, name)
        if high <= floor:
            return values[name]
        whole = not isinstance(values[name], float)

        def total(value: float) -> float:
            typed = int(value) if whole else value
            return sum(self.parts({**values, name: typed}).values())

        lowest, highest = total(floor), total(high)
        if lowest >= limit or highest <= lowest:
            best = floor
        else:
            best = floor + (high - floor) * (limit - lowest) / (highest - lowest)
            best = math.floor(best) if whole else math.floor(best * 1000) / 1000
        best = max(best, floor)
        while best > floor and total(best) > limit:
            best = max(best - (1 if whole else 0.001), floor)
        return int(best) if whole else float(best)


def memory_parts(config: Mapping[str, KnobValue], clients: int) -> Mapping[str, float]:
    """What each use of memory may add up to, in bytes, by name.

    Values are in native units; what is not named counts as the server's default.
    """

    def value(name: str) -> float:
        return _number(config, name)

    shared = value("shared_buffers") * _PAGE
    wal = value("wal_buffers") * _PAGE
    if wal < 0:
        wal = min(shared / 32, 16 * 1024**2)
    # Workers are shared: all statements together never have more than max_parallel_workers.
    workers = min(clients * value("max_parallel_workers_per_gather"), value("max_parallel_workers"))
    nodes = SORTS_PER_PROCESS + HASHES_PER_PROCESS * value("hash_mem_multiplier")
    vacuum_kb = value("autovacuum_work_mem")
    if vacuum_kb < 0:
        vacuum_kb = value("maintenance_work_mem")
    return {
        "shared buffers": shared,
        "WAL buffers": wal,
        f"{clients} clients and {workers:g} workers, work_mem each for a sort and a hash": (
            (clients + workers) * nodes * value("work_mem") * _KB
        ),
        "temporary tables": clients * value("temp_buffers") * _PAGE,
        "autovacuum": value("autovacuum_max_workers") * vacuum_kb * _KB,
    }


def _number(config: Mapping[str, KnobValue], name: str) -> float:
    return float(config.get(name, _DEFAULTS.get(name, 0.0)))


def _size(size_bytes: float) -> str:
    if size_bytes >= _GB:
        return f"{size_bytes / _GB:.2f} GB"
    return f"{size_bytes / 1024**2:.0f} MB"
