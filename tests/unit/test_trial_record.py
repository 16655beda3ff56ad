"""What a trial writes down of itself, before, during and after it."""

from __future__ import annotations

import pytest

from backend.domain.modes import TrialKind, TrialState, Verdict
from tests.trial_bench import Bench, contended, plan
from tests.windows import START, key


def test_the_record_before_the_first_window():
    record = Bench(plan(), record_id=None).trial.record()
    assert record.id is None
    assert record.state is TrialState.APPLYING
    assert (record.blocks, record.max_blocks, record.progress) == (0, 8, 0.0)
    assert record.effect is record.ci_low is record.ci_high is record.verdict is None
    assert record.class_effects == {}


def test_the_record_of_a_promotion():
    bench = Bench(plan(), effect=0.75)
    trial = bench.run()
    record = trial.record()
    assert (record.id, record.kind, record.proposer) == (7, TrialKind.PROMOTION, "agent")
    assert (record.before, record.after) == ({"work_mem": 4096}, {"work_mem": 65536})
    assert record.created_at == START
    assert record.finished_at == trial.finished_at > START
    assert record.verdict is Verdict.ACCEPT
    assert (record.blocks, record.max_blocks, record.progress) == (4, 8, 1.0)
    assert len(record.block_log_ratios) == 4
    assert record.effect == pytest.approx(-0.25, abs=0.01)
    assert record.ci_low <= record.effect <= record.ci_high < 0
    assert record.confidence == pytest.approx(1 - 2 * 0.05 / 5)
    assert record.coverage == pytest.approx(1.0)
    assert 0.9 < record.quality <= 1
    assert not record.needs_restart
    assert set(record.class_effects) == {str(key(1)), str(key(2))}
    for effect in record.class_effects.values():
        assert effect["effect"] == pytest.approx(-0.25, abs=0.01)
        assert effect["candidate_ms"] < effect["incumbent_ms"]
        assert 0 < effect["time_share"] < 1
        assert effect["ci_low"] <= effect["effect"] <= effect["ci_high"]
    assert trial.block_spread == pytest.approx(0.0, abs=0.01)


def test_the_record_of_a_probe_claims_no_interval():
    record = Bench(plan(TrialKind.PROBE), effect=0.75).run().record()
    assert record.effect == pytest.approx(-0.25, abs=0.01)
    assert record.ci_low is record.ci_high is None


def test_progress_never_falls_though_blocks_are_begun_anew():
    bench = Bench(plan(), effect=1.0)
    contended(bench.server, lambda at_s: 2.5 if at_s % 47 < 12 else 1.0)
    bench.run(limit_s=3000)
    assert any(m.quality.value < 0.3 for m in bench.measured)
