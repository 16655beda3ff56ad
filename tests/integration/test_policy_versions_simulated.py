"""Policy versions in a tuner at work, on the simulated database: commands, switches, probation."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from backend.domain.clock import SystemClock
from backend.domain.modes import CommandKind, CommandState, Mode, TrialKind, Verdict
from backend.domain.steering import ClassKey, DatabaseIdentity, SteeringMode, SteeringState
from backend.errors import MemoryBudgetError
from backend.steering.register import SteeringRegister
from backend.telemetry import open_store
from tests.simulated_run import Run, make_target, settings_in
from tests.steered_classes import evidence

KEY = ClassKey("0123456789abcdef", '"$user", public')


def register_of(run: Run) -> SteeringRegister:
    return run.orchestrator._components.register


def prove(run: Run) -> None:
    register_of(run).add(KEY, "SELECT $1")
    register_of(run).verify(KEY, evidence())


def test_a_version_is_deployed_by_hand(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target(), enabled=False)
    run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
    prove(run)
    run.command(CommandKind.ROLL_BACK, version_id=1)
    assert run.store.policy_versions()[-1].config == {}
    assert not register_of(run).hints()

    done = run.command(CommandKind.DEPLOY_VERSION, version_id=3)

    assert done.state is CommandState.DONE
    version = run.store.policy_versions()[-1]
    assert f"policy version {version.id}" in done.result
    assert (version.author, dict(version.config)) == ("tester", {"work_mem": 16384})
    # No statement runs on a simulated server, so nobody can tell the settings in force.
    assert "to be proven anew: 0123456789abcdef" in done.result
    assert version.steering == ()


def test_deploying_respects_the_freeze_switch_and_rolling_back_does_not(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target(), enabled=False)
    run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
    run.command(CommandKind.FREEZE)
    refused = run.command(CommandKind.DEPLOY_VERSION, version_id=1)
    assert refused.state is CommandState.REFUSED
    assert "freeze" in refused.result
    assert run.command(CommandKind.ROLL_BACK, version_id=1).state is CommandState.DONE


@pytest.mark.parametrize("mode", list(Mode))
def test_rolling_back_needs_nobody_s_approval(tmp_path: Path, mode: Mode) -> None:
    run = Run(tmp_path, make_target(), enabled=False)
    run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
    run.command(CommandKind.SET_MODE, mode=mode.value)
    assert run.command(CommandKind.ROLL_BACK).state is CommandState.DONE
    assert run.store.policy_versions()[-1].config == {}


@pytest.mark.parametrize("payload", [{}, {"version_id": 99}, {"version_id": "1"}])
def test_a_version_that_is_not_there_is_refused(tmp_path: Path, payload: dict[str, object]) -> None:
    run = Run(tmp_path, make_target(), enabled=False)
    refused = run.command(CommandKind.DEPLOY_VERSION, **payload)
    assert refused.state is CommandState.REFUSED
    assert "no policy version" in refused.result


def test_a_version_beyond_the_memory_budget_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target(), enabled=False)
    run.command(CommandKind.SET_KNOBS, knobs={"work_mem": 16384})
    run.command(CommandKind.ROLL_BACK)
    parts = run.orchestrator._components

    def full(config: object) -> None:
        raise MemoryBudgetError("work_mem would take more memory than there is")

    parts.budget.check = full  # type: ignore[method-assign]
    refused = run.command(CommandKind.DEPLOY_VERSION, version_id=2)
    assert refused.state is CommandState.REFUSED
    assert "more memory" in refused.result
    assert run.command(CommandKind.ROLL_BACK, version_id=2).state is CommandState.DONE


def test_who_switches_a_class_is_the_version_s_author(tmp_path: Path) -> None:
    run = Run(tmp_path, make_target(), enabled=False)
    prove(run)
    run.command(
        CommandKind.STEER,
        fingerprint=KEY.fingerprint,
        search_path=KEY.search_path,
        mode=SteeringMode.OFF.value,
    )
    version = run.store.policy_versions()[-1]
    assert (version.author, version.steering) == ("tester", ())


def test_the_tuner_serves_nothing_that_was_proven_on_another_server(tmp_path: Path) -> None:
    with closing(open_store(settings_in(tmp_path).store_url)) as store:
        elsewhere = DatabaseIdentity("staging", "shop")
        register = SteeringRegister(store, SystemClock(), elsewhere)
        register.add(KEY, "SELECT $1")
        register.verify(KEY, evidence())
    run = Run(tmp_path, make_target(), enabled=False)
    (record,) = run.store.steered_classes()
    assert record.state is SteeringState.WITHDRAWN
    assert "proven on another server: staging" in record.reason
    assert run.store.policy_versions()[-1].steering == ()


def test_a_hint_set_proven_on_probation_does_not_end_it(tmp_path: Path) -> None:
    """The next tuner finds the promotion that is still on probation behind the newer version."""
    target = make_target()
    run = Run(tmp_path, target)
    run.go(3600, until=lambda: Verdict.ACCEPT in run.verdicts(TrialKind.PROMOTION))
    assert run.loop._rollout.on_probation
    run.loop.interrupt("the tuner dies")
    promoted = run.store.policy_versions()[-1]
    prove(run)
    assert run.store.policy_versions()[-1].trial_id is None
    again = Run(tmp_path, target)
    assert again.loop._rollout.on_probation
    since = again.orchestrator._components.deployment.versions.knobs_since()
    assert since is not None
    assert since.id == promoted.id
