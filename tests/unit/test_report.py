"""The final report: what it says, and that it says nothing that was not measured."""

from __future__ import annotations

import html.parser
import json
import math
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backend import report_pages
from backend.config import Settings
from backend.domain.modes import Arm, Mode, Phase, TrialKind, TrialState, Verdict
from backend.domain.records import (
    ClientIntervalRecord,
    EventRecord,
    StatusRecord,
    TrialRecord,
    WindowRecord,
)
from backend.domain.steering import (
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import StoreError
from backend.report import (
    FinalReport,
    build_report,
    summary_text,
    workload_facts,
    write_reports,
)
from backend.run_options import RunOptions
from backend.telemetry import SqlStore, open_store, wording
from backend.workload import __main__ as workload_command
from tests.contracts import records as full
from tests.contracts.records import NOW

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
KEYS = {
    "baseline", "final", "improvement", "ci_low", "ci_high", "configuration", "trials", "phases",
    "query_classes", "policy_versions", "changes", "events", "generated_at", "workload", "server",
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as opened:
        yield opened


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


def write_run(store: SqlStore) -> TrialRecord:
    """A short run that saved 30 %, with an older run before it; returns the final trial."""
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


@pytest.fixture
def final(store: SqlStore) -> TrialRecord:
    return write_run(store)


@pytest.fixture
def report(store: SqlStore, final: TrialRecord) -> FinalReport:
    return build_report(store, final_comparison=final, workload={"name": "mixed", "scale": 0.05})


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
        report = build_report(store, final_comparison=final, workload={})
        values = [value for _, value in report.index_trend]
        assert values == pytest.approx([1.0, 1.0, 1.0, 0.9, 0.7, 0.72, 0.71, 0.71])
        assert report.phases["learning"].windows == 2

    def test_a_long_trend_is_thinned(self, store: SqlStore) -> None:
        with store.transaction():
            for number in range(700):
                store.add_window(window(number * 10, Phase.LEARNING, 1.0 - number / 1000))
        report = build_report(store, final_comparison=None, workload={})
        assert 200 < len(report.index_trend) <= 300
        values = [value for _, value in report.index_trend]
        assert values == sorted(values, reverse=True)

    def test_without_a_comparison_nothing_is_claimed(self, store: SqlStore) -> None:
        write_run(store)
        report = build_report(store, final_comparison=None, workload={})
        assert (report.improvement, report.ci_low, report.ci_high) == (None, None, None)
        assert report.compared == "phases"
        assert report.baseline == report.phases["baseline"]
        assert report.final == report.phases["optimised"]
        assert report.configuration["work_mem"]["value"] == 65536
        assert "No comparison" in report_pages.to_text(report)

    def test_an_aborted_comparison_claims_nothing(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        aborted = replace(final, effect=None, ci_low=None, ci_high=math.nan)
        report = build_report(store, final_comparison=aborted, workload={})
        assert (report.improvement, report.ci_low, report.ci_high) == (None, None, None)

    def test_secrets_in_the_workload_are_hidden(self, store: SqlStore) -> None:
        workload = {"dsn": "postgresql://u:hunter2@h/d", "password": "hunter2"}
        report = build_report(store, final_comparison=None, workload=workload)
        assert "hunter2" not in report.as_json()


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
        return build_report(store, final_comparison=None, workload={})

    def test_without_steering_there_is_none(self, store: SqlStore, report: FinalReport) -> None:
        assert report.steering == {}
        assert "steering" not in report_pages.to_text(report).lower()

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
        text = report_pages.to_text(report)
        assert "after trying plans for 2 min 30 s" in text
        assert "-75.0 %" in text
        assert "-75.0 %" in Page(report_pages.to_html(report)).words

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
        assert "withdrawn slower   than the default plan" in report_pages.to_text(report)

    def test_classes_without_a_hint_set_are_counted(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        store.save_steered_classes([self.class_(state=SteeringState.DEFAULT_BEST, evidence=None)])
        report = self.written(store)
        assert report.steering["states"] == {"default plan is best": 1}
        assert "No hint set was proven faster" in report_pages.to_text(report)


class TestJson:
    def test_keys(self, report: FinalReport) -> None:
        data = json.loads(report.as_json())
        assert set(data) >= KEYS
        side_keys = {
            "latency_index", "mean_ms", "client_p50_ms", "client_p95_ms", "client_p99_ms",
            "throughput_per_s",
        }  # fmt: skip
        assert set(data["baseline"]) == set(data["final"]) >= side_keys
        assert data["improvement"] == pytest.approx(0.3)
        assert data["trials"]["list"][0]["effect"] is None
        assert data["changes"][0]["state"] == "pending"
        assert data["policy_versions"][0]["active"] is True

    def test_it_is_strict(self, report: FinalReport) -> None:
        odd = replace(report, improvement=math.nan, workload={"rate": math.inf, "at": NOW})
        data = json.loads(odd.as_json(), parse_constant=lambda name: pytest.fail(name))
        assert data["improvement"] is None
        assert data["workload"] == {"rate": None, "at": NOW.isoformat()}


class TestText:
    @pytest.mark.parametrize(
        ("effect", "low", "high", "sentence"),
        [
            (
                -0.3,
                -0.35,
                -0.25,
                "The latency index is 30.0 % lower (25.0 % to 35.0 %, at 95 % confidence)",
            ),
            (0.2, 0.1, 0.3, "The latency index is 20.0 % HIGHER"),
            (-0.01, -0.05, 0.03, "No difference is proven: +1.0 % saved (-3.0 % to 5.0 %"),
        ],
    )
    def test_the_first_sentence(
        self, store: SqlStore, final: TrialRecord, effect: float, low: float, high: float,
        sentence: str,
    ) -> None:  # fmt: skip
        trial = replace(final, effect=effect, ci_low=low, ci_high=high)
        report = build_report(store, final_comparison=trial, workload={})
        assert sentence in report_pages.to_text(report)

    def test_it_shows_units_and_no_control_characters(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        store.add_event(replace(full.EVENT, message="red \x1b[31m alert\nsecond line"))
        report = build_report(store, final_comparison=final, workload={"name": "mixed"})
        text = report_pages.to_text(report)
        assert re.search(r"work_mem +64 MB +4 MB", text)
        assert re.search(r"clients, 95th percentile +40\.0 ms +24\.5 ms +-38\.[78] %", text)
        assert "\x1b" not in text
        assert "alert second line" in text


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


class TestPage:
    def test_everything_foreign_is_escaped(self, store: SqlStore, final: TrialRecord) -> None:
        store.add_query_classes([replace(full.QUERY_CLASS, key="1.1.1.t", text=HOSTILE)])
        store.save_trial(replace(full.TRIAL, reasons=(HOSTILE,)))
        store.save_status(replace(full.STATUS, server=HOSTILE, started_at=None))
        report = build_report(store, final_comparison=final, workload={HOSTILE: HOSTILE})
        page = Page(report_pages.to_html(report))
        assert "script" not in page.tags
        assert "img" not in page.tags
        assert page.words.count("<script>alert(1)</script>") >= 5

    def test_it_needs_nothing_else(self, report: FinalReport) -> None:
        text = report_pages.to_html(report)
        page = Page(text)
        names = {name for name, _ in page.attributes}
        assert not names & {"src", "href", "onload", "onclick", "style"}
        assert "url(" not in text
        assert "@import" not in text
        assert "prefers-color-scheme: dark" in text
        assert "polyline" in page.tags
        points = next(value for name, value in page.attributes if name == "points")
        assert points is not None
        for pair in points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 720
            assert 0 <= y <= 180

    def test_an_empty_store(self, store: SqlStore) -> None:
        report = build_report(store, final_comparison=None, workload={})
        words = Page(report_pages.to_html(report)).words
        for sentence in (
            "No comparison of the final", "not measured long enough", "No trial was made.",
            "Nothing was changed.", "Not enough was measured to compare.",
        ):  # fmt: skip
            assert sentence in words
        assert json.loads(report.as_json())["improvement"] is None


class TestFiles:
    def test_three_files_whole_or_not_at_all(
        self, report: FinalReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "new" / "data"
        paths = write_reports(report, folder)
        assert [p.name for p in paths] == [
            "final_report.txt", "final_report.json", "final_report.html",
        ]  # fmt: skip
        assert sorted(folder.iterdir()) == sorted(paths)
        before = paths[0].read_text(encoding="utf-8")

        def full_disk(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full_disk)
        with pytest.raises(StoreError, match="No space left"):
            write_reports(replace(report, improvement=None), folder)
        assert paths[0].read_text(encoding="utf-8") == before
        assert sorted(folder.iterdir()) == sorted(paths)


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
        report = build_report(store, final_comparison=None, workload=facts)
        assert f"schedule {facts['schedule']}" in report_pages.to_text(report)
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


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (16384, "8kB", "128 MB"), (4096, "kB", "4 MB"), (1536, "MB", "1.5 GB"), (100, "B", "100 B"),
        (-1, "8kB", "-1"), (0, "kB", "0"), (300, "s", "5 min"), (1500, "ms", "1.5 s"),
        (0.5, "ms", "500 us"), (True, None, "on"), (False, "kB", "off"), (1.1, None, "1.1"),
        ("lz4", None, "lz4"), (None, "kB", "no entry"), (7, "files", "7 files"),
    ],
)  # fmt: skip
def test_knob_values_as_people_write_them(value: object, unit: str | None, text: str) -> None:
    assert wording.knob_text(value, unit) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1.00"), (0.7261, "0.726"), (12345.6, "12,346"), (0.000123, "0.000123"),
        (-2.5, "-2.50"), (None, "–"), (math.nan, "–"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7200, "2 h"), (90000, "1 d 1 h"), (None, "–")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text
