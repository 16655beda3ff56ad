"""What was proven and then turned bad is undone without a human; what stays good is left alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backend.domain.experiment_plans import PromotionState
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import CommandKind, Mode, SafetyAction, TrialKind, Verdict
from backend.domain.safety import SafetyVerdict
from backend.safety_monitor import SafetyMonitor
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_drift import TurnedModel
from tests.scripted_tuner import ScriptedRun

GOOD: dict[str, KnobValue] = {"random_page_cost": 1.2, "jit": False, "work_mem": 98304}
NOISE = Noise(sigma=0.01, shared_sigma=0.01, per_call=0.3)


class Drifting(ScriptedRun):
    """A run in which ``GOOD`` was proven, deployed, and has stood its probation."""

    def __init__(self, folder: Path, *, seed: int = 0, busy: bool = False) -> None:
        self.busy = busy
        self._others: Iterator[int] = itertools.cycle(range(2, 60))
        target = SimulatedDatabase(ResponseModel(seed=seed), noise=NOISE, seed=seed)
        super().__init__(folder, target, self._next_one)
        self.go(1500, until=lambda: self.passed(TrialKind.PROBATION))
        assert self.entries == GOOD
        self.go(90)

    def _next_one(self, present: KnobConfig) -> KnobConfig:
        if self.busy and present["random_page_cost"] == GOOD["random_page_cost"]:
            return present.replace({"effective_io_concurrency": next(self._others)})
        return present.replace(GOOD) if not self.of_kind(TrialKind.RECHECK) else present

    def turn_bad(self, strength: float = 1.0) -> None:
        """From now on what gained costs."""
        self.target.drift(TurnedModel(self.target.model, strength))
        assert self.target.index_of(self.target.effective_config) > 1.1
        self.turned_s = self.clock.monotonic_s()

    @property
    def windows_since(self) -> float:
        """Time since then, in segments of a trial (settle, then a window)."""
        first, *_ = self.of_kind(TrialKind.PROBATION)
        assert first.finished_at is not None
        lasted_s = (first.finished_at - first.created_at).total_seconds()
        segment_s = lasted_s / (2 * first.blocks)
        return (self.clock.monotonic_s() - self.turned_s) / segment_s

    @property
    def probation_windows(self) -> int:
        return 2 * self.settings.level1.probation_blocks


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.APPROVE])
def test_what_turned_bad_is_undone_within_a_probation_by_nobody(tmp_path: Path, mode: Mode) -> None:
    run = Drifting(tmp_path)
    run.command(CommandKind.SET_MODE, mode=mode.value)
    commands = len(run.store.commands())
    run.turn_bad()
    run.go(600, until=lambda: not run.entries)
    assert run.windows_since <= run.probation_windows
    assert run.target.effective_config == run.target.space.default_config()
    (recheck,) = run.of_kind(TrialKind.RECHECK)
    assert recheck.verdict is Verdict.REJECT
    assert "proven worse" in recheck.reasons[0]
    version = run.store.policy_versions()[-1]
    assert version.author == "autopilot"
    assert version.note.startswith("drift: the index is more than 15% above")
    assert "proven worse" in version.note
    assert "undone" in run.events("rollback")[-1]
    assert len(run.store.commands()) == commands  # no human has done anything
    run.go(120)
    assert run.of_kind(TrialKind.RECHECK) == [recheck]  # the server's own is nobody's deployment
    run.orchestrator.end()
    assert not run.store.open_changes()


def test_a_probe_is_broken_off_for_it(tmp_path: Path) -> None:
    run = Drifting(tmp_path, busy=True)
    run.go(300, until=lambda: run.loop.trial is not None and run.loop.trial.progress > 0)
    run.turn_bad()
    run.go(600, until=lambda: not run.entries)
    assert run.windows_since <= run.probation_windows + 3  # a probe's windows are not all of it
    broken = [t for t in run.of_kind(TrialKind.PROBE) if t.verdict is Verdict.ABORTED]
    assert [t.reasons for t in broken] == [
        ("what stands has become much slower: that comes first",)
    ]
    run.orchestrator.end()


def test_what_waits_for_approval_does_not_keep_it_and_goes_with_it(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.command(CommandKind.SET_MODE, mode=Mode.APPROVE.value)
    version = run.store.policy_versions()[-1].id
    assert version is not None
    run.loop.permission.approval.ask_for(1, version, 1)
    run.turn_bad()
    run.go(600, until=lambda: not run.entries)
    assert not run.entries
    (dropped,) = run.store.promotions()
    assert (dropped.state, dropped.reason) == (PromotionState.VOID, "what stood was undone")
    run.orchestrator.end()


def overload(run: ScriptedRun, monkeypatch: pytest.MonkeyPatch, others_percent: float) -> None:
    """From now on the machine is full: the safety monitor lets nothing be tried."""
    full = SafetyVerdict(SafetyAction.BLOCK, ("CPU 100 % is above 98 %",))
    monkeypatch.setattr(SafetyMonitor, "judge", lambda *_, **__: full)
    observe = run.loop._rechecks.observe

    def observed(window: MetricsWindow) -> None:
        gauges = {**window.gauges, "other_cpu_percent": others_percent}
        observe(replace(window, gauges=gauges))

    monkeypatch.setattr(run.loop._rechecks, "observe", observed)


def test_what_overloads_its_server_goes_without_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Drifting(tmp_path)
    run.turn_bad()
    overload(run, monkeypatch, 10.0)
    run.go(300, until=lambda: not run.entries)
    assert run.target.effective_config == run.target.space.default_config()
    assert not run.of_kind(TrialKind.RECHECK)
    note = run.store.policy_versions()[-1].note
    assert note.startswith("drift: the index is more than 15% above")
    assert note.endswith("nothing may be tried: CPU 100 % is above 98 %")
    run.orchestrator.end()


def test_under_the_load_of_others_nothing_is_undone_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Drifting(tmp_path)
    run.turn_bad()
    overload(run, monkeypatch, 80.0)
    run.go(300)
    assert run.entries == GOOD
    run.orchestrator.end()


def test_a_frozen_autopilot_undoes_nothing_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Drifting(tmp_path)
    run.turn_bad()
    overload(run, monkeypatch, 10.0)
    run.command(CommandKind.FREEZE)
    run.go(300)
    assert run.entries == GOOD
    run.orchestrator.end()


def test_a_drift_in_the_probation_is_undone_by_it(tmp_path: Path) -> None:
    target = SimulatedDatabase(ResponseModel(), noise=NOISE)
    run = ScriptedRun(tmp_path, target, GOOD)
    run.go(1500, until=lambda: run.passed(TrialKind.PROMOTION))
    target.drift(TurnedModel(target.model))
    run.go(600, until=lambda: not run.entries)
    (probation,) = run.of_kind(TrialKind.PROBATION)
    assert probation.verdict is Verdict.REJECT
    assert not run.of_kind(TrialKind.RECHECK)
    run.orchestrator.end()


def test_grown_data_is_looked_at_and_what_is_still_better_stands(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.target.drift(data_growth=1.5)
    run.go(600, until=lambda: any(t.verdict for t in run.of_kind(TrialKind.RECHECK)))
    (recheck,) = run.of_kind(TrialKind.RECHECK)
    assert recheck.verdict is Verdict.ACCEPT
    (told,) = run.events("recheck")
    assert "the database has changed from 1.20 GB" in told
    run.go(600)
    assert len(run.of_kind(TrialKind.RECHECK)) == 1  # what it is now is the measure from now on
    assert run.entries == GOOD
    run.orchestrator.end()


def test_nothing_is_looked_at_where_nothing_changes(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.go(900)
    assert not run.of_kind(TrialKind.RECHECK)
    assert run.entries == GOOD
    run.orchestrator.end()


def test_the_next_tuner_knows_what_the_last_one_noted(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.orchestrator.end()
    run.target.drift(data_growth=1.5)  # while nobody looks
    run.target.reopen()
    second = ScriptedRun(tmp_path, run.target, lambda present: present)
    second.go(300, until=lambda: bool(second.events("recheck")))
    assert "the database has changed from 1.20 GB" in second.events("recheck")[0]
    second.orchestrator.end()


def test_what_a_human_has_set_is_theirs(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.command(CommandKind.SET_KNOBS, knobs={"random_page_cost": 1.3})
    run.go(60)
    run.turn_bad()
    run.go(300)
    assert not run.of_kind(TrialKind.RECHECK)
    assert run.entries == {**GOOD, "random_page_cost": 1.3}
    run.orchestrator.end()
