"""The greedy peer, live: the longest query as it is served now, with any hint set not tried yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backend.domain.plans import DEFAULT_HINT_SET
from benchmarks.live_steering.bench import Bench
from benchmarks.steering.peers import GreedyExplorer

LEAST_TIMEOUT_S = 0.001


def explore_greedily(
    bench: Bench, names: Sequence[str], budget_s: float, tell: Callable[[float], None]
) -> dict[str, Any]:
    """Explore one statement of each class until the budget is spent; what is served then.

    As on recorded matrices: the time-out is the query's best latency so far, and what is served is
    the fastest hint set measured. Measuring the default plans is paid for too.

    Args:
        bench: the server.
        names: the classes.
        budget_s: seconds of the server's time that statements may take.
        tell: is given the seconds spent so far.
    """
    verdicts = [bench.verdict(name, "explored", 0) for name in names]
    spent_s, default_s = 0.0, np.zeros(len(names))
    for number, verdict in enumerate(verdicts):
        hint_sets = [DEFAULT_HINT_SET] * 2
        runs = bench.runner.run(verdict, hint_sets, [bench.max_timeout_s] * 2)
        default_s[number] = runs[-1].latency_s
        spent_s += sum(run.latency_s for run in runs)
    arms = bench.catalog.hint_sets
    explorer = GreedyExplorer(default_s, len(arms), bench.seed)
    probes = 0
    while spent_s < budget_s and (probe := explorer.ask()) is not None:
        timeout_s = min(max(probe.timeout_s, LEAST_TIMEOUT_S), bench.max_timeout_s)
        run = bench.runner.run(verdicts[probe.query], [arms[probe.hint_set]], [timeout_s])[0]
        explorer.tell(probe, run.latency_s, timed_out=run.checksum is None)
        spent_s, probes = spent_s + run.latency_s, probes + 1
        tell(spent_s)
    served = {name: arms[explorer.serve(number)].name for number, name in enumerate(names)}
    return {"served": served, "probes": probes, "spent_s": spent_s}
