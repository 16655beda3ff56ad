"""Which knobs are proposed, on what grounds, and which are left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from backend.advice.facts import Facts
from backend.advice.findings import findings
from backend.advice.knob_advice import NOT_MEASURED, Basis, KnobAdvice, knob_advice
from backend.advice.track_record import TrackRecord
from backend.domain.knobs import KnobValue
from backend.domain.modes import TrialKind, TrialState, Verdict
from backend.domain.records import TrialRecord
from backend.memory_budget import HOST_SHARE, memory_parts
from backend.targets.postgresql_lookup import Rights
from tests.unit.advice.made_facts import MACHINE, START, UNKNOWN, facts, query, table

SPILLS = {"temp_files": 3, "temp_bytes": 200e6}


def trial(after: dict[str, KnobValue], *, days: int = 0, **given: Any) -> TrialRecord:
    fields = {
        "kind": TrialKind.PROMOTION, "state": TrialState.FINISHED, "proposer": "knob agent",
        "verdict": Verdict.ACCEPT, "effect": -0.12, "ci_low": -0.15, "ci_high": -0.09,
        "before": dict.fromkeys(after), "created_at": START + timedelta(days=days),
    }  # fmt: skip
    return TrialRecord(after=after, **{**fields, **given})


def judged(
    given: Facts, trials: tuple[TrialRecord, ...] = ()
) -> tuple[dict[str, KnobAdvice], dict[str, str]]:
    record = TrackRecord(trials, given.catalog)
    advice, withheld = knob_advice(given, findings(given), record)
    return {one.knob.name: one for one in advice}, {one.knob: one.reason for one in withheld}


# -- grounds --------------------------------------------------------------------------------------


def test_a_finding_is_stronger_than_a_rule_of_thumb() -> None:
    advice, _ = judged(facts(totals=SPILLS))
    assert next(iter(advice)) == "work_mem"
    assert advice["work_mem"].basis is Basis.FINDING
    assert advice["work_mem"].findings == ("temporary-files",)
    assert advice["work_mem"].effect == NOT_MEASURED
    assert advice["work_mem"].proposed > 4096
    assert advice["random_page_cost"].basis is Basis.RULE


def test_what_somebody_chose_is_left_alone_by_rules_of_thumb() -> None:
    advice, _ = judged(facts({"random_page_cost": 2.0, "shared_buffers": 1 << 20}))
    assert "random_page_cost" not in advice
    assert "shared_buffers" not in advice


def test_a_finding_turns_what_somebody_chose_by_a_step() -> None:
    advice, _ = judged(facts({"work_mem": 65536}, totals=SPILLS))
    assert advice["work_mem"].proposed == 131072
    stale = (table(modified_rows=300_000),)
    advice, _ = judged(facts({"autovacuum_analyze_scale_factor": 0.02}, tables=stale))
    assert advice["autovacuum_analyze_scale_factor"].proposed == 0.01


def test_a_page_cost_that_somebody_chose_is_lowered_where_all_is_cached() -> None:
    advice, _ = judged(facts({"random_page_cost": 40.0}, totals={"blocks_hit": 80_000}))
    assert advice["random_page_cost"].basis is Basis.FINDING
    assert advice["random_page_cost"].findings == ("dear-random-pages",)
    assert advice["random_page_cost"].proposed == 1.1


def test_full_pages_speak_for_rarer_checkpoints_and_not_for_more_wal() -> None:
    """The limit on WAL is another finding's, where checkpoints are begun for it."""
    totals = {"wal_bytes": 100e6, "wal_full_page_images": 10_000}
    advice, _ = judged(facts({"max_wal_size": 2048}, totals=totals))
    assert advice["checkpoint_timeout"].findings == ("full-page-images",)
    assert "max_wal_size" not in advice


def test_a_finding_never_turns_a_knob_the_other_way() -> None:
    requested = {"checkpoints_requested": 3}
    advice, withheld = judged(facts({"max_wal_size": 16384}, totals=requested))
    assert advice["max_wal_size"].proposed == 32768
    advice, withheld = judged(facts({"max_wal_size": 65536}, totals=requested))
    assert "max_wal_size" not in advice
    assert "64GB was chosen" in withheld["max_wal_size"]


def test_values_are_round_and_within_bounds() -> None:
    advice, _ = judged(facts(totals=SPILLS))
    for one in advice.values():
        one.knob.validate(one.proposed)
    assert advice["work_mem"].shown[1].endswith("MB")


def test_every_proposal_says_what_it_needs() -> None:
    advice, _ = judged(facts(totals={"blocks_hit": 80_000, "blocks_read": 20_000}))
    assert advice["shared_buffers"].needs_restart
    assert not advice["random_page_cost"].needs_restart
    assert all(one.risk.split(":")[0] in ("low", "medium", "high") for one in advice.values())
    assert all(one.texts for one in advice.values())


