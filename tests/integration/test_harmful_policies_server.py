"""Deliberately harmful knobs never pass the gate on a real server under an analytical load."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backend.domain.knobs import KnobValue
from backend.domain.modes import TrialKind, Verdict
from backend.orchestrator import SystemOrchestrator
from backend.servers import postgres_target
from backend.telemetry import open_store
from backend.trial_planner import TrialPlanner
from backend.workload.mixes import mix_named
from benchmarks.harness.load import OfferedLoad
from benchmarks.harness.offers import StoreOffer
from benchmarks.harness.scripted import Proposes
from benchmarks.harness.server import settings_in, shop_server
from tests.integration.conftest import open_folder
from tests.scripted_tuner import promise

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

SCALE = 0.02
HARMFUL: Mapping[str, Mapping[str, KnobValue]] = {
    "no memory": {"work_mem": 64, "hash_mem_multiplier": 1.0},
    "nested loops only": {"enable_hashjoin": False, "enable_mergejoin": False},
    "no indexes": {
        "enable_indexscan": False, "enable_indexonlyscan": False, "enable_bitmapscan": False,
    },
    "compile everything": {
        "jit": True, "jit_above_cost": 1000.0,
        "jit_inline_above_cost": 1000.0, "jit_optimize_above_cost": 1000.0,
    },
    "sort to aggregate": {"enable_hashagg": False, "work_mem": 64},
    "workers for everything, no memory": {
        "parallel_setup_cost": 10.0, "parallel_tuple_cost": 0.001,
        "min_parallel_table_scan_size": 0, "max_parallel_workers_per_gather": 2, "work_mem": 64,
    },
    "no indexes, compile everything": {
        "enable_indexscan": False, "enable_indexonlyscan": False, "enable_bitmapscan": False,
        "jit": True, "jit_above_cost": 1000.0,
    },
    "joins as written": {"join_collapse_limit": 1, "from_collapse_limit": 1, "work_mem": 64},
    "no hashing, no memory": {
        "enable_hashjoin": False, "enable_hashagg": False, "enable_memoize": False,
        "work_mem": 64,
    },
    "merge joins only": {
        "enable_hashjoin": False, "enable_nestloop": False, "work_mem": 64,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def at_work() -> Iterator[SystemOrchestrator]:
    """A tuner on a server whose clients ask for reports."""
    with open_folder() as name:
        settings = settings_in(
            Path(name),
            {
                "mode": "auto",
                "workload": {"data_scale_factor": SCALE},
                "level1": {"window_s": 2, "settle_s": 0.2, "baseline_s": 10, "rest_s": 0},
                "safety": {"cpu_limit_percent": 100, "memory_limit_percent": 100},
            },
        )
        offer = StoreOffer(mix_named("analytical"), SCALE, seed=1, rate_per_s=25.0)
        with shop_server(settings, print) as server, OfferedLoad(server.dsn(), offer):
            orchestrator = SystemOrchestrator(settings, target_factory=postgres_target)
            orchestrator.initialize_components()
            orchestrator._components.learner = Proposes(lambda present: present)  # type: ignore[assignment]
            orchestrator.begin()
            try:
                yield orchestrator
            finally:
                orchestrator.end()


def turn(orchestrator: SystemOrchestrator, until, most_s: float) -> None:
    """Let the jobs run as the scheduler runs them."""
    end_s, observed_s = time.monotonic() + most_s, 0.0
    while not until():
        assert time.monotonic() < end_s, f"not within {most_s:g} s"
        orchestrator.tune()
        if time.monotonic() - observed_s > 1.0:
            observed_s = time.monotonic()
            orchestrator.observe()
        time.sleep(0.05)


def test_harmful_knobs_are_not_deployed(
    at_work: SystemOrchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes straight to its promotion, with the allowance of a day's first."""
    monkeypatch.setattr(TrialPlanner, "_alpha_of_the_day", lambda self: self._level1.alpha)
    loop, store = at_work.loop, open_store(at_work.settings.store_url)
    parts, rejected = at_work._components, 0
    for name, values in HARMFUL.items():
        turn(at_work, lambda: loop.workloads.ready, 120)
        done = len(store.trials(limit=1000))
        promise(loop, parts.catalog.check_all(values))
        turn(at_work, lambda: loop.trial is not None, 60)
        turn(at_work, lambda: loop.trial is None, 300)
        (trial,) = store.trials(limit=1000)[done:]
        effect = "" if trial.effect is None else f"{trial.effect:+.0%}"
        print(f"{name}: {trial.verdict} {effect} after {trial.blocks} blocks: {trial.reasons}")
        assert trial.kind is TrialKind.PROMOTION
        assert trial.verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE), name
        rejected += trial.verdict is Verdict.REJECT
    assert rejected >= len(HARMFUL) // 2  # not for want of windows
    assert parts.deployment.deviating == {}
    assert len(store.policy_versions()) == 1
    assert not store.open_changes()
    store.close()
