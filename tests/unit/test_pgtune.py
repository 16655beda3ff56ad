"""PGTune's rules as a method of the live comparison."""

from __future__ import annotations

import pytest

from backend.catalog.knobs import load_catalog
from backend.domain.server import HostFacts
from benchmarks.live.pgtune import advice, rules
from tests.live_comparison import GIB


def test_pgtunes_rules_for_a_mixed_server_of_16_gib_and_8_cores() -> None:
    found = rules("mixed", 16 * GIB, 8)
    assert found["shared_buffers"] == 4 * GIB
    assert found["effective_cache_size"] == 12 * GIB
    assert found["maintenance_work_mem"] == GIB
    assert found["work_mem"] == pytest.approx(12 * GIB / ((100 + 8) * 3) / 2)
    assert found["wal_buffers"] == 16 * 1024**2
    assert (found["min_wal_size"], found["max_wal_size"]) == (GIB, 4 * GIB)
    assert found["max_parallel_workers_per_gather"] == 4
    assert found["jit"] is False


def test_pgtunes_rules_for_a_warehouse() -> None:
    found = rules("dw", 64 * GIB, 32)
    assert found["maintenance_work_mem"] == 8 * GIB
    assert found["autovacuum_work_mem"] == 2 * GIB
    assert found["default_statistics_target"] == 500
    assert found["max_parallel_workers_per_gather"] == 16
    assert found["autovacuum_max_workers"] == 5
    assert "jit" not in found


def test_pgtune_leaves_parallelism_alone_below_four_cores() -> None:
    found = rules("oltp", 2 * GIB, 2)
    assert "max_parallel_workers" not in found
    assert found["work_mem"] == pytest.approx(max(1.5 * GIB / ((300 + 8) * 3), 4 * 1024**2))


def test_pgtune_here_says_what_it_leaves_out() -> None:
    host = HostFacts(16 * GIB, 8.0)
    found = advice(
        "mixed",
        host,
        load_catalog(170010, host),
        allow_restart=False,
        offered_choices={"wal_compression": ("off", "pglz")},
    )
    assert found.values["random_page_cost"] == 1.1
    assert found.values["effective_cache_size"] == 12 * GIB // 8192
    assert found.values["work_mem"] == int(12 * GIB / ((100 + 8) * 3) / 2 / 1024)
    assert found.values["max_wal_size"] == 4096
    assert found.omitted["shared_buffers"] == "needs a restart"
    assert "never changed" in found.omitted["max_connections"]
    assert found.omitted["wal_compression"] == "this server was built without lz4"