# -- trials ---------------------------------------------------------------------------------------


def test_a_trial_gives_the_effect_with_its_interval() -> None:
    advice, _ = judged(facts(), (trial({"random_page_cost": 1.5, "jit": False}),))
    one = advice["random_page_cost"]
    assert one.basis is Basis.TRIAL
    assert one.proposed == 1.5
    for part in ("-12.0 %", "-15.0 % to -9.0 %", "95.0%", "2026-01-01", "jit = off"):
        assert part in one.effect


def test_a_trial_of_what_stands_already_proposes_nothing() -> None:
    advice, _ = judged(facts({"random_page_cost": 1.5}), (trial({"random_page_cost": 1.5}),))
    assert "random_page_cost" not in advice


def test_a_rule_that_was_tried_and_rejected_is_withheld() -> None:
    rejected = trial({"random_page_cost": 1.1}, verdict=Verdict.REJECT, effect=0.04)
    advice, withheld = judged(facts(), (rejected,))
    assert "random_page_cost" not in advice
    assert "rejected" in withheld["random_page_cost"]


def test_the_newest_trial_counts() -> None:
    trials = (
        trial({"random_page_cost": 1.5}),
        trial(
            {"random_page_cost": 1.5}, days=1, kind=TrialKind.PROBATION, verdict=Verdict.REJECT,
            effect=0.02,
        ),
    )  # fmt: skip
    advice, _ = judged(facts(), trials)
    assert advice["random_page_cost"].basis is Basis.RULE
    assert advice["random_page_cost"].proposed == 1.1


def test_unfinished_and_aborted_trials_and_probes_prove_nothing() -> None:
    for given in (
        {"state": TrialState.MEASURING},
        {"verdict": Verdict.ABORTED},
        {"verdict": Verdict.INCONCLUSIVE},
        {"kind": TrialKind.PROBE},
        {"effect": None},
    ):
        advice, _ = judged(facts(), (trial({"random_page_cost": 1.5}, **given),))
        assert advice["random_page_cost"].effect == NOT_MEASURED


# -- left alone -----------------------------------------------------------------------------------


def test_what_needs_an_unknown_machine_is_withheld_with_the_option() -> None:
    advice, withheld = judged(facts(host=UNKNOWN, totals=SPILLS))
    assert "--memory-gib" in withheld["work_mem"]
    assert "--memory-gib" in withheld["shared_buffers"]
    assert "--cores" in withheld["max_parallel_workers"]
    assert "work_mem" not in advice
    assert "40 GB" in " ".join(advice["max_wal_size"].notes)


def test_what_was_seen_speaks_against_rules_of_thumb() -> None:
    seen = {
        "totals": {"blocks_hit": 999_900, "blocks_read": 100, "maxwritten_clean": 0,
                   "wal_bytes": 6000.0},
        "ever": {"temp_files": 0, "checkpoints_timed": 500, "checkpoints_requested": 1},
    }  # fmt: skip
    advice, withheld = judged(facts(**seen))
    for name in (
        "shared_buffers", "work_mem", "max_wal_size", "wal_compression", "bgwriter_lru_maxpages",
    ):  # fmt: skip
        assert name not in advice
        assert withheld[name]


def test_a_stand_by_has_no_autovacuum() -> None:
    rights = Rights("autopilot", "shop", in_recovery=True)
    advice, withheld = judged(facts(rights=rights))
    assert "primary" in withheld["autovacuum_vacuum_scale_factor"]
    assert "random_page_cost" in advice


def test_what_does_not_fit_the_memory_is_less_or_withheld() -> None:
    machine = replace(MACHINE, memory_bytes=2 << 30)
    advice, _ = judged(facts({"work_mem": 16384}, host=machine, totals=SPILLS))
    assert 16384 < advice["work_mem"].proposed < 32768
    assert "to fit memory" in advice["work_mem"].why
    machine = replace(MACHINE, memory_bytes=1 << 30)
    advice, withheld = judged(facts({"work_mem": 49152}, host=machine, totals=SPILLS))
    assert "work_mem" not in advice
    assert "no memory" in withheld["work_mem"]


def test_proposals_fit_the_memory_together_and_one_by_one() -> None:
    given = facts(host=replace(MACHINE, memory_bytes=4 << 30), totals=SPILLS)
    advice, _ = judged(given)
    changes = {name: one.proposed for name, one in advice.items()}
    for some in ({}, changes, *({name: value} for name, value in changes.items())):
        total = sum(memory_parts({**given.present, **some}, given.clients).values())
        assert total <= HOST_SHARE * given.host.memory_bytes


def test_the_busiest_role_is_named() -> None:
    advice, _ = judged(facts(totals=SPILLS, queries=query()))
    forms = {one.form: one.text for one in advice["work_mem"].texts}
    assert forms["ALTER ROLE"].startswith('ALTER ROLE "shop_app" SET work_mem')
