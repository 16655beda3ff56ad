"""The live exploration on made-up workloads: what it saves for its time, and nothing worse."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.steering import SteeringState
from tests.exploring import Behaviour, MadeUpClass, World, small_catalog

TOGGLES = (
    "no_nestloop", "no_hashjoin", "no_mergejoin", "no_seqscan", "no_indexscan", "no_bitmapscan",
    "no_sort", "no_hashagg", "no_parallel", "work_mem_64mb", "wide_search", "no_jit",
)  # fmt: skip
CLASSES = 20


def workload(seed: int) -> list[MadeUpClass]:
    """Classes of 20 ms to 20 s; most hint sets harm most of them, some rescue the long ones."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(0.6, 0.7, size=(4, len(TOGGLES)))
    classes = []
    for number in range(CLASSES):
        default_s = float(np.exp(rng.uniform(np.log(0.02), np.log(20.0))))
        shift = 0.25 * np.log(default_s)
        log_ratios = kinds[rng.integers(4)] - shift + rng.normal(0.0, 0.3, size=len(TOGGLES))
        others = {
            toggle: Behaviour(default_s * float(np.exp(log_ratio)))
            for toggle, log_ratio in zip(TOGGLES, log_ratios, strict=True)
        }
        classes.append(MadeUpClass(f"class_{number}", Behaviour(default_s), others))
    return sorted(classes, key=lambda made_up: -made_up.default.latency_s)


def totals_s(world: World) -> tuple[float, float, float]:
    """Seconds that one execution of every class takes by default, as served, and at best."""
    default_s = served_s = best_s = 0.0
    for made_up in world.server.classes.values():
        record = world.register.get(made_up.key)
        default_s += made_up.default.latency_s
        steered = record is not None and record.state is SteeringState.VERIFIED
        hint_set = record.evidence.hint_set if steered and record and record.evidence else ""
        served = made_up.others[hint_set] if hint_set else made_up.default
        served_s += served.latency_s
        fastest = min(other.latency_s for other in made_up.others.values())
        best_s += min(fastest, made_up.default.latency_s)
    return default_s, served_s, best_s


def shares_saved(seed: int, budgets: tuple[float, ...]) -> list[float]:
    """Of what can be saved, after exploring for so many times the workload's default total."""
    world = World(*workload(seed), catalog=small_catalog(TOGGLES), noise=0.05)
    shares = []
    for budget in budgets:
        default_s, _, _ = totals_s(world)
        spent_s = budget * default_s
        world.work(until=lambda spent_s=spent_s: world.exploration.spent_s >= spent_s, most=100_000)
        default_s, served_s, best_s = totals_s(world)
        shares.append((default_s - served_s) / (default_s - best_s))
    return shares


@pytest.mark.parametrize("seed", [0, 1])
def test_most_of_what_can_be_saved_is_saved_and_more_of_it_with_time(seed: int) -> None:
    early, late = shares_saved(seed, (20.0, 50.0))
    assert early >= 0.4
    assert late >= max(0.85, early)


def test_nothing_is_served_that_is_slower_where_all_plans_are_about_equal() -> None:
    rng = np.random.default_rng(5)
    classes = [
        MadeUpClass(
            f"class_{number}",
            Behaviour(0.01 * 3.0**number),
            {toggle: Behaviour(0.01 * 3.0**number * rng.uniform(0.97, 1.1)) for toggle in TOGGLES},
        )
        for number in range(6)
    ]
    world = World(*classes, catalog=small_catalog(TOGGLES), noise=0.2)
    world.work()
    for made_up in classes:
        assert world.record(made_up.name).state is SteeringState.DEFAULT_BEST
