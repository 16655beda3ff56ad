"""The joint memory and disk budget: sums, refusals, clamping."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.catalog import load_catalog
from backend.domain.knobs import KnobValue
from backend.domain.server import HostFacts
from backend.errors import MemoryBudgetError
from backend.memory_budget import MemoryBudget, memory_parts

MB = 1024**2
GB = 1024**3
HOST = HostFacts(memory_bytes=16 * GB, cpu_count=4.0, free_disk_bytes=100 * GB)
MEMORY_KNOBS = [
    "shared_buffers",
    "work_mem",
    "hash_mem_multiplier",
    "maintenance_work_mem",
    "autovacuum_work_mem",
    "temp_buffers",
    "max_parallel_workers_per_gather",
    "max_parallel_workers",
    "wal_buffers",
]


def total(config: Mapping[str, KnobValue], clients: int) -> float:
    return sum(memory_parts(config, clients).values())


def test_the_sum_of_the_defaults() -> None:
    parts = memory_parts({}, clients=10)
    assert parts["shared buffers"] == 128 * MB
    assert parts["WAL buffers"] == 4 * MB
    assert parts["temporary tables"] == 10 * 8 * MB
    assert parts["autovacuum"] == 3 * 64 * MB
    # 10 clients and the 8 workers there may be, each with a sort (4 MB) and a hash (8 MB).
    assert sum(parts.values()) == (128 + 4 + 80 + 192 + 18 * 12) * MB


def test_workers_are_counted_once_for_all() -> None:
    few = total({"max_parallel_workers_per_gather": 2, "max_parallel_workers": 4}, 50)
    many = total({"max_parallel_workers_per_gather": 4, "max_parallel_workers": 4}, 50)
    assert few == many
    assert total({"max_parallel_workers_per_gather": 0}, 50) < few


def test_autovacuum_has_its_own_memory_where_that_is_set() -> None:
    config = {"maintenance_work_mem": 1048576, "autovacuum_work_mem": 65536}
    assert memory_parts(config, 1)["autovacuum"] == 3 * 64 * MB


def test_wal_buffers_choose_themselves_up_to_16_mb() -> None:
    assert memory_parts({"shared_buffers": 1048576}, 1)["WAL buffers"] == 16 * MB
    assert memory_parts({"wal_buffers": 512}, 1)["WAL buffers"] == 4 * MB


def test_a_refusal_names_the_sum_its_parts_and_the_limit() -> None:
    with pytest.raises(MemoryBudgetError) as caught:
        MemoryBudget(HOST, 10, 2).check({"work_mem": 262144})
    told = str(caught.value)
    assert "the limit is 2.00 GB" in told
    assert "10 clients and 8 workers, work_mem each for a sort and a hash 13.50 GB" in told
    assert "shared buffers 128 MB" in told
    assert "Remedy: lower work_mem" in told


def test_the_limit_never_passes_the_machines_share() -> None:
    small = HostFacts(memory_bytes=GB, cpu_count=2.0)
    with pytest.raises(MemoryBudgetError, match="the limit is 819 MB"):
        MemoryBudget(small, 2, 64).check({"shared_buffers": 131072})


def test_an_unknown_machine_is_held_against_the_setting_alone() -> None:
    remote = HostFacts(memory_bytes=0, cpu_count=0, free_disk_bytes=None, is_local=False)
    MemoryBudget(remote, 2, 2).check({"max_wal_size": 32768})
    with pytest.raises(MemoryBudgetError):
        MemoryBudget(remote, 2, 2).check({"shared_buffers": 524288})


def test_what_stands_already_is_not_held_against_a_change() -> None:
    present = {"shared_buffers": 1048576, "work_mem": 4096}
    budget = MemoryBudget(HOST, 10, 2, present=lambda: present)
    budget.check({"random_page_cost": 1.1})
    budget.check({"work_mem": 2048})
    with pytest.raises(MemoryBudgetError):
        budget.check({"work_mem": 8192})


def test_wal_gets_half_the_free_disk() -> None:
    tight = HostFacts(memory_bytes=16 * GB, cpu_count=4.0, free_disk_bytes=10 * GB)
    MemoryBudget(tight, 2, 2).check({"max_wal_size": 5120})
    with pytest.raises(MemoryBudgetError, match=r"max_wal_size = 8192 MB is more than 50%"):
        MemoryBudget(tight, 2, 2).check({"max_wal_size": 8192})
    assert MemoryBudget(tight, 2, 2).clamp({"max_wal_size": 8192})["max_wal_size"] == 5120
    full = HostFacts(memory_bytes=16 * GB, cpu_count=4.0, free_disk_bytes=MB)
    assert MemoryBudget(full, 2, 2).clamp({"max_wal_size": 8192})["max_wal_size"] == 1024


def test_clamp_shrinks_maintenance_first_then_work_mem_as_little_as_it_can() -> None:
    wanted = {"work_mem": 262144, "maintenance_work_mem": 131072, "random_page_cost": 1.1}
    clamped = MemoryBudget(HOST, 10, 2).clamp(wanted)
    assert clamped["maintenance_work_mem"] == 65536
    assert clamped["random_page_cost"] == 1.1
    assert 4096 < clamped["work_mem"] < 262144
    MemoryBudget(HOST, 10, 2).check(clamped)
    more = dict(clamped) | {"work_mem": int(clamped["work_mem"]) + 1}
    with pytest.raises(MemoryBudgetError):
        MemoryBudget(HOST, 10, 2).check(more)


def test_clamp_leaves_what_fits_alone() -> None:
    config = {"work_mem": 16384, "hash_mem_multiplier": 2.5}
    assert MemoryBudget(HOST, 10, 2).clamp(config) == config


@given(data=st.data(), clients=st.integers(1, 200), limit_gb=st.floats(1, 64))
def test_clamped_configurations_are_legal_smaller_and_pass_where_they_can(
    data: st.DataObject, clients: int, limit_gb: float
) -> None:
    space = load_catalog(17, HOST).space(tunable_only=False, include_restart=True)
    config: dict[str, KnobValue] = {}
    for name in data.draw(st.sets(st.sampled_from(MEMORY_KNOBS))):
        knob = space[name]
        low, high = knob.bounds
        number = st.floats(low, high) if knob.kind == "real" else st.integers(int(low), int(high))
        config[name] = data.draw(number)
    clamped = MemoryBudget(HOST, clients, limit_gb).clamp(config)
    assert clamped.keys() == config.keys()
    assert space.validate(dict(clamped)) == clamped
    for name, value in config.items():
        assert float(clamped[name]) <= float(value)
    before, after = total(config, clients), total(clamped, clients)
    assert after <= before
    defaults_fit = total({}, clients) <= min(limit_gb * GB, 0.8 * 16 * GB)
    if defaults_fit and "wal_buffers" not in config and "max_parallel_workers" not in config:
        MemoryBudget(HOST, clients, limit_gb).check(clamped)
