"""What a proposal changes: within the memory budget as applied, and within what may change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from backend.ask_and_tell import AskAndTell
from backend.domain.knobs import Knob, KnobConfig, KnobSpace
from backend.domain.server import HostFacts
from backend.memory_budget import MemoryBudget

GB_KB = 1024**2
SPACE = KnobSpace([Knob("work_mem", "integer", 64, 4 * GB_KB, "log", "kB", 4096)])
HOST = HostFacts(memory_bytes=16 * 1024**3, cpu_count=4.0)


def asked(present: KnobConfig, wanted: int, limit_gb: float) -> Any:
    """What is tried of a proposal for work_mem, and the memory that then stands."""
    budget = MemoryBudget(HOST, clients=10, memory_limit_gb=limit_gb, present=lambda: present)

    class Asked:
        proposer, workload = "the test", "shop"

        def ask(self, state: object, present: KnobConfig) -> KnobConfig:
            return present.replace({"work_mem": wanted})

        def fit(self, config: KnobConfig) -> KnobConfig:
            clamped = budget.clamp(config)
            budget.check(clamped)
            return clamped

    permission = SimpleNamespace(bounded=KnobConfig, admits=lambda changes: True)
    deployment = SimpleNamespace(present=present)
    parts: tuple[Any, ...] = (Asked(), deployment, SPACE, 0.15, permission)
    found = AskAndTell(*parts).ask(None)
    changes = found[0] if found else {}
    return changes, sum(budget.parts(present.replace(changes)).values()) / 1024**3


def test_what_is_not_tried_does_not_give_way_on_paper() -> None:
    # Maintenance in the background takes 3 of 4 GB, and is no knob of ours.
    present = KnobConfig({"work_mem": 4096, "autovacuum_work_mem": GB_KB, "shared_buffers": 16384})
    changes, takes_gb = asked(present, GB_KB // 4, limit_gb=4.0)
    assert set(changes) <= {"work_mem"}
    assert takes_gb <= 4.0
    assert 4096 < changes["work_mem"] < GB_KB // 4


def test_what_fits_is_tried_as_it_is() -> None:
    present = KnobConfig({"work_mem": 4096, "autovacuum_work_mem": 65536, "shared_buffers": 16384})
    changes, takes_gb = asked(present, 8192, limit_gb=4.0)
    assert changes == {"work_mem": 8192}
    assert takes_gb <= 4.0
