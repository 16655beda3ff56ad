"""The whole tuner on the simulated database: proposes, proves, deploys, undoes; in simulated time.

The jobs are called as the scheduler calls them, with a clock turned by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

import pytest

from backend.config import PathSettings, Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobValue
from backend.domain.modes import (
    ChangeState,
    CommandKind,
    CommandState,
    Mode,
    Phase,
    TrialKind,
    Verdict,
)
from backend.domain.records import CommandRecord
from backend.errors import KnobBoundsError, LockNotAvailableError, ServerConnectionError
from backend.final_comparison import MAX_COMPARISONS
from backend.orchestrator import SystemOrchestrator
from backend.run_options import RunOptions
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.telemetry import open_store


def settings_in(folder: Path, **level1: object) -> Settings:
    return load_settings(
        overrides={
            "mode": "auto",
            "paths": PathSettings.under(folder),
            "level1": {"max_settle_s": 600, "settle_s": 2, "window_s": 10, **level1},
        },
        environ={},
    )


class Run:
    """An orchestrator on a simulated database, advanced in simulated seconds."""

    def __init__(self, folder: Path, target: SimulatedDatabase, **level1: object) -> None:
        self.settings = settings_in(folder, **level1)
        self.target, self.clock = target, target.clock
        assert isinstance(self.clock, ManualClock)
        self.orchestrator = SystemOrchestrator(
            self.settings, target_factory=lambda _: target, clock=self.clock
        )
        self.orchestrator.begin()
        self.loop = self.orchestrator.loop
        self.store = open_store(self.settings.store_url)

    @classmethod
    def of(
        cls, orchestrator: SystemOrchestrator, target: SimulatedDatabase, settings: Settings
    ) -> Run:
        """A run that was begun elsewhere."""
        run = cls.__new__(cls)
        run.settings, run.target, run.clock = settings, target, target.clock
        run.orchestrator, run.loop = orchestrator, orchestrator.loop
        run.store = open_store(settings.store_url)
        return run

    def go(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        observed_s = 0.0
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < end_s and not until():
            self.clock.advance(1.0)
            observed_s += 1.0
            self.orchestrator.tune()
            if observed_s >= 5.0:
                observed_s = 0.0
                self.orchestrator.observe()

    def command(self, kind: CommandKind, **payload: object) -> CommandRecord:
        number = self.store.submit(
            CommandRecord(kind, payload, "tester", datetime.now(timezone.utc))
        )
        self.go(1.0)
        done = self.store.command(number)
        assert done is not None
        return done

    def verdicts(self, kind: TrialKind) -> list[Verdict | None]:
        return [t.verdict for t in self.store.trials() if t.kind is kind]


def make_target(gain: float = 0.35, seed: int = 0, **more: object) -> SimulatedDatabase:
    noise = Noise(sigma=0.02, shared_sigma=0.02)
    return SimulatedDatabase(ResponseModel(gain=gain, seed=seed), noise=noise, seed=seed, **more)


def test_finds_proves_and_deploys_a_better_configuration(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    run.go(3600, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROMOTION))
    run.go(400)
    assert Verdict.ACCEPT in run.verdicts(TrialKind.PROMOTION)
    version = next(v for v in run.store.policy_versions() if v.active)
    assert version.author == "autopilot"
    truth = target.index_of(target.space.default_config().replace(version.config))
    assert truth < 0.97
    assert version.index == pytest.approx(truth, rel=0.1)
    run.orchestrator.end()


def test_promotes_nothing_where_there_is_nothing_to_gain(tmp_path: Path) -> None:
    target = make_target(gain=0.0)
    run = Run(tmp_path, target)
    run.go(2400)
    assert run.loop.phase in (Phase.LEARNING, Phase.OPTIMISED)
    assert len(run.store.trials()) >= 5
    assert Verdict.ACCEPT not in run.verdicts(TrialKind.PROMOTION)
    run.orchestrator.end()
    assert target.effective_config == target.space.default_config()
    assert not run.store.open_changes()


def test_a_value_that_the_server_refuses_is_told_to_the_agent(tmp_path: Path) -> None:
    target = make_target()
    write = target.write_entries

    def refusing(entries: Mapping[str, KnobValue | None]) -> None:
        if entries.get("random_page_cost") is not None:
            raise KnobBoundsError("random_page_cost is not to be had here")
        write(entries)

    target.write_entries = refusing  # type: ignore[method-assign]
    run = Run(tmp_path, target)
    run.go(1800, until=lambda: run.verdicts(TrialKind.PROBE).count(Verdict.ABORTED) >= 2)
    refused = [t for t in run.store.trials() if t.verdict is Verdict.ABORTED]
    assert len(refused) >= 2
    told = [t for t in run.store.transitions() if t.censored]
    assert len(told) == len(refused)
    assert len({repr(sorted(t.config.items())) for t in told}) == len(told)
    run.orchestrator.end()
    assert not run.store.open_changes()


def test_the_end_takes_the_candidate_off(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    run.go(600, until=lambda: target.effective_config != target.space.default_config())
    assert run.loop.trial is not None
    run.orchestrator.end()
    assert target.effective_config == target.space.default_config()
    assert not run.store.open_changes()


def test_a_new_tuner_undoes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    run.go(600, until=lambda: target.effective_config != target.space.default_config())
    assert run.store.open_changes()
    # The process is gone without a word; the next one finds the journal.
    second = Run(tmp_path, target)
    assert target.effective_config == target.space.default_config()
    assert not second.store.open_changes()
    assert {c.state for c in second.store.changes()} == {ChangeState.ROLLED_BACK}


def test_a_lost_server_aborts_the_trial_and_is_reconciled_when_it_is_back(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    run.go(600, until=lambda: target.effective_config != target.space.default_config())
    gone = ServerConnectionError("the server closed the connection")
    target.inject("snapshot", gone)
    target.inject("describe", gone)
    run.go(300, until=lambda: "server_back" in [event.kind for event in run.store.events()])
    assert target.effective_config == target.space.default_config()
    assert not run.store.open_changes()
    kinds = [event.kind for event in run.store.events()]
    assert "server_lost" in kinds
    assert "server_back" in kinds
    run.orchestrator.end()


def test_two_tuners_on_one_server(tmp_path: Path) -> None:
    target = make_target()
    target.lock_held_elsewhere = True
    with pytest.raises(LockNotAvailableError, match="another tuner"):
        Run(tmp_path, target)


class TestOperator:
    def test_sets_and_undoes_a_knob(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        done = run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
        assert done.state is CommandState.DONE
        assert target.effective_config["work_mem"] == 16384
        change = run.store.changes()[-1]
        assert (change.actor, change.knob, change.state) == ("tester", "work_mem", ChangeState.KEPT)
        undone = run.command(CommandKind.ROLL_BACK, batch_id=change.batch_id)
        assert undone.state is CommandState.DONE
        assert target.effective_config["work_mem"] == 4096
        assert target.read_knobs(["work_mem"])["work_mem"].entry is None

    @pytest.mark.parametrize(
        ("knobs", "reason"),
        [
            ({"work_mem": 1}, "outside"),
            ({"fsync": "off"}, "fsync"),
            ({"no_such_knob": 1}, "no_such_knob"),
            ({"work_mem": "1; DROP TABLE x"}, "work_mem"),
            ({"work_mem": 1_000_000, "hash_mem_multiplier": 8.0}, "memory"),
            ({}, "no knob"),
        ],
    )
    def test_refuses_with_a_reason(
        self, tmp_path: Path, knobs: dict[str, object], reason: str
    ) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        refused = run.command(CommandKind.SET_KNOBS, knobs=knobs)
        assert refused.state is CommandState.REFUSED
        assert reason in refused.result
        assert target.effective_config == target.space.default_config()

    def test_a_change_by_hand_in_mid_trial_ends_the_trial(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        run.go(600, until=lambda: target.effective_config != target.space.default_config())
        done = run.command(CommandKind.SET_KNOBS, knobs={"random_page_cost": 1.5})
        assert done.state is CommandState.DONE
        assert Verdict.ABORTED in [t.verdict for t in run.store.trials()]
        only = target.space.default_config().replace({"random_page_cost": 1.5})
        assert target.effective_config == only

    def test_freeze_stops_everything_but_rollback(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
        run.command(CommandKind.FREEZE)
        refused = run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 8192})
        assert refused.state is CommandState.REFUSED
        assert "freeze" in refused.result
        assert run.command(CommandKind.ROLL_BACK).state is CommandState.DONE
        assert target.effective_config["work_mem"] == 4096
        run.go(300)
        assert not run.store.trials()

    def test_observe_mode_changes_nothing(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        assert run.command(CommandKind.SET_MODE, mode=Mode.OBSERVE.value).state is CommandState.DONE
        run.go(600)
        assert not run.store.trials()
        assert not run.store.changes()

    def test_approve_mode_waits(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        run.command(CommandKind.SET_MODE, mode=Mode.APPROVE.value)
        run.go(300)
        waiting = run.store.trials()
        assert len(waiting) == 1
        assert waiting[0].reasons == ("waiting for approval",)
        assert not run.store.changes()
        assert run.command(CommandKind.APPROVE, trial_id=waiting[0].id).state is CommandState.DONE
        run.go(120)
        assert run.store.changes()

    def test_a_waiting_trial_does_not_outlive_a_switch_to_observe(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        run.command(CommandKind.SET_MODE, mode=Mode.APPROVE.value)
        run.go(300, until=lambda: bool(run.store.trials()))
        run.command(CommandKind.SET_MODE, mode=Mode.OBSERVE.value)
        (trial,) = run.store.trials()
        assert trial.verdict is Verdict.ABORTED
        refused = run.command(CommandKind.APPROVE, trial_id=trial.id)
        assert refused.state is CommandState.REFUSED
        run.go(60)
        assert not run.store.changes()

    def test_the_freeze_switch_outlives_the_tuner(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        run.command(CommandKind.FREEZE)
        run.orchestrator.save_status()
        run.orchestrator.end()
        target.reopen()
        second = Run(tmp_path, target)
        refused = second.command(CommandKind.SET_KNOBS, knobs={"work_mem": 8192})
        assert refused.state is CommandState.REFUSED

    def test_going_back_removes_the_entries_that_were_not_there(self, tmp_path: Path) -> None:
        target = make_target()
        run = Run(tmp_path, target)
        run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 8192})
        run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384, "random_page_cost": 1.5})
        first = run.store.policy_versions()[0].id
        assert run.command(CommandKind.ROLL_BACK, version_id=first).state is CommandState.DONE
        assert target.effective_config == target.space.default_config()
        assert target.read_knobs(["work_mem"])["work_mem"].entry is None


def test_a_run_from_the_defaults_compares_with_the_defaults(tmp_path: Path) -> None:
    target = make_target()
    target.foreign_change("random_page_cost", 1.2)  # an earlier run's
    settings = settings_in(tmp_path, enabled=False)
    orchestrator = SystemOrchestrator(
        settings,
        options=RunOptions(from_defaults=True),
        target_factory=lambda _: target,
        clock=target.clock,
    )
    orchestrator.begin(duration_days=0.005)
    assert target.effective_config == target.space.default_config()
    run = Run.of(orchestrator, target, settings)
    best = {"random_page_cost": 1.2, "jit": False}
    assert run.command(CommandKind.SET_KNOBS, knobs=best).state is CommandState.DONE
    run.go(2000, until=lambda: run.loop.phase is Phase.FINISHED)
    final = run.store.trials()[-1]
    assert final.kind is TrialKind.FINAL
    assert final.blocks == final.max_blocks
    assert dict(final.after) == best
    assert final.before["random_page_cost"] == 4.0


def test_an_aborted_comparison_is_begun_anew(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    run.orchestrator.begin(duration_days=0.01)  # 864 s
    run.loop = run.orchestrator.loop
    run.go(4000, until=lambda: run.loop.phase is Phase.FINAL_COMPARISON)
    run.command(CommandKind.PAUSE)
    run.command(CommandKind.RESUME)
    run.go(1500, until=lambda: run.loop.phase is Phase.FINISHED)
    finals = [t.verdict for t in run.store.trials() if t.kind is TrialKind.FINAL]
    assert finals[0] is Verdict.ABORTED
    assert finals[-1] is not Verdict.ABORTED


def test_a_comparison_that_the_server_refuses_is_given_up(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target, enabled=False)
    run.orchestrator.begin(duration_days=0.005)
    run.loop = run.orchestrator.loop
    assert run.command(CommandKind.SET_KNOBS, knobs={"jit": False}).state is CommandState.DONE
    for _ in range(50):
        target.inject("write_entry", KnobBoundsError("not on this server"))
    run.go(4000, until=lambda: run.loop.phase is Phase.FINISHED)
    assert run.loop.phase is Phase.FINISHED
    assert run.verdicts(TrialKind.FINAL) == [Verdict.ABORTED] * MAX_COMPARISONS
    assert "not_compared" in {event.kind for event in run.store.events()}


def test_a_bounded_run_that_only_observes_compares_nothing(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    assert run.command(CommandKind.SET_KNOBS, knobs={"jit": False}).state is CommandState.DONE
    run.command(CommandKind.SET_MODE, mode=Mode.OBSERVE.value)
    run.orchestrator.begin(duration_days=0.005)
    run.loop = run.orchestrator.loop
    run.go(2000, until=lambda: run.loop.phase is Phase.FINISHED)
    assert run.loop.phase is Phase.FINISHED
    assert run.verdicts(TrialKind.FINAL) == []
    assert target.effective_config["jit"] is False


def test_a_tuner_started_again_compares_with_the_beginning(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    run.command(CommandKind.SET_KNOBS, knobs=dict(target.best_config.items()))
    assert run.store.commands()[-1].state is CommandState.REFUSED  # too much memory in all
    best = {"random_page_cost": 1.2, "jit": False, "max_parallel_workers_per_gather": 0}
    assert run.command(CommandKind.SET_KNOBS, knobs=best).state is CommandState.DONE
    run.orchestrator.end()
    target.reopen()
    second = Run(tmp_path, target, enabled=False)
    second.orchestrator.begin(duration_days=0.005)  # 432 s
    second.loop = second.orchestrator.loop
    second.go(2000, until=lambda: second.loop.phase is Phase.FINISHED)
    final = second.store.trials()[-1]
    assert final.kind is TrialKind.FINAL
    assert dict(final.after) == best
    assert final.before["random_page_cost"] == 4.0


def test_a_bounded_run_ends_with_a_comparison_and_reports(tmp_path: Path) -> None:
    target = make_target()
    run = Run(tmp_path, target)
    run.orchestrator.begin(duration_days=0.02)  # 1,728 s
    run.loop = run.orchestrator.loop
    run.go(4000, until=lambda: run.loop.phase is Phase.FINISHED)
    run.go(2)
    assert run.loop.phase is Phase.FINISHED
    final = run.store.trials()[-1]
    assert final.kind is TrialKind.FINAL
    assert final.ci_high is not None
    assert final.ci_high < 0
    for end in ("txt", "json", "html"):
        assert (tmp_path / f"final_report.{end}").stat().st_size > 500
