"""The comparison at the end, down to the statements of its windows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from tests.rebuilt_report.measured import measured
from tests.rebuilt_report.raw_store import RawStore, Row, plain


def comparison(store: RawStore, final: Row | None, phases: Row, clients: Sequence[Row]) -> Row:
    if final is None:
        before, after = phases["baseline"], phases["optimised"]
        both = before["windows"] and after["windows"]
        return {
            "compared": "phases" if both else "nothing", "baseline": before, "final": after,
            "improvement": None, "ci_low": None, "ci_high": None, "confidence": None,
            "comparison": None,
        }  # fmt: skip
    windows = [w for w in store.rows("windows") if w["trial_id"] == final["id"]]
    effect, low, high = interval(final["block_log_ratios"])
    return {
        "compared": "final comparison",
        "baseline": measured([w for w in windows if w["arm"] == "incumbent"], clients),
        "final": measured([w for w in windows if w["arm"] == "candidate"], clients),
        "improvement": -effect,
        "ci_low": -high,
        "ci_high": -low,
        "confidence": 0.95,
        "comparison": plain(final),
    }


def interval(log_ratios: Sequence[float]) -> tuple[float, float, float]:
    """Relative effect, and Student's two-sided 95 % interval of it."""
    values = np.array(log_ratios)
    margin = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    mean = values.mean()
    return math.expm1(mean), math.expm1(mean - margin), math.expm1(mean + margin)


def blocks_of_the_comparison(path: Path) -> tuple[list[float], list[float]]:
    """The final comparison's log ratios, as recorded and from the statements of its windows.

    Four windows a block in the order of measuring; the shares of the calls are those of the
    workload's reference, the times those of the block. It must not have had a void window.
    """
    store = RawStore(path)
    final = [t for t in store.of_the_run("trials", "created_at") if t["kind"] == "final"][-1]
    told = [e for e in store.of_the_run("events", "at") if e["kind"] == "final_comparison"][-1]
    number = int(told["message"].split(" workload ")[1].split()[0])
    (workload,) = (w for w in store.workloads if w["number"] == number)
    shares = {key: known["share"] for key, known in workload["classes"].items()}
    windows = [w for w in store.rows("windows") if w["trial_id"] == final["id"]]
    queries = store.rows("window_queries", "window_id, key")
    assert len(windows) == 4 * final["blocks"], "a window of the comparison was void"
    return final["block_log_ratios"], [
        _log_ratio(windows[start : start + 4], queries, shares)
        for start in range(0, len(windows), 4)
    ]


def _log_ratio(block: Sequence[Row], queries: Iterable[Row], shares: Mapping[str, float]) -> float:
    arms = {window["id"]: window["arm"] for window in block}
    calls: Counter[tuple[str, str]] = Counter()
    times_ms: Counter[tuple[str, str]] = Counter()
    for query in queries:
        if query["window_id"] in arms:
            place = arms[query["window_id"]], query["key"]
            calls[place] += query["calls"]
            times_ms[place] += query["calls"] * query["mean_ms"]
    seen = [key for key in shares if min(calls["candidate", key], calls["incumbent", key]) >= 3]

    def cost_ms(arm: str) -> float:
        return sum(shares[key] * times_ms[arm, key] / calls[arm, key] for key in seen)

    return math.log(cost_ms("candidate") / cost_ms("incumbent"))
