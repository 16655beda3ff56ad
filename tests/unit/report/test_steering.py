"""The final report's section on single queries, where there is any."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta

import pytest

from backend.domain.records import TrialRecord
from backend.domain.steering import (
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.report import FinalReport, build_report
from backend.reporting import pages
from backend.telemetry import SqlStore
from tests.contracts import records as full
from tests.contracts.records import NOW
from tests.reported_run import Page


class TestSteering:
    """The section on single queries, where there is any."""

    def class_(self, **others: object) -> SteeredClassRecord:
        proven = replace(full.STEERED_CLASS, state=SteeringState.VERIFIED, reason="")
        return replace(proven, mode=SteeringMode.AUTO, **others)  # type: ignore[arg-type]

    def timing(self, arm: str, mean_s: float, **others: object) -> ServiceTimingRecord:
        assert full.STEERED_CLASS.evidence is not None
        bucket = round(8 * math.log2(mean_s * 1e6))
        base = ServiceTimingRecord(
            NOW, NOW + timedelta(minutes=1), full.STEERED_CLASS.key,
            full.STEERED_CLASS.evidence.hint_set, arm, 400, 400 * mean_s, buckets={bucket: 400},
        )  # fmt: skip
        return replace(base, **others)  # type: ignore[arg-type]

    def written(self, store: SqlStore) -> FinalReport:
        return build_report(store, workload={})

    def test_without_steering_there_is_none(self, store: SqlStore, report: FinalReport) -> None:
        assert report.steering == {}
        assert "steering" not in pages.to_text(report).lower()

    def test_what_was_proven_and_what_it_did_in_service(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        store.save_steered_classes([self.class_(explored_s=150.0)])
        store.add_service_timings([self.timing("steered", 0.02), self.timing("default", 0.08)])
        report = self.written(store)
        (one,) = json.loads(report.as_json())["steering"]["classes"]
        assert (report.steering["steered"], one["steered"]) == (1, True)
        assert report.steering["states"] == {"verified": 1}
        assert one["effect"] == full.STEERED_CLASS.evidence.effect  # type: ignore[union-attr]
        assert one["service_effect"] == pytest.approx(-0.75)
        assert one["service_low"] < -0.75 < one["service_high"] < 0
        assert one["service_executions"] == 400
        text = pages.to_text(report)
        assert "after trying plans for 2 min 30 s" in text
        assert "-75.0 %" in text
        assert "-75.0 %" in Page(pages.to_html(report)).words

    def test_timings_of_an_earlier_hint_set_do_not_count(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        store.save_steered_classes([self.class_()])
        store.add_service_timings(
            [self.timing(arm, 0.1, hint_set="an_earlier_one") for arm in ("steered", "default")]
        )
        (one,) = json.loads(self.written(store).as_json())["steering"]["classes"]
        assert (one["service_effect"], one["service_executions"]) == (None, 0)
        assert one["service_hindrance"] == "not executed steered"

    def test_what_was_withdrawn_says_why(self, store: SqlStore, final: TrialRecord) -> None:
        withdrawn = self.class_(state=SteeringState.WITHDRAWN)
        store.save_steered_classes([replace(withdrawn, reason="slower \x1b than the default plan")])
        report = self.written(store)
        assert report.steering["steered"] == 0
        assert "withdrawn slower   than the default plan" in pages.to_text(report)

    def test_classes_without_a_hint_set_are_counted(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        store.save_steered_classes([self.class_(state=SteeringState.DEFAULT_BEST, evidence=None)])
        report = self.written(store)
        assert report.steering["states"] == {"default plan is best": 1}
        assert "No hint set was proven faster" in pages.to_text(report)
