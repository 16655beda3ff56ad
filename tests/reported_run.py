"""A short run in the store, and a page read back, for the tests of the final report."""

from __future__ import annotations

import html.parser
import math
from dataclasses import replace
from datetime import timedelta

from backend.domain.modes import Arm, Mode, Phase, TrialKind, TrialState, Verdict
from backend.domain.records import (
    ClientIntervalRecord,
    EventRecord,
    StatusRecord,
    TrialRecord,
    WindowRecord,
)
from backend.telemetry import SqlStore
from tests.contracts import records as full
from tests.contracts.records import NOW

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def window(second: float, phase: Phase, index: float | None, **fields: object) -> WindowRecord:
    start = NOW + timedelta(seconds=second)
    base = WindowRecord(
        started_at=start,
        ended_at=start + timedelta(seconds=10),
        duration_s=10.0,
        phase=phase,
        config={},
        index=index,
        calls_per_s=50.0,
        mean_ms=None if index is None else 8.0 * index,
        gauges={"host_cpu_percent": 60.0},
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def client(second: float, p95_ms: float, completed: int = 100) -> ClientIntervalRecord:
    start = NOW + timedelta(seconds=second)
    return ClientIntervalRecord(
        start, start + timedelta(seconds=2), "*", completed + 2, completed, 1, 1,
        mean_ms=p95_ms / 4, p50_ms=p95_ms / 5, p95_ms=p95_ms, p99_ms=p95_ms * 2,
    )  # fmt: skip


def write_run(store: SqlStore, **of_the_final_trial: object) -> TrialRecord:
    """A short run that saved 30 %, with an older run before it; returns the final trial.

    Args:
        store: to write it to.
        of_the_final_trial: fields that differ.
    """
    store.save_status(
        StatusRecord(
            NOW + timedelta(seconds=100),
            Mode.AUTO,
            Phase.FINAL_COMPARISON,
            server="127.0.0.1:5433/shop",
            server_version="17.2",
            started_at=NOW,
            index=0.7,
        )
    )
    store.save_knob_statuses([full.KNOB])
    store.add_query_classes([full.QUERY_CLASS])
    store.add_window(window(-500, Phase.BASELINE, 9.0))
    store.save_trial(replace(full.TRIAL, created_at=NOW - timedelta(hours=1)))
    store.add_event(EventRecord(NOW - timedelta(hours=1), "error", "old", "of an older run"))
    store.save_trial(
        replace(full.TRIAL, kind=TrialKind.PROBE, verdict=Verdict.REJECT, effect=math.nan)
    )
    for second in (0, 10, 20):
        store.add_window(window(second, Phase.BASELINE, 1.0))
    store.add_window(window(30, Phase.LEARNING, 0.9, arm=Arm.INCUMBENT, trial_id=2))
    store.add_window(window(40, Phase.LEARNING, 5.0, arm=Arm.CANDIDATE, trial_id=2))
    store.add_window(window(50, Phase.OPTIMISED, 0.7))
    final = TrialRecord(
        kind=TrialKind.FINAL,
        state=TrialState.FINISHED,
        proposer="autopilot",
        created_at=NOW + timedelta(seconds=60),
        before={"work_mem": None},
        after={"work_mem": 65536},
        verdict=Verdict.ACCEPT,
        effect=-0.3,
        ci_low=-0.35,
        ci_high=-0.25,
        blocks=6,
        class_effects={
            full.QUERY_CLASS.key: {
                "effect": -0.4, "ci_low": -0.5, "ci_high": -0.3,
                "incumbent_ms": 10.0, "candidate_ms": 6.0,
            },
            "1.1.1.t": {"effect": -0.6, "ci_low": math.nan},
        },
    )  # fmt: skip
    final = replace(final, **of_the_final_trial)  # type: ignore[arg-type]
    final = replace(final, id=store.save_trial(final))
    for second, arm in ((60, Arm.INCUMBENT), (70, Arm.CANDIDATE), (80, Arm.CANDIDATE)):
        index = 1.02 if arm is Arm.INCUMBENT else 0.71
        phase = Phase.FINAL_COMPARISON
        store.add_window(window(second, phase, index, arm=arm, trial_id=final.id))
    store.add_client_intervals([client(62, 40.0), client(72, 20.0), client(82, 26.0, 300)])
    store.add_client_intervals([client(95, 999.0)])
    store.add_policy_version(replace(full.VERSION, config={"work_mem": 65536}, trial_id=None))
    store.add_changes([full.CHANGE])
    store.add_event(replace(full.EVENT, message=HOSTILE))
    return final


class Page(html.parser.HTMLParser):
    """Collects a page's tags and attributes, and checks that they nest."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
