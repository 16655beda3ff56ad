"""The end of a bounded run on the simulated database: what is compared, and when not."""

from __future__ import annotations

from pathlib import Path

from backend.domain.modes import CommandKind, CommandState, Mode, Phase, TrialKind, Verdict
from backend.errors import KnobBoundsError
from backend.final_comparison import MAX_COMPARISONS
from backend.orchestrator import SystemOrchestrator
from backend.run_options import RunOptions
from tests.simulated_run import Run, make_target, settings_in


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
