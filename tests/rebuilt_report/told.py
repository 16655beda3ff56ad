"""What was tried, changed and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.rebuilt_report.raw_store import ENDED, RawStore, Row, plain

LEVEL_1, INJECTED = "policy (Level 1)", "demonstration"


def trials(trials: Sequence[Row]) -> Row:
    outcomes = [(t["kind"], t["verdict"] or "unfinished") for t in trials]
    both: dict[str, dict[str, int]] = {}
    for kind, outcome in outcomes:
        both.setdefault(kind, Counter())[outcome] += 1
    return {
        "total": len(trials),
        "by_kind": dict(Counter(kind for kind, _ in outcomes)),
        "by_verdict": dict(Counter(outcome for _, outcome in outcomes)),
        "by_kind_and_verdict": {kind: dict(counts) for kind, counts in both.items()},
        "list": [plain(trial) for trial in trials],
    }


def levels(store: RawStore, trials: Sequence[Row], events: Sequence[Row]) -> Row:
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
            "policy_updates": [plain(update) for update in updates],
            "rollbacks": [
                {"at": event["at"].isoformat(), "message": event["message"]}
                for event in rollbacks
            ],
        },
        "level 2": {
            "measured": len(genomes),
            "deployed": sum(genome["deployed"] for genome in genomes),
            "genomes": [plain(g) for g in genomes if g["deployed"] or g["comparison"]],
        },
    }  # fmt: skip


def configuration(store: RawStore, final: Row | None) -> Row:
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


def query_classes(store: RawStore, final: Row | None) -> list[Row]:
    if final is None:
        return []
    texts = {row["key"]: row["text"] for row in store.rows("query_classes", "key")}
    names = ("effect", "ci_low", "ci_high", "incumbent_ms", "candidate_ms")
    classes = [
        {"key": key, "text": texts.get(key, ""), **{name: found.get(name) for name in names}}
        for key, found in final["class_effects"].items()
    ]
    return sorted(classes, key=lambda one: one["effect"])


def versions(store: RawStore) -> list[Row]:
    hints = {row["digest"]: row["document"] for row in store.rows("served_hints", "digest")}
    return [
        plain(version)
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


def events(events: Sequence[Row]) -> Row:
    levels: dict[str, list[Row]] = {"info": [], "warning": [], "error": []}
    for event in events:
        levels.setdefault(event["level"], []).append(event)
    return {
        level: {"count": len(some), "newest": [plain(event) for event in some[-50:]]}
        for level, some in levels.items()
    }


def steering(store: RawStore) -> Row:
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
