"""The final report says what was measured, and nothing that was not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from backend.config import Settings
from backend.domain.modes import Arm, Phase, TrialKind, Verdict
from backend.domain.records import TrialRecord
from backend.report import FinalReport, build_report, summary_text, workload_facts
from backend.reporting import pages
from backend.run_options import RunOptions
from backend.telemetry import SqlStore
from backend.workload import __main__ as workload_command
from tests.contracts import records as full
from tests.reported_run import window, write_run


class TestContent:
    def test_improvement_is_what_the_index_lost(self, report: FinalReport) -> None:
        assert report.improvement == pytest.approx(0.3)
        assert report.ci_low == pytest.approx(0.25)
        assert report.ci_high == pytest.approx(0.35)

    def test_sides_are_the_arms_of_the_final_comparison(self, report: FinalReport) -> None:
        assert report.compared == "final comparison"
        assert report.baseline.windows == 1
        assert report.baseline.latency_index == pytest.approx(1.02)
        assert report.baseline.mean_ms == pytest.approx(8.16)
        assert report.baseline.client_p95_ms == 40.0
        assert report.baseline.throughput_per_s == pytest.approx(50.0)
        assert report.final.latency_index == pytest.approx(0.71)
        # Weighted by completed requests: 100 at 20 ms, 300 at 26 ms.
        assert report.final.client_p95_ms == pytest.approx(24.5)
        assert report.final.throughput_per_s == pytest.approx(400 / 4)
        assert (report.final.errors, report.final.timeouts) == (2, 2)
        assert report.final.cpu_percent == 60.0

    def test_phases_of_this_run_alone(self, report: FinalReport) -> None:
        assert {name: phase.windows for name, phase in report.phases.items()} == {
            "baseline": 3, "learning": 1, "optimised": 1, "final comparison": 2,
        }  # fmt: skip
        assert report.phases["baseline"].latency_index == 1.0
        assert report.phases["baseline"].client_p50_ms is None
        assert report.phases["learning"].latency_index_p50 == pytest.approx(0.9)
        assert report.phases["final comparison"].latency_index_p50 == pytest.approx(0.71)

    def test_trials_are_counted_and_listed(self, report: FinalReport) -> None:
        assert report.trials["total"] == 2
        assert report.trials["by_verdict"] == {"reject": 1, "accept": 1}
        assert report.trials["by_kind_and_verdict"] == {
            "probe": {"reject": 1}, "final": {"accept": 1},
        }  # fmt: skip
        assert len(report.trials["list"]) == 2  # type: ignore[arg-type]

    def test_configuration(self, report: FinalReport) -> None:
        assert report.configuration == {
            "work_mem": {"value": 65536, "default": 4096, "unit": "kB", "initial": None}
        }

    def test_query_classes_best_first(self, report: FinalReport) -> None:
        unknown, known = report.query_classes
        assert (unknown["effect"], unknown["ci_low"], unknown["text"]) == (-0.6, None, "")
        assert known["text"] == full.QUERY_CLASS.text
        assert known["candidate_ms"] == 6.0

    def test_events_by_level(self, report: FinalReport) -> None:
        assert {level: some["count"] for level, some in report.events.items()} == {
            "info": 0, "warning": 1, "error": 0,
        }  # fmt: skip

    def test_trend_shows_what_was_deployed(self, report: FinalReport) -> None:
        values = [value for _, value in report.index_trend]
        assert values == pytest.approx([1.0, 1.0, 1.0, 0.9, 0.7, 0.71, 0.71])
        assert report.index_trend[0][0] == 0.0

    def test_in_a_probation_the_candidate_is_what_is_deployed(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        number = store.save_trial(replace(full.TRIAL, kind=TrialKind.PROBATION))
        for second, arm, index in ((52, Arm.CANDIDATE, 0.72), (54, Arm.INCUMBENT, 1.1)):
            store.add_window(window(second, Phase.LEARNING, index, arm=arm, trial_id=number))
        report = build_report(store, workload={})
        values = [value for _, value in report.index_trend]
        assert values == pytest.approx([1.0, 1.0, 1.0, 0.9, 0.7, 0.72, 0.71, 0.71])
        assert report.phases["learning"].windows == 2

    def test_a_long_trend_is_thinned(self, store: SqlStore) -> None:
        with store.transaction():
            for number in range(700):
                store.add_window(window(number * 10, Phase.LEARNING, 1.0 - number / 1000))
        report = build_report(store, workload={})
        assert 200 < len(report.index_trend) <= 300
        values = [value for _, value in report.index_trend]
        assert values == sorted(values, reverse=True)

    def test_without_a_comparison_nothing_is_claimed(self, store: SqlStore) -> None:
        write_run(store, verdict=None)
        report = build_report(store, workload={})
        assert (report.improvement, report.ci_low, report.ci_high) == (None, None, None)
        assert report.compared == "phases"
        assert report.baseline == report.phases["baseline"]
        assert report.final == report.phases["optimised"]
        assert report.configuration["work_mem"]["value"] == 65536
        assert "No comparison" in pages.to_text(report)

    @pytest.mark.parametrize(
        "unproven",
        [
            {"verdict": Verdict.ABORTED},
            {"verdict": Verdict.INCONCLUSIVE, "effect": None, "ci_low": None, "ci_high": math.nan},
        ],
    )
    def test_a_comparison_that_proved_nothing_claims_nothing(
        self, store: SqlStore, unproven: dict[str, object]
    ) -> None:
        write_run(store, **unproven)
        report = build_report(store, workload={})
        assert (report.improvement, report.ci_low, report.ci_high) == (None, None, None)

    def test_the_newest_comparison_that_came_to_its_end_counts(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        store.save_trial(replace(final, id=None, effect=-0.2))
        store.save_trial(replace(final, id=None, effect=-0.1, verdict=Verdict.ABORTED))
        assert build_report(store, workload={}).improvement == pytest.approx(0.2)

    def test_the_busier_and_the_quieter_half(self, store: SqlStore, final: TrialRecord) -> None:
        for second, calls, index in ((90, 80.0, 2.0), (100, 90.0, 3.0)):
            store.add_window(window(second, Phase.LEARNING, index, calls_per_s=calls))
        by_load = build_report(store, workload={}).by_load
        assert {half: measured.windows for half, measured in by_load.items()} == {
            "busier": 2, "quieter": 7,
        }  # fmt: skip
        assert by_load["busier"].latency_index == pytest.approx(2.5)
        assert by_load["busier"].latency_index_p95 == pytest.approx(2.95)

    def test_secrets_in_the_workload_are_hidden(self, store: SqlStore) -> None:
        workload = {"dsn": "postgresql://u:hunter2@h/d", "password": "hunter2"}
        report = build_report(store, workload=workload)
        assert "hunter2" not in report.as_json()


class TestWorkloadFacts:
    def test_the_schedules_hash_is_that_of_the_workload(
        self, store: SqlStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = Settings.model_validate({"workload": {"name": "oltp", "seed": 3}})
        facts = workload_facts(settings, RunOptions(fast_mode=True, duration_days=1.0))
        monkeypatch.setenv("DATABASE_URL", "postgresql://u@127.0.0.1/x")
        monkeypatch.setattr(workload_command, "run_workload", lambda *_: None)
        monkeypatch.setattr(workload_command.signal, "signal", lambda *_: None)
        workload_command.main(["--mix", "oltp", "--seed", "3", "--fast-mode"])
        assert capsys.readouterr().out == f"schedule {facts['schedule']}\n"
        report = build_report(store, workload=facts)
        assert f"schedule {facts['schedule']}" in pages.to_text(report)
        assert json.loads(report.as_json())["workload"]["schedule"] == facts["schedule"]

    def test_another_seed_has_another_hash_and_a_foreign_server_none(self) -> None:
        one, two = (
            workload_facts(Settings.model_validate({"workload": {"seed": seed}}), RunOptions())
            for seed in (0, 1)
        )
        assert one["schedule"] != two["schedule"]
        foreign = Settings.model_validate({"database": {"host": "db.example"}})
        assert workload_facts(foreign, RunOptions()) == {
            "name": "foreign", "duration_days": None, "fast_mode": False,
        }  # fmt: skip


class TestSummary:
    def test_a_run(self, store: SqlStore) -> None:
        write_run(store)
        text = summary_text(store)
        assert "server         127.0.0.1:5433/shop 17.2" in text
        assert "work_mem = 64 MB  (default 4 MB)" in text
        assert "probe          1 reject" in text
        assert "final 3: -30.0 % latency index (-35.0 % to -25.0 %)" in text

    def test_nothing_yet(self, store: SqlStore) -> None:
        text = summary_text(store)
        assert "no tuner has run yet" in text
        assert "Trials: none yet." in text
