"""What a workload is measured against, where the load shifts: baselines, index, comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.domain.modes import CommandKind, Phase, TrialKind, Verdict
from tests.integration.workload_shifts.shifting_run import BEST, DAY, Shifting


def test_the_published_index_is_that_of_the_workload_that_is_offered(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(1000, until=lambda: run.promoted())
    run.command(CommandKind.PAUSE)
    run.go(60)
    by_day = run.index_now
    assert by_day == pytest.approx(run.model.index_by_day(BEST["day"]), rel=0.05)
    run.clients.offer("night")
    run.go(25)
    assert run.index_now is None  # its statements are not those of the reference
    run.go(60)
    assert run.index_now == pytest.approx(1.0, rel=0.1)
    run.orchestrator.save_status()
    status = run.store.status()
    assert status is not None
    assert status.index == pytest.approx(1.0, rel=0.1)
    # What stands is changed by hand at night: by day it is measured against the day's reference.
    run.command(CommandKind.SET_KNOBS, knobs={"random_page_cost": 4.0})
    run.clients.offer("day")
    run.go(60)
    assert run.number() == 1
    now = run.model.index_by_day(run.target.effective_config)
    assert now > 1.2 * by_day
    assert run.index_now == pytest.approx(now, rel=0.1)
    assert run.loop.workloads.in_force.index_standing == pytest.approx(now, rel=0.1)
    run.orchestrator.end()


def test_a_burst_is_no_workload(tmp_path: Path) -> None:
    run = Shifting(tmp_path)
    run.go(600, until=lambda: run.promoted())
    run.command(CommandKind.PAUSE)
    run.clients.offer("both")
    run.go(20)  # a baseline takes 30 s
    assert run.loop.workloads.away
    run.orchestrator.save_status()
    status = run.store.status()
    assert status is not None
    assert status.activity == "measuring the baseline of another workload"
    assert status.progress is not None
    assert 0.0 < status.progress < 1.0
    run.clients.offer("day")
    run.go(60)
    assert (run.number(), len(run.loop.workloads.known)) == (1, 1)
    assert not run.loop.workloads.away
    run.orchestrator.end()


def test_a_reference_that_holds_little_of_the_load_is_left(tmp_path: Path) -> None:
    """Its classes still run; but most of the time goes to statements that nobody would judge."""
    run = Shifting(tmp_path)
    run.go(600, until=lambda: run.promoted())
    run.clients.offer("both")
    run.go(600, until=lambda: run.number() == 2)
    assert set(run.loop.workloads.in_force.chain.reference.per_class) == set(run.target.keys)
    run.clients.offer("day")
    run.go(200, until=lambda: run.number() == 1)
    assert run.number() == 1
    run.orchestrator.end()


class TestTheNextTuner:
    def test_knows_the_workloads_of_the_last_one(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION))
        run.clients.offer("night")
        run.go(600, until=lambda: run.number() == 2)
        factors = {w.number: w.chain.factor for w in run.loop.workloads.known}
        run.orchestrator.end()

        second = run.started_again(tmp_path)
        second.go(200, until=lambda: second.number() is not None)
        assert second.number() == 2
        second.clients.offer("day")
        second.go(400, until=lambda: second.number() == 1)
        assert {w.number: w.chain.factor for w in second.loop.workloads.known} == factors
        assert len(second.told("baseline")) == 2
        standing = second.model.index_by_day(second.target.effective_config)
        assert second.loop.workloads.in_force.index_standing == pytest.approx(standing, rel=0.1)
        second.orchestrator.end()

    def test_goes_on_with_the_probation(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path)
        run.go(600, until=lambda: run.tried(TrialKind.PROBATION))
        # The process is gone without a word.
        second = run.started_again(tmp_path)
        second.go(200, until=lambda: second.tried(TrialKind.PROBATION))
        assert second.verdicts(TrialKind.PROBATION) == [Verdict.ABORTED, None]
        second.go(200, until=lambda: second.loop.trial is None)
        assert second.verdicts(TrialKind.PROBATION)[1] is Verdict.ACCEPT
        second.orchestrator.end()
        third = run.started_again(tmp_path)
        third.go(150)
        assert len(third.verdicts(TrialKind.PROBATION)) == 2  # it was ended
        third.orchestrator.end()


class TestFinalComparison:
    def test_is_made_on_what_is_offered_at_the_end(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path, days=0.01)  # 864 s
        run.go(1000, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROBATION))
        run.clients.offer("night")
        run.go(3000, until=lambda: run.loop.phase is Phase.FINISHED)
        final = run.store.trials()[-1]
        assert (final.kind, final.verdict) == (TrialKind.FINAL, Verdict.ACCEPT)
        assert set(final.class_effects) == {str(key) for key in run.target.keys[len(DAY) :]}
        assert final.effect is not None
        truth = run.model.index_by_night(run.target.effective_config)
        assert final.effect == pytest.approx(truth - 1, abs=0.05)
        assert run.told("final_comparison") == ["the final comparison is made on workload 2 of 2"]

    def test_is_begun_anew_where_the_load_leaves(self, tmp_path: Path) -> None:
        run = Shifting(tmp_path, days=0.01)  # 864 s
        run.go(1000, until=lambda: run.tried(TrialKind.FINAL))
        run.clients.offer("night")
        run.go(2000, until=lambda: run.loop.phase is Phase.FINISHED)
        finals = [trial for trial in run.store.trials() if trial.kind is TrialKind.FINAL]
        assert [trial.verdict for trial in finals] == [Verdict.INCONCLUSIVE, Verdict.REJECT]
        # What was proven by day is worse by night, and the comparison says so.
        truth = run.model.index_by_night(run.target.effective_config)
        assert truth > 2.0
        assert finals[-1].effect == pytest.approx(truth - 1, rel=0.2)
