"""The final report a second time: from the raw rows of a store's file, by plain SQL and numpy.

Nothing of the product is imported: whatever the report claims is derived here once more.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tests.rebuilt_report import told
from tests.rebuilt_report.comparison import comparison
from tests.rebuilt_report.measured import acts, by_load, deployed, measured, trend
from tests.rebuilt_report.raw_store import ENDED, RawStore, Row, plain


def rebuilt(path: Path) -> Row:
    """All that final_report.json says of a store, but for ``generated_at`` and ``workload``."""
    store = RawStore(path)
    trials = store.of_the_run("trials", "created_at")
    windows = deployed(store.of_the_run("windows", "started_at", "started_at, id"), trials)
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
        **comparison(store, final, phases, clients),
        "configuration": told.configuration(store, final),
        "trials": told.trials(trials),
        "phases": phases,
        "by_load": by_load(windows, clients),
        "acts": acts(events, windows, clients),
        "levels": told.levels(store, trials, events),
        "query_classes": told.query_classes(store, final),
        "policy_versions": told.versions(store),
        "changes": [plain(row) for row in store.of_the_run("changes", "created_at")],
        "events": told.events(events),
        "index_trend": trend(windows),
        "units": {name: knob["unit"] for name, knob in store.knobs.items() if knob["unit"]},
        "steering": told.steering(store),
    }


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
