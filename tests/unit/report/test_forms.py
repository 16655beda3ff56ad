"""The final report as JSON, text and page, and the files that hold them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from backend.domain.records import TrialRecord
from backend.errors import StoreError
from backend.report import FinalReport, build_report, write_reports
from backend.reporting import pages
from backend.telemetry import SqlStore
from tests.contracts import records as full
from tests.contracts.records import NOW
from tests.reported_run import HOSTILE, Page, write_run

KEYS = {
    "baseline", "final", "improvement", "ci_low", "ci_high", "configuration", "trials", "phases",
    "query_classes", "policy_versions", "changes", "events", "generated_at", "workload", "server",
}  # fmt: skip


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
        self, store: SqlStore, effect: float, low: float, high: float, sentence: str
    ) -> None:
        write_run(store, effect=effect, ci_low=low, ci_high=high)
        report = build_report(store, workload={})
        assert sentence in pages.to_text(report)

    def test_it_shows_units_and_no_control_characters(
        self, store: SqlStore, final: TrialRecord
    ) -> None:
        store.add_event(replace(full.EVENT, message="red \x1b[31m alert\nsecond line"))
        report = build_report(store, workload={"name": "mixed"})
        text = pages.to_text(report)
        assert re.search(r"work_mem +64 MB +4 MB", text)
        assert re.search(r"clients, 95th percentile +40\.0 ms +24\.5 ms +-38\.[78] %", text)
        assert "\x1b" not in text
        assert "alert second line" in text


class TestPage:
    def test_everything_foreign_is_escaped(self, store: SqlStore, final: TrialRecord) -> None:
        store.add_query_classes([replace(full.QUERY_CLASS, key="1.1.1.t", text=HOSTILE)])
        store.save_trial(replace(full.TRIAL, reasons=(HOSTILE,)))
        store.save_status(replace(full.STATUS, server=HOSTILE, started_at=None))
        report = build_report(store, workload={HOSTILE: HOSTILE})
        page = Page(pages.to_html(report))
        assert "script" not in page.tags
        assert "img" not in page.tags
        assert page.words.count("<script>alert(1)</script>") >= 5

    def test_it_needs_nothing_else(self, report: FinalReport) -> None:
        text = pages.to_html(report)
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
        report = build_report(store, workload={})
        words = Page(pages.to_html(report)).words
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
