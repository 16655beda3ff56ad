"""What windows and clients' intervals say: by phase, by load, by act, over time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise

import numpy as np

from tests.rebuilt_report.raw_store import Row

OF_CLIENTS = ("mean_ms", "p50_ms", "p95_ms", "p99_ms")


def deployed(windows: Iterable[Row], trials: Iterable[Row]) -> list[Row]:
    """Those under what was deployed: outside trials, and the arm that stands in one."""
    kinds = {trial["id"]: trial["kind"] for trial in trials}

    def stands(window: Row) -> bool:
        turned = kinds.get(window["trial_id"]) in ("probation", "recheck", "final")
        return window["arm"] in (None, "candidate" if turned else "incumbent")

    return [window for window in windows if stands(window)]


def measured(windows: Sequence[Row], clients: Sequence[Row]) -> Row:
    """What a set of windows showed, with the clients' intervals that lie in them."""
    seconds = np.array([w["duration_s"] for w in windows], dtype=float)
    calls = np.array([w["calls_per_s"] for w in windows], dtype=float)
    index = _numbers(w["index"] for w in windows)
    known = index[~np.isnan(index)]
    inside = [row for row in clients if any(_in(row, window) for window in windows)]
    completed = np.array([row["completed"] for row in inside], dtype=float)
    clients_s = sum(_seconds(row["ended_at"] - row["started_at"]) for row in inside)
    statements = _mean(calls, seconds)
    found: Row = {
        "windows": len(windows),
        "seconds": float(seconds.sum()),
        "latency_index": _mean(index, seconds),
        "latency_index_p50": float(np.median(known)) if len(known) else None,
        "latency_index_p95": float(np.percentile(known, 95)) if len(known) else None,
        "mean_ms": _mean(_numbers(w["mean_ms"] for w in windows), calls * seconds),
        "throughput_per_s": float(completed.sum()) / clients_s if clients_s else statements,
        "statements_per_s": statements,
        "cpu_percent": _mean(_numbers(w["gauges"].get("host_cpu_percent") for w in windows),
                             seconds),
        "quality": _mean(_numbers(w["quality"] for w in windows), seconds),
        "errors": sum(row["errors"] for row in inside),
        "timeouts": sum(row["timeouts"] for row in inside),
    }  # fmt: skip
    for name in OF_CLIENTS:
        found[f"client_{name}"] = _mean(_numbers(row[name] for row in inside), completed)
    return found


def _in(interval: Row, window: Row) -> bool:
    middle = interval["started_at"] + (interval["ended_at"] - interval["started_at"]) / 2
    return bool(window["started_at"] <= middle < window["ended_at"])


def _numbers(values: Iterable[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _mean(values: np.ndarray, weights: np.ndarray) -> float | None:
    counts = ~np.isnan(values) & (weights > 0)
    return float(np.average(values[counts], weights=weights[counts])) if counts.any() else None


def _seconds(length: timedelta) -> float:
    return length.total_seconds()


def by_load(windows: Sequence[Row], clients: Sequence[Row]) -> Row:
    if not windows:
        return {}
    middle = float(np.median([w["calls_per_s"] for w in windows]))
    return {
        "busier": measured([w for w in windows if w["calls_per_s"] > middle], clients),
        "quieter": measured([w for w in windows if w["calls_per_s"] <= middle], clients),
    }


def acts(events: Sequence[Row], windows: Sequence[Row], clients: Sequence[Row]) -> list[Row]:
    acts = sorted((e["at"], e["message"]) for e in events if e["kind"] == "act")
    if not acts or not windows:
        return []
    begins = [windows[0]["started_at"], *(at for at, _ in acts), windows[-1]["ended_at"]]
    titles = ["before anything happened", *(message for _, message in acts)]
    return [
        {
            "title": title,
            "started_at": begin.isoformat(),
            "ended_at": end.isoformat(),
            "measured": measured([w for w in windows if begin <= w["started_at"] < end], clients),
        }
        for title, (begin, end) in zip(titles, pairwise(begins), strict=True)
    ]


def trend(windows: Sequence[Row]) -> list[list[float]]:
    shown = [w for w in windows if w["index"] is not None]
    step = max(1, math.ceil(len(shown) / 300))
    chunks = [shown[start : start + step] for start in range(0, len(shown), step)]
    return [
        [
            _seconds(chunk[0]["ended_at"] - shown[0]["ended_at"]),
            float(np.average([w["index"] for w in chunk],
                             weights=[w["duration_s"] for w in chunk])),
        ]
        for chunk in chunks
    ]  # fmt: skip
