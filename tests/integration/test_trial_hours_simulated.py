"""Hours and limits on the simulated server: outside them nothing begins, inside them all of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backend.config import Settings
from backend.domain.knobs import KnobValue
from backend.domain.modes import CommandKind, CommandState, Mode, TrialKind, Verdict
from backend.orchestrator import SystemOrchestrator
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.telemetry import open_store
from tests import scripted_tuner
from tests.scripted_tuner import ScriptedRun

GOOD: dict[str, KnobValue] = {"random_page_cost": 1.2, "jit": False, "work_mem": 98304}
NOISE = Noise(sigma=0.01, shared_sigma=0.01, per_call=0.3)


def target() -> SimulatedDatabase:
    return SimulatedDatabase(ResponseModel(seed=0), noise=NOISE, seed=0)


def span(begin: datetime, end: datetime) -> str:
    return f"{begin:%a} {begin:%H:%M}-{end:%H:%M}"


def scheduled(
    folder: Path,
    server: SimulatedDatabase,
    monkeypatch: pytest.MonkeyPatch,
    propose: Mapping[str, KnobValue] = GOOD,
    **sections: Mapping[str, object],
) -> ScriptedRun:
    """A run in mode ``auto`` with these sections of settings besides."""

    def settings_in(place: Path, **level1: object) -> Settings:
        plain = original(place, **level1)
        as_set = plain.model_dump()
        for name, section in sections.items():
            as_set[name] |= section
        return Settings.model_validate(as_set)

    original = scripted_tuner.settings_in
    monkeypatch.setattr(scripted_tuner, "settings_in", settings_in)
    return ScriptedRun(folder, server, propose)


def test_trials_begin_and_end_in_their_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = target()
    now = server.clock.now()
    begin = now.replace(second=0, microsecond=0) + timedelta(minutes=6)
    end = begin + timedelta(minutes=3)
    run = scheduled(tmp_path, server, monkeypatch, schedule={"trials": (span(begin, end),)})
    run.go(300)
    assert not run.store.trials()
    assert "outside the hours of trials" in run.loop.hindrance
    run.orchestrator.save_status()
    status = run.store.status()
    assert status is not None
    assert status.trial_hours is not None
    assert not status.trial_hours.are_open
    assert status.trial_hours.changes_at == begin

    run.go(1200, until=lambda: run.clock.now() > end + timedelta(minutes=5))
    trials = run.store.trials()
    assert trials
    assert all(begin <= trial.created_at < end for trial in trials)
    assert all(t.finished_at is not None and t.finished_at <= end for t in trials)
    assert all(begin <= row.created_at < end for row in run.store.changes())
    assert trials[-1].verdict is Verdict.ABORTED
    assert trials[-1].reasons == ("its hours are over",)
    assert run.target.effective_config == run.target.space.default_config()
    run.orchestrator.end()
    assert not run.store.open_changes()


def test_what_was_broken_off_at_the_end_of_its_hours_goes_on_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = target()
    begin = server.clock.now().replace(second=0, microsecond=0) + timedelta(minutes=2)
    first = (begin, begin + timedelta(minutes=2))
    second = (begin + timedelta(minutes=8), begin + timedelta(minutes=28))
    hours = (span(*first), span(*second))
    run = scheduled(tmp_path, server, monkeypatch, schedule={"trials": hours})
    run.go(2400, until=lambda: run.passed(TrialKind.PROBATION))
    assert run.passed(TrialKind.PROBATION)
    assert run.entries == GOOD
    run.orchestrator.end()


def test_a_knob_that_needs_a_restart_keeps_to_the_hours_of_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = target()
    later = server.clock.now() + timedelta(days=2)
    closed = {"restarts": (f"{later:%a} 01:00-02:00",)}
    wanted = {"shared_buffers": 65536, "random_page_cost": 1.2}
    run = scheduled(tmp_path, server, monkeypatch, wanted, schedule=closed)
    run.go(200, until=lambda: bool(run.store.trials()))
    assert dict(run.store.trials()[0].after) == {"random_page_cost": 1.2}
    refused = run.command(CommandKind.SET_KNOBS, knobs={"shared_buffers": 65536})
    assert refused.state is CommandState.REFUSED
    assert "outside the hours of restarts" in refused.result
    assert "shared_buffers" not in run.entries
    run.orchestrator.end()


def test_no_more_trials_than_the_day_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = target()
    run = scheduled(tmp_path, server, monkeypatch, safety={"max_trials_per_day": 1})
    run.go(400)
    assert len(run.store.trials()) == 1
    assert "today's 1 trials are used up" in run.loop.hindrance
    run.command(CommandKind.SET_KNOBS, knobs={"jit": False})  # a human's do not count
    assert run.loop.permission.limits.left == {"max_changes_per_day": 50, "max_trials_per_day": 0}
    run.clock.advance(86_400)
    run.go(120, until=lambda: len(run.store.trials()) > 1)
    assert len(run.store.trials()) == 2
    run.orchestrator.end()


def test_no_more_promotions_than_the_day_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = target()
    run = scheduled(tmp_path, server, monkeypatch, safety={"max_changes_per_day": 1})
    run.go(900, until=lambda: run.passed(TrialKind.PROBATION))
    promoted = run.verdicts(TrialKind.PROMOTION)
    scripted_tuner.promise(run.loop, {"effective_io_concurrency": 64})
    run.go(200)
    assert run.verdicts(TrialKind.PROMOTION) == promoted
    assert run.loop.permission.limits.left["max_changes_per_day"] == 0
    run.orchestrator.end()


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.APPROVE])
def test_the_switch_thrown_in_the_store_freezes_a_tuner_that_runs(
    tmp_path: Path, mode: Mode
) -> None:
    from backend.domain.records import FreezeRecord

    run = ScriptedRun(tmp_path, target(), GOOD)
    run.go(100, until=lambda: run.loop.trial is not None and run.loop.trial.progress > 0)
    run.command(CommandKind.SET_MODE, mode=mode.value)
    frozen = FreezeRecord(True, "alice@command-line", run.clock.now(), "the sale begins")
    run.store.save_freeze(frozen)
    run.go(2)
    assert run.orchestrator._components.deployment.frozen
    assert run.loop.trial is None
    assert run.target.effective_config == run.target.space.default_config()
    trials = len(run.store.trials())
    run.go(60)
    assert len(run.store.trials()) == trials
    run.orchestrator.end()
    run.target.reopen()
    following = ScriptedRun(tmp_path, run.target, GOOD)
    following.go(100)
    assert len(following.store.trials()) == trials
    assert following.orchestrator._components.deployment.frozen
    following.orchestrator.end()


def test_a_mode_is_never_raised_by_the_next_tuner(tmp_path: Path) -> None:
    server = target()
    settings = scripted_tuner.settings_in(tmp_path)
    observing = settings.model_copy(update={"mode": Mode.OBSERVE})
    for _ in range(2):
        orchestrator = SystemOrchestrator(
            observing, target_factory=lambda _: server, clock=server.clock
        )
        orchestrator.begin()
        orchestrator.tune()
        orchestrator.save_status()
        assert orchestrator._components.deployment.mode is Mode.OBSERVE
        orchestrator.end()
        server.reopen()
    store = open_store(settings.store_url)
    status = store.status()
    assert status is not None
    assert status.mode is Mode.OBSERVE
    assert not store.changes()
    store.close()
