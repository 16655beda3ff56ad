"""What somebody else changes while the tuner runs stays as they want it, and spoils no verdict.

On the simulated database, in simulated time. A change made with psql is ``foreign_change``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.deployment import Deployment
from backend.domain.knobs import KnobValue
from backend.domain.modes import Arm, TrialKind, Verdict
from backend.errors import AdjustmentError
from backend.rollout import Rollout
from backend.targets.simulated import ResponseModel, SimulatedDatabase
from tests.integration.test_drift_simulated import GOOD, NOISE, Drifting
from tests.scripted_tuner import ScriptedRun

THEIRS: dict[str, KnobValue] = {"cpu_tuple_cost": 0.02}


def tried(folder: Path, kind: TrialKind, arm: Arm) -> ScriptedRun:
    """A run whose trial of that kind measures that arm, not for the first time."""
    target = SimulatedDatabase(ResponseModel(seed=0), noise=NOISE, seed=0)
    run = ScriptedRun(folder, target, GOOD)

    def there() -> bool:
        trial = run.loop.trial
        if trial is None or trial.plan.kind is not kind or not trial.windows(Arm.INCUMBENT):
            return False
        return trial._arm is arm and trial.measuring

    run.go(1500, until=there)
    assert there()
    return run


def noticed(run: ScriptedRun) -> list[str]:
    return run.events("changed")


def test_an_undone_deployment_does_not_take_theirs_with_it(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.target.foreign_change("cpu_tuple_cost", 0.02)  # nobody has read the settings since
    run.turn_bad()
    run.go(600, until=lambda: "jit" not in run.entries)
    (recheck,) = run.of_kind(TrialKind.RECHECK)
    assert recheck.verdict is Verdict.REJECT
    assert run.entries == THEIRS
    assert dict(run.store.policy_versions()[-1].config) == THEIRS
    run.orchestrator.end()
    assert not run.store.open_changes()


def test_what_they_changed_in_what_stands_makes_it_theirs(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.target.foreign_change("random_page_cost", 1.3)
    run.orchestrator.save_knobs()  # reads the settings every 15 s
    run.go(5)
    version = run.store.policy_versions()[-1]
    assert (version.author, dict(version.config)) == ("server", {**GOOD, "random_page_cost": 1.3})
    assert noticed(run) == [
        "somebody else changed knobs: that stays, and what is measured is under it"
    ]
    run.turn_bad()
    run.go(300)
    assert not run.of_kind(TrialKind.RECHECK)
    assert run.entries == {**GOOD, "random_page_cost": 1.3}
    assert len(noticed(run)) == 1
    run.orchestrator.end()


@pytest.mark.parametrize("arm", list(Arm))
def test_a_promotion_of_a_knob_that_they_change_meanwhile_proves_nothing(
    tmp_path: Path, arm: Arm
) -> None:
    run = tried(tmp_path, TrialKind.PROMOTION, arm)
    run.target.foreign_change("work_mem", 16384)
    run.go(200, until=lambda: run.loop.trial is None)
    (promotion,) = run.of_kind(TrialKind.PROMOTION)
    assert promotion.verdict is Verdict.ABORTED
    assert "work_mem: changed by somebody else" in promotion.reasons[-1]
    run.go(2)
    assert run.entries == {"work_mem": 16384}
    assert run.store.policy_versions()[-1].author == "server"
    assert not run.store.open_changes()
    run.orchestrator.end()


def test_a_setting_of_a_role_does_not_keep_what_stands_from_being_undone(tmp_path: Path) -> None:
    run = Drifting(tmp_path)
    run.target.overrides["work_mem"] = ("role reporting", 262144)
    run.turn_bad()
    run.go(600, until=lambda: not run.entries)
    assert [trial.verdict for trial in run.of_kind(TrialKind.RECHECK)] == [Verdict.REJECT]
    assert not run.entries
    run.orchestrator.end()


def test_rechecks_that_cannot_be_made_do_not_begin_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Drifting(tmp_path)
    deployment: Deployment = run.orchestrator._components.deployment

    def refused(*_: object) -> str:
        raise AdjustmentError("work_mem is set by role reporting, which wins over our entry")

    with monkeypatch.context() as patched:
        patched.setattr(deployment, "enter", refused)
        run.turn_bad()
        run.go(600)
        rechecks = run.of_kind(TrialKind.RECHECK)
        assert {trial.verdict for trial in rechecks} == {Verdict.ABORTED}
        assert 2 <= len(rechecks) <= 7
        assert "broken off; the next one in" in run.loop.hindrance
    run.go(900, until=lambda: not run.entries)
    assert not run.entries
    run.orchestrator.end()


def test_a_knob_that_a_role_has_set_for_itself_is_not_tried(tmp_path: Path) -> None:
    target = SimulatedDatabase(ResponseModel(seed=0), noise=NOISE, seed=0)
    target.overrides["work_mem"] = ("role reporting", 262144)
    run = ScriptedRun(tmp_path, target, GOOD)
    run.go(1500, until=lambda: run.passed(TrialKind.PROBATION))
    assert run.entries == {name: value for name, value in GOOD.items() if name != "work_mem"}
    assert Verdict.ABORTED not in {trial.verdict for trial in run.store.trials()}
    run.orchestrator.end()


def failing_once(leave: Callable[[str, str], None], run: ScriptedRun) -> Callable[..., None]:
    """Leaving an arm fails once, at the end of a promotion."""
    left = [True]

    def leave_or_not(batch_id: str, reason: str) -> None:
        trial = run.loop.trial
        if trial is not None and trial.ending and left:
            left.clear()
            raise AdjustmentError("not read back in 5 s")
        leave(batch_id, reason)

    return leave_or_not


def test_a_verdict_is_not_lost_where_the_arm_cannot_be_taken_off_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tried(tmp_path, TrialKind.PROMOTION, Arm.CANDIDATE)
    deployment: Deployment = run.orchestrator._components.deployment
    stubborn = failing_once(deployment.leave, run)
    monkeypatch.setattr(deployment, "leave", stubborn)
    trial = run.loop.trial
    assert trial is not None
    with pytest.raises(AdjustmentError, match="not read back"):
        trial._finish(Verdict.ACCEPT, ("proven",))
    run.go(2)
    (promotion,) = run.of_kind(TrialKind.PROMOTION)
    assert (promotion.verdict, promotion.reasons) == (Verdict.ACCEPT, ("proven",))
    run.orchestrator.end()


def test_the_loop_leaves_a_pending_verdict_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tried(tmp_path, TrialKind.PROBE, Arm.CANDIDATE)
    deployment: Deployment = run.orchestrator._components.deployment
    monkeypatch.setattr(deployment, "leave", failing_once(deployment.leave, run))
    run.go(120, until=lambda: bool(run.of_kind(TrialKind.PROMOTION)))
    probe = run.of_kind(TrialKind.PROBE)[0]
    assert probe.verdict is Verdict.ACCEPT
    run.orchestrator.end()


def test_a_probation_long_passed_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Drifting(tmp_path)
    newest = run.store.trials()[-1]
    with run.store.transaction():
        for _ in range(1001):
            run.store.save_trial(
                type(newest)(
                    kind=TrialKind.PROBE,
                    state=newest.state,
                    proposer="",
                    created_at=newest.created_at,
                    finished_at=newest.finished_at,
                    before={},
                    after={},
                    verdict=Verdict.INCONCLUSIVE,
                )
            )
    run.orchestrator.end()
    run.target.reopen()
    second = ScriptedRun(tmp_path, run.target, lambda present: present)
    rollout: Rollout = second.loop._rollout
    assert not rollout.on_probation
    second.orchestrator.end()


def test_without_probations_none_is_begun_after_a_restart(tmp_path: Path) -> None:
    target = SimulatedDatabase(ResponseModel(seed=0), noise=NOISE, seed=0)
    run = ScriptedRun(tmp_path, target, GOOD, probation_blocks=0)
    run.go(1500, until=lambda: run.entries == GOOD)
    assert run.passed(TrialKind.PROMOTION)
    run.orchestrator.end()
    target.reopen()
    second = ScriptedRun(tmp_path, target, lambda present: present, probation_blocks=0)
    assert not second.loop._rollout.on_probation
    second.orchestrator.end()
