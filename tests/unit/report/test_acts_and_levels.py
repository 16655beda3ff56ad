"""The final report's sections on the acts of a demonstration, and on the three levels."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from backend.domain.modes import LEVEL_1, Phase, TrialKind, Verdict
from backend.domain.records import EventRecord
from backend.report import FinalReport, build_report
from backend.reporting import pages
from backend.telemetry import SqlStore
from tests.contracts import records as full
from tests.contracts.records import NOW
from tests.reported_run import HOSTILE, Page, window, write_run


def written(store: SqlStore) -> FinalReport:
    return build_report(store, workload={})


class TestActs:
    def test_a_run_without_acts_has_no_section(self, report: FinalReport) -> None:
        assert report.acts == []
        assert "By act" not in pages.to_text(report)

    @pytest.fixture
    def acted(self, store: SqlStore) -> FinalReport:
        write_run(store)
        for second, message in ((20, "the data begins to grow"), (50, HOSTILE)):
            store.add_event(EventRecord(NOW + timedelta(seconds=second), "info", "act", message))
        store.add_window(window(90, Phase.OPTIMISED, 0.9))
        return written(store)

    def test_each_stretch_between_two_acts_is_measured(self, acted: FinalReport) -> None:
        found = [
            (act["title"], act["measured"]["windows"], act["measured"]["latency_index"])  # type: ignore[index]
            for act in acted.acts
        ]
        assert found == [
            ("before anything happened", 2, pytest.approx(1.0)),
            ("the data begins to grow", 2, pytest.approx(0.95)),
            (HOSTILE, 4, pytest.approx((0.7 + 0.71 + 0.71 + 0.9) / 4)),
        ]
        assert acted.acts[1]["started_at"] == (NOW + timedelta(seconds=20)).isoformat()

    def test_every_form_tells_of_them(self, acted: FinalReport) -> None:
        assert "the data begins to grow" in pages.to_text(acted)
        assert "script" not in Page(pages.to_html(acted)).tags
        assert len(json.loads(acted.as_json())["acts"]) == 3

    def test_acts_of_an_older_run_are_left_out(self, store: SqlStore) -> None:
        write_run(store)
        store.add_event(EventRecord(NOW - timedelta(hours=1), "info", "act", "long ago"))
        assert written(store).acts == []


class TestLevels:
    def test_what_was_tried_and_what_stood_the_gate(self, store: SqlStore) -> None:
        write_run(store)
        promotion = replace(
            full.TRIAL, kind=TrialKind.PROMOTION, verdict=Verdict.ACCEPT, effect=-0.2
        )
        for trial in (
            promotion,
            promotion,
            replace(promotion, verdict=Verdict.REJECT, effect=0.3),
            replace(promotion, proposer=LEVEL_1, effect=-0.1),
            replace(promotion, kind=TrialKind.RECHECK, verdict=Verdict.REJECT),
        ):
            store.save_trial(replace(trial, created_at=NOW))
        updates = (replace(full.POLICY_UPDATE, at=NOW, deployed=d) for d in (True, False, False))
        for update in updates:
            store.add_policy_update(update)
        store.add_policy_update(replace(full.POLICY_UPDATE, at=NOW - timedelta(hours=1)))
        store.add_genome(replace(full.GENOME, at=NOW, deployed=False, comparison={}))
        store.add_genome(replace(full.GENOME, at=NOW, deployed=False, reason="not clearly faster"))
        store.add_event(EventRecord(NOW, "warning", "rollback", "it did not stand its probation"))
        report = written(store)
        levels = report.levels
        assert levels["level 0"]["promotions"] == 3
        assert levels["level 0"]["promoted"] == 2
        assert levels["level 0"]["effects"] == [-0.2, -0.2]
        level_1 = dict(levels["level 1"])
        assert [update["deployed"] for update in level_1.pop("policy_updates")] == [
            True, False, False,
        ]  # fmt: skip
        assert level_1.pop("rollbacks") == [
            {"at": NOW.isoformat(), "message": "it did not stand its probation"}
        ]
        assert level_1 == {
            "probes": 0, "promotions": 1, "promoted": 1, "effects": [-0.1],
            "updates": 3, "deployed": 1, "probations": 0, "rechecks": 1, "undone": 1,
        }  # fmt: skip
        assert (levels["level 2"]["measured"], levels["level 2"]["deployed"]) == (2, 0)
        (judged,) = levels["level 2"]["genomes"]
        assert judged["reason"] == "not clearly faster"

    def test_every_form_tells_of_them(self, store: SqlStore) -> None:
        write_run(store)
        store.add_policy_update(replace(full.POLICY_UPDATE, at=NOW, reason=HOSTILE))
        store.add_genome(replace(full.GENOME, at=NOW, reason=HOSTILE))
        store.add_event(EventRecord(NOW, "warning", "rollback", HOSTILE))
        report = written(store)
        text = pages.to_text(report)
        for heading in ("By level", "Policy updates", "Rollbacks", "Genomes, as judged"):
            assert f"\n{heading}\n" in text
        assert "cannot be told from one run" in text
        page = Page(pages.to_html(report))
        assert "script" not in page.tags
        assert page.words.count("<script>") >= 3
        assert "cannot be told from one run" in page.words

    def test_each_promotion_is_told_by_its_own_trial(self, store: SqlStore) -> None:
        write_run(store)
        promotion = replace(full.TRIAL, kind=TrialKind.PROMOTION, verdict=Verdict.ACCEPT)
        for effect in (-0.2, -0.1):
            store.save_trial(replace(promotion, created_at=NOW, effect=effect))
        text = pages.to_text(written(store))
        assert "promoted: 2, latency index by their own trials -20.0 %, -10.0 %" in text

    def test_an_empty_run_counts_nothing(self, store: SqlStore) -> None:
        levels = written(store).levels
        assert levels["level 0"]["promoted"] == 0
        assert levels["level 0"]["effects"] == []


def test_versions_name_what_they_serve_and_leave_evidence_to_steering(store: SqlStore) -> None:
    write_run(store)
    store.add_policy_version(replace(full.VERSION, created_at=NOW, active=True))
    (*_, newest) = written(store).policy_versions
    (hint, *_) = full.VERSION.steering
    assert newest["steering"][0] == {  # type: ignore[index]
        "fingerprint": hint.key.fingerprint,
        "hint_set": hint.evidence.hint_set,
    }
