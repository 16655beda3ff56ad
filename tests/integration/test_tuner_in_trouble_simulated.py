"""The tuner when things go wrong between two steps: nothing is left on the server, nothing hidden.

On the simulated database, in simulated time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.domain.modes import CommandKind, CommandState, Mode, Phase, TrialKind, Verdict
from backend.errors import ConflictError, OtherServerError, ServerConnectionError, ServerError
from tests.simulated_run import Run, make_target


def with_a_candidate(run: Run) -> None:
    run.go(600, until=lambda: run.target.effective_config != run.target.space.default_config())
    assert run.loop.trial is not None


def stands_at_default(run: Run) -> bool:
    return run.target.effective_config == run.target.space.default_config()


def test_a_change_that_cannot_be_kept_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, make_target())
    parts = run.orchestrator._components
    version = parts.deployment.version

    def keepable(batch_id: str) -> None:
        raise ConflictError(f"batch {batch_id} cannot be kept: somebody else was there")

    monkeypatch.setattr(parts.adjuster, "keepable", keepable)
    refused = run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
    assert refused.state is CommandState.REFUSED
    assert "somebody else" in refused.result
    assert stands_at_default(run)
    assert not run.store.open_changes()
    assert parts.deployment.version == version
    assert len(run.store.policy_versions()) == 1


def test_no_transaction_of_the_store_waits_for_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, make_target())
    store = run.orchestrator._components.store
    inside: list[str] = []
    reached = run.target._enter

    def enter(operation: str) -> None:
        if getattr(store._thread, "connection", None) is not None:
            inside.append(operation)
        reached(operation)

    monkeypatch.setattr(run.target, "_enter", enter)
    run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
    assert run.command(CommandKind.ROLL_BACK).state is CommandState.DONE
    assert inside == []


def test_what_was_left_open_is_undone_before_anything_new_is_tried(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target())
    parts = run.orchestrator._components
    parts.adjuster.apply({"work_mem": 8192}, actor="test", epoch=parts.lease.epoch)
    # Both ways of writing it back fail once, so the next attempt is 5 s later.
    for _ in range(2):
        run.target.inject("write_entry", ServerError("disk full"))
    run.go(3)
    assert "not_undone" in [event.kind for event in run.store.events()]
    run.orchestrator.save_status()
    assert "disk full" in run.store.status().fault
    assert not run.store.trials()
    run.go(10)
    assert not run.store.open_changes()
    assert stands_at_default(run)
    assert "undone_late" in [event.kind for event in run.store.events()]
    run.orchestrator.save_status()
    assert run.store.status().fault == ""


def test_after_a_lost_connection_the_lock_comes_before_the_journal(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target())
    with_a_candidate(run)
    gone = ServerConnectionError("the server closed the connection")
    run.target.inject("snapshot", gone)
    run.go(60, until=lambda: run.orchestrator._server_lost)
    run.target.lock_held_elsewhere = True
    run.go(2)
    assert run.orchestrator.exit_code != 0
    assert run.store.open_changes()  # not ours to undo while another tuner acts
    assert not stands_at_default(run)


def test_on_another_server_the_trial_proves_nothing_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, make_target())
    with_a_candidate(run)
    stood, left = run.target.effective_config, run.store.open_changes()

    def elsewhere(*_: object) -> None:
        raise OtherServerError("the address leads to a stand-by now")

    for method in ("_enter", "hold_tuner_lock"):
        monkeypatch.setattr(run.target, method, elsewhere)
    run.orchestrator.observe()
    run.orchestrator.tune()
    run.orchestrator.end()
    assert run.orchestrator.exit_code == 3
    assert run.target.effective_config == stood
    assert run.store.open_changes() == left
    (trial,) = [t for t in run.store.trials() if t.id == left[0].trial_id]
    assert trial.verdict is Verdict.ABORTED
    told = [event.message for event in run.store.events() if event.kind == "lost_right"]
    assert told == ["the address leads to a stand-by now"]


@pytest.mark.parametrize("mode", [Mode.APPROVE, Mode.ADVISE])
def test_another_mode_ends_what_was_begun_under_the_former(tmp_path: Path, mode: Mode) -> None:
    run = Run(tmp_path, make_target())
    with_a_candidate(run)
    assert run.command(CommandKind.SET_MODE, mode=mode.value).state is CommandState.DONE
    assert stands_at_default(run)
    assert run.store.trials()[0].verdict is Verdict.ABORTED


def test_the_same_mode_again_ends_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target())
    with_a_candidate(run)
    trial = run.loop.trial
    run.command(CommandKind.SET_MODE, mode=Mode.AUTO.value)
    assert run.loop.trial is trial


def test_what_waits_for_approval_does_not_hold_up_the_automatic_mode(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target())
    run.command(CommandKind.SET_MODE, mode=Mode.APPROVE.value)
    run.go(300, until=lambda: bool(run.store.experiment_plans()))
    assert not run.store.trials()
    run.command(CommandKind.SET_MODE, mode=Mode.AUTO.value)
    run.go(120, until=lambda: not stands_at_default(run))
    assert not stands_at_default(run)


@pytest.mark.parametrize("payload", [{"version_id": 999}, {"version_id": [1]}, {}])
def test_a_version_that_is_not_there_costs_no_trial(
    tmp_path: Path, payload: dict[str, object]
) -> None:
    run = Run(tmp_path, make_target())
    with_a_candidate(run)
    trial = run.loop.trial
    refused = run.command(CommandKind.ROLL_BACK, **payload)
    assert refused.state is CommandState.REFUSED
    assert "no policy version" in refused.result
    assert run.loop.trial is trial


def test_a_defect_is_an_answer_too(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target())
    assert run.orchestrator._run is not None

    def broken(command: object) -> str:
        raise ZeroDivisionError("of all things")

    run.orchestrator._run.commands._handlers[CommandKind.PAUSE] = broken
    with pytest.raises(ZeroDivisionError):
        run.command(CommandKind.PAUSE)
    (command,) = run.store.commands()
    assert command.state is CommandState.REFUSED
    assert "of all things" in command.result


def test_the_freeze_switch_is_thrown_although_the_candidate_cannot_be_taken_off(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, make_target())
    with_a_candidate(run)
    for _ in range(4):
        run.target.inject("write_entry", ServerError("disk full"))
    run.command(CommandKind.FREEZE)
    assert run.orchestrator._components.deployment.frozen
    run.go(30)
    assert stands_at_default(run)
    refused = run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 8192})
    assert "freeze" in refused.result


def test_a_report_that_cannot_be_written_does_not_keep_the_run_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, make_target(), enabled=False)
    run.orchestrator.begin(duration_days=0.005)  # 432 s
    run.loop = run.orchestrator.loop

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backend.orchestrator.write_reports", full)
    with pytest.raises(OSError, match="No space"):
        run.go(3000, until=lambda: run.orchestrator._stop.is_set())
    assert run.loop.phase is Phase.FINISHED
    assert run.orchestrator._stop.is_set()


def test_windows_of_the_former_configuration_are_recorded_as_such(tmp_path: Path) -> None:
    """In a final comparison the other arm lacks the entries that were added since."""
    run = Run(tmp_path, make_target(), enabled=False)
    run.command(CommandKind.SET_KNOBS, knobs={"random_page_cost": 1.2})
    run.orchestrator.begin(duration_days=0.005)
    run.loop = run.orchestrator.loop
    run.go(3000, until=lambda: run.loop.phase is Phase.FINISHED)
    final = run.store.trials()[-1]
    assert final.kind is TrialKind.FINAL
    configs = {w.arm: dict(w.config) for w in run.store.windows(trial_id=final.id)}
    assert len(configs) == 2
    assert sorted(map(len, configs.values())) == [0, 1]
