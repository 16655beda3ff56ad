"""Records of a live comparison made from a few numbers, for the tests of what reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from backend.domain.knobs import KnobValue
from backend.sample_filter import Reference
from benchmarks.harness.offers import LoadCounts
from benchmarks.harness.windows import Measured
from benchmarks.live.arithmetic import is_harmful
from benchmarks.live.comparison import arrivals_of
from benchmarks.live.records import Comparison, Evaluation, Part, Protocol
from tests.windows import window

GIB = 1024**3
PROTOCOL = Protocol(
    minutes=1.0,
    window_s=10.0,
    warm_up_s=15.0,
    scale=0.25,
    rate_per_s=32.0,
    clients=8,
    statement_timeout_s=10.0,
    memory_limit_gb=2.0,
    allow_restart=False,
    knobs="0123",
    cores=2,
    memory_gb=24,
    server_version=170010,
)


def evaluation(number: int, objective: float, **changed: Any) -> Evaluation:
    return Evaluation(
        number=number,
        at_s=25.0 * number,
        objective=objective,
        effect=objective - 1,
        regret=0.0,
        harmful=is_harmful(objective),
        censored=False,
        clamped=False,
        quality=1.0,
        coverage=1.0,
        drift=0.01,
        ask_s=0.1,
        tell_s=0.1,
        changes={"work_mem": 1000 + number},
        **changed,
    )


def part(
    method: str,
    objectives: tuple[float, ...] = (),
    final: Mapping[str, KnobValue] | None = None,
    seed: int = 0,
) -> Part:
    return Part(
        workload="mixed",
        seed=seed,
        method=method,
        finished_at="2026-01-01T00:00:00+00:00",
        protocol=PROTOCOL,
        evaluations=tuple(evaluation(k + 1, value) for k, value in enumerate(objectives)),
        final=dict(final or {}),
        final_objective=min(objectives, default=None),
        clamped=0,
        refused=0,
        violations=[],
        durability=[],
        omitted={},
    )


def compared(ratios: Mapping[str, list[float | None]], seed: int = 0, **finals: Any) -> Comparison:
    """A comparison of these ratios (not their logarithms), block by block."""
    count = len(next(iter(ratios.values())))
    logs = {m: [None if r is None else math.log(r) for r in found] for m, found in ratios.items()}
    return Comparison(
        workload="mixed",
        seed=seed,
        finished_at="2026-01-01T00:00:00+00:00",
        protocol=PROTOCOL,
        finals={method: finals.get(method.replace("-", "_"), {}) for method in ratios},
        blocks=tuple({m: found[k] for m, found in logs.items()} for k in range(count)),
        violations=[],
        durability=[],
        arrivals=arrivals_of(seed),
    )


def measured(mean_ms: float, calls: int = 100, timeouts: tuple[int, int] = (0, 0)) -> Measured:
    whole = window({1: (calls, mean_ms)}, 10.0)
    half = window({1: (calls // 2, mean_ms)}, 5.0)
    before, after = (LoadCounts(completed=1, timeouts=t) for t in timeouts)
    return Measured(whole, (half, half), before, after)


def with_steal(found: Measured, percent: float = 20.0) -> Measured:
    """The same, while other machines on the host took so much of the CPU."""
    return replace(found, window=replace(found.window, gauges={"host_steal_percent": percent}))


SHARES = Reference.from_windows([window({1: (300, 10.0)})])
