"""The final report a second time: from the raw rows of a store's file, by plain SQL and numpy.

Nothing of the product is imported: whatever the report claims is derived here once more.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Row = dict[str, Any]

JSON_COLUMNS = {
    "config", "quality_reasons", "rates", "gauges", "before", "after", "reasons", "detail",
    "block_log_ratios", "class_effects", "before_value", "after_value", "steering", "weights",
    "genes", "fitness", "profile", "comparison", "evidence", "document",
}  # fmt: skip
TEXT_COLUMNS = {("policy_updates", "weights"), ("changes", "detail")}
"""Of these tables they are no JSON."""
TIME_COLUMNS = {
    "at", "started_at", "ended_at", "created_at", "finished_at", "settled_at", "first_seen_at",
}  # fmt: skip
FLAG_COLUMNS = {"active", "deployed", "needs_restart"}
OF_CLIENTS = ("mean_ms", "p50_ms", "p95_ms", "p99_ms")
LEVEL_1, INJECTED = "policy (Level 1)", "demonstration"


class RawStore:
    """The tables of a store's file as rows of plain values.

    Args:
        path: of the file; it is only read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        present = {row["name"]: row["document"] for row in self.rows("present", order="name")}
        self.status: Row = present["status"]
        self.knobs = {knob["name"]: knob for knob in present["knobs"]}
        self.workloads: Sequence[Row] = present.get("workloads", [])
        self.start = datetime.fromisoformat(self.status["started_at"])

    def rows(self, table: str, order: str = "id") -> list[Row]:
        """All rows of a table."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
        return [
            {name: _value(table, name, row[name]) for name in row.keys()}  # noqa: SIM118
            for row in found
        ]

    def of_the_run(self, table: str, time: str, order: str = "id") -> list[Row]:
        """The rows of a table since the run began."""
        return [row for row in self.rows(table, order) if row[time] >= self.start]


def _value(table: str, name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in JSON_COLUMNS and (table, name) not in TEXT_COLUMNS:
        return json.loads(value)
    if name in TIME_COLUMNS:
        return datetime.fromisoformat(value).replace(tzinfo=timezone.utc)
    return bool(value) if name in FLAG_COLUMNS else value


def rebuilt(path: Path) -> Row:
    """All that final_report.json says of a store, but for ``generated_at`` and ``workload``."""
    store = RawStore(path)
    trials = store.of_the_run("trials", "created_at")
    windows = _deployed(store.of_the_run("windows", "started_at", "started_at, id"), trials)
    clients = [
        row
        for row in store.of_the_run("client_intervals", "started_at", "started_at, id")
        if row["class_name"] == "*"
    ]
    finals = [t for t in trials if t["kind"] == "final" and t["verdict"] in ENDED]
    final = finals[-1] if finals else None
    phases = {
        phase: measured([w for w in windows if w["phase"] == phase], clients)
        for phase in ("baseline", "learning", "optimised", "final comparison")
    }
    events = store.of_the_run("events", "at")
    return {
        "started_at": store.start.isoformat(),
        "server": {
            "address": store.status["server"],
            "version": store.status["server_version"],
            "mode": store.status["mode"],
        },
        **_comparison(store, final, phases, clients),
        "configuration": _configuration(store, final),
        "trials": _trials(trials),
        "phases": phases,
        "by_load": _by_load(windows, clients),
        "acts": _acts(events, windows, clients),
        "levels": _levels(store, trials, events),
        "query_classes": _query_classes(store, final),
        "policy_versions": _versions(store),
        "changes": [_plain(row) for row in store.of_the_run("changes", "created_at")],
        "events": _events(events),
        "index_trend": _trend(windows),
        "units": {name: knob["unit"] for name, knob in store.knobs.items() if knob["unit"]},
        "steering": _steering(store),
    }


ENDED = ("accept", "reject", "inconclusive")


# -- what windows and clients say ---------------------------------------------------------------


def _deployed(windows: Iterable[Row], trials: Iterable[Row]) -> list[Row]:
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


def _by_load(windows: Sequence[Row], clients: Sequence[Row]) -> Row:
    if not windows:
        return {}
    middle = float(np.median([w["calls_per_s"] for w in windows]))
    return {
        "busier": measured([w for w in windows if w["calls_per_s"] > middle], clients),
        "quieter": measured([w for w in windows if w["calls_per_s"] <= middle], clients),
    }


def _acts(events: Sequence[Row], windows: Sequence[Row], clients: Sequence[Row]) -> list[Row]:
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


def _trend(windows: Sequence[Row]) -> list[list[float]]:
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


# -- the comparison, down to the statements of its windows ----------------------------------------


def _comparison(store: RawStore, final: Row | None, phases: Row, clients: Sequence[Row]) -> Row:
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
        "comparison": _plain(final),
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


# -- what was tried, changed and told -------------------------------------------------------------


def _trials(trials: Sequence[Row]) -> Row:
    outcomes = [(t["kind"], t["verdict"] or "unfinished") for t in trials]
    both: dict[str, dict[str, int]] = {}
    for kind, outcome in outcomes:
        both.setdefault(kind, Counter())[outcome] += 1
    return {
        "total": len(trials),
        "by_kind": dict(Counter(kind for kind, _ in outcomes)),
        "by_verdict": dict(Counter(outcome for _, outcome in outcomes)),
        "by_kind_and_verdict": {kind: dict(counts) for kind, counts in both.items()},
        "list": [_plain(trial) for trial in trials],
    }


def _levels(store: RawStore, trials: Sequence[Row], events: Sequence[Row]) -> Row:
    updates = store.of_the_run("policy_updates", "at")
    genomes = store.of_the_run("genomes", "at")
    rollbacks = [event for event in events if event["kind"] == "rollback"]

    def proposed(wanted: Sequence[Row]) -> Row:
        promotions = [t for t in wanted if t["kind"] == "promotion"]
        accepted = [t for t in promotions if t["verdict"] == "accept"]
        return {
            "probes": sum(t["kind"] == "probe" for t in wanted),
            "promotions": len(promotions),
            "promoted": len(accepted),
            "effects": [t["effect"] for t in accepted],
        }

    def ended(kind: str) -> int:
        return sum(t["kind"] == kind and t["verdict"] in ENDED for t in trials)

    return {
        "level 0": proposed([t for t in trials if t["proposer"] not in (LEVEL_1, INJECTED)]),
        "level 1": {
            **proposed([t for t in trials if t["proposer"] == LEVEL_1]),
            "updates": len(updates),
            "deployed": sum(update["deployed"] for update in updates),
            "probations": ended("probation"),
            "rechecks": ended("recheck"),
            "undone": len(rollbacks),
            "policy_updates": [_plain(update) for update in updates],
            "rollbacks": [
                {"at": event["at"].isoformat(), "message": event["message"]}
                for event in rollbacks
            ],
        },
        "level 2": {
            "measured": len(genomes),
            "deployed": sum(genome["deployed"] for genome in genomes),
            "genomes": [_plain(g) for g in genomes if g["deployed"] or g["comparison"]],
        },
    }  # fmt: skip


def _configuration(store: RawStore, final: Row | None) -> Row:
    active = [v for v in store.rows("policy_versions") if v["active"]]
    config = final["after"] if final else active[-1]["config"] if active else {}
    return {
        name: {
            "value": value,
            "default": store.knobs[name]["default"],
            "unit": store.knobs[name]["unit"],
            "initial": final["before"].get(name) if final else None,
        }
        for name, value in sorted(config.items())
    }


def _query_classes(store: RawStore, final: Row | None) -> list[Row]:
    if final is None:
        return []
    texts = {row["key"]: row["text"] for row in store.rows("query_classes", "key")}
    names = ("effect", "ci_low", "ci_high", "incumbent_ms", "candidate_ms")
    classes = [
        {"key": key, "text": texts.get(key, ""), **{name: found.get(name) for name in names}}
        for key, found in final["class_effects"].items()
    ]
    return sorted(classes, key=lambda one: one["effect"])


def _versions(store: RawStore) -> list[Row]:
    hints = {row["digest"]: row["document"] for row in store.rows("served_hints", "digest")}
    return [
        _plain(version)
        | {
            "steering": [
                {
                    "fingerprint": hints[digest]["key"]["fingerprint"],
                    "hint_set": hints[digest]["evidence"]["hint_set"],
                }
                for digest in version["steering"]
            ]
        }
        for version in store.rows("policy_versions")
        if version["active"] or version["created_at"] >= store.start
    ]


def _events(events: Sequence[Row]) -> Row:
    levels: dict[str, list[Row]] = {"info": [], "warning": [], "error": []}
    for event in events:
        levels.setdefault(event["level"], []).append(event)
    return {
        level: {"count": len(some), "newest": [_plain(event) for event in some[-50:]]}
        for level, some in levels.items()
    }


def _steering(store: RawStore) -> Row:
    """Without the ratios in service, which are no sums: tests/unit/test_service_latency.py."""
    classes = store.rows("steered_classes", "fingerprint, search_path")
    if not classes:
        return {}
    auto = store.status["mode"] == "auto"

    def served(one: Row) -> bool:
        if one["evidence"] is None or one["mode"] == "off":
            return False
        return one["mode"] == "pin" or (auto and one["state"] == "verified")

    proven = [one for one in classes if one["evidence"] is not None]
    timings = store.of_the_run("service_timings", "started_at")
    return {
        "states": dict(Counter(one["state"] for one in classes)),
        "steered": sum(map(served, classes)),
        "explored_s": sum(one["explored_s"] for one in classes),
        "classes": [
            {
                "fingerprint": one["fingerprint"],
                "search_path": one["search_path"],
                "text": one["text"],
                "state": one["state"],
                "mode": one["mode"],
                "steered": served(one),
                "withdrawn_because": one["reason"] if one["state"] == "withdrawn" else "",
                **{
                    name: one["evidence"][name]
                    for name in (
                        "hint_set", "settings", "effect", "ci_low", "ci_high", "confidence",
                        "default_ms", "steered_ms",
                    )
                },
                "service_executions": sum(
                    timing["executions"]
                    for timing in timings
                    if timing["arm"] == "steered"
                    and timing["fingerprint"] == one["fingerprint"]
                    and timing["search_path"] == one["search_path"]
                ),
            }
            for one in sorted(proven, key=lambda one: one["evidence"]["effect"])
        ],
    }  # fmt: skip


def _plain(row: Row) -> Row:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in row.items()
    }


# -- comparing ------------------------------------------------------------------------------------


def differences(wanted: Any, found: Any, place: str = "") -> list[str]:
    """Where ``found`` is not what was ``wanted``: numbers to nine digits, what is missing.

    What ``found`` has beyond that is no difference.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            difference
            for name, value in wanted.items()
            for difference in differences(value, found.get(name, "missing"), f"{place}/{name}")
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            difference
            for number, pair in enumerate(zip(wanted, found, strict=True))
            for difference in differences(*pair, f"{place}/{number}")
        ]
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        same = math.isclose(wanted, found, rel_tol=1e-9, abs_tol=1e-12)
    else:
        same = bool(wanted == found)
    return [] if same else [f"{place}: {wanted!r:.80}, not {found!r:.80}"]
