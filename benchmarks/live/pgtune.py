"""PGTune's rules: one fixed configuration from the machine and the kind of workload.

The formulae are those that https://pgtune.leopard.in.ua publishes (as of 2026, for PostgreSQL 17 on
Linux with SSDs). It asks for the kind of application; ours map to its own: oltp and those of
pgbench to ``oltp``, analytical to ``dw``, mixed to ``mixed``. The number of connections is not
given, so its own number for the kind counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from backend.catalog.knobs import KnobCatalog
from backend.domain.knobs import Knob, KnobValue
from backend.domain.quantities import unit_size
from backend.domain.server import HostFacts
from backend.errors import AutopilotError

KIB, MIB, GIB = 1024, 1024**2, 1024**3
KINDS: Mapping[str, str] = {
    "oltp": "oltp",
    "pgbench": "oltp",
    "pgbench-select": "oltp",
    "analytical": "dw",
    "mixed": "mixed",
}
_CONNECTIONS = {"oltp": 300, "dw": 40, "mixed": 100}
_WAL_BYTES = {  # min_wal_size, max_wal_size
    "oltp": (2 * GIB, 8 * GIB),
    "dw": (4 * GIB, 16 * GIB),
    "mixed": (1 * GIB, 4 * GIB),
}
_DEFAULT_WORKER_PROCESSES = 8
_SSD_CONCURRENCY = 200


@dataclass(frozen=True)
class Advice:
    """What the rules set here, in native units, and what they ask for that is left out, and why."""

    values: Mapping[str, KnobValue]
    omitted: Mapping[str, str] = field(default_factory=dict)


def rules(kind: str, memory_bytes: int, cores: int) -> dict[str, float | str | bool]:
    """What PGTune says; sizes in bytes.

    Args:
        kind: ``oltp``, ``dw`` or ``mixed``.
        memory_bytes: of the machine.
        cores: of the machine.
    """
    shared = memory_bytes // 4
    maintenance = min(memory_bytes // (8 if kind == "dw" else 16), 8 * GIB)
    wal_buffers = max(min(3 * shared // 100, 16 * MIB), 32 * KIB)
    if wal_buffers > 14 * MIB:
        wal_buffers = 16 * MIB
    processes = cores if cores >= 4 else _DEFAULT_WORKER_PROCESSES
    work_mem = (memory_bytes - shared) / ((_CONNECTIONS[kind] + processes) * 3)
    if kind in ("dw", "mixed"):
        work_mem /= 2
    smallest_wal, largest_wal = _WAL_BYTES[kind]
    wanted: dict[str, float | str | bool] = {
        "max_connections": _CONNECTIONS[kind],
        "shared_buffers": shared,
        "effective_cache_size": memory_bytes * 3 // 4,
        "maintenance_work_mem": maintenance,
        "checkpoint_completion_target": 0.9,
        "wal_buffers": wal_buffers,
        "default_statistics_target": 500 if kind == "dw" else 100,
        "random_page_cost": 1.1,
        "effective_io_concurrency": _SSD_CONCURRENCY,
        "work_mem": max(work_mem, 4 * MIB),
        "huge_pages": "try" if shared >= 2 * GIB else "off",
        "min_wal_size": smallest_wal,
        "max_wal_size": largest_wal,
        "wal_compression": "lz4",
    }
    if kind != "dw":
        wanted["jit"] = False
    if maintenance >= 2 * GIB:
        wanted["autovacuum_work_mem"] = 2 * GIB
    if cores >= 16:
        wanted["autovacuum_max_workers"] = 5 if cores >= 32 else 4
    if cores >= 4:
        gather = math.ceil(cores / 2)
        wanted["max_worker_processes"] = cores
        wanted["max_parallel_workers_per_gather"] = gather if kind == "dw" else min(gather, 4)
        wanted["max_parallel_workers"] = cores
        wanted["max_parallel_maintenance_workers"] = min(gather, 4)
    return wanted


def advice(
    workload: str,
    host: HostFacts,
    catalog: KnobCatalog,
    *,
    allow_restart: bool,
    offered_choices: Mapping[str, Collection[str]] | None = None,
) -> Advice:
    """PGTune's configuration as far as it may be set here.

    Left out: settings that this product never changes (``max_connections``, ...), those that need
    a restart where none is allowed, and choices that this server was built without.

    Args:
        workload: one of :data:`KINDS`.
        host: the machine.
        catalog: the writable knobs with their units and bounds.
        allow_restart: whether knobs that need a restart may be set.
        offered_choices: what the running server offers for its categorical settings.
    """
    values: dict[str, KnobValue] = {}
    omitted: dict[str, str] = {}
    wanted = rules(KINDS[workload], host.memory_bytes, int(host.cpu_count))
    for name, value in wanted.items():
        try:
            knob = catalog.knob(name).knob
        except AutopilotError as error:
            omitted[name] = error.message
            continue
        if knob.context == "restart" and not allow_restart:
            omitted[name] = "needs a restart"
        elif value not in (offered_choices or {}).get(name, [value]):
            omitted[name] = f"this server was built without {value}"
        else:
            values[name] = _native(knob, value)
    return Advice(values, omitted)


def _native(knob: Knob, value: float | str | bool) -> KnobValue:
    """In the knob's own unit, inside its bounds."""
    if isinstance(value, (str, bool)):
        return knob.validate(value)
    low, high = knob.bounds
    if knob.unit is not None and unit_size(knob.unit)[0] == "bytes":
        value = value / unit_size(knob.unit)[1]
    if knob.kind == "integer":
        value = math.floor(value)
    return knob.validate(min(max(value, low), high))
