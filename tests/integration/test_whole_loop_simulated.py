"""The whole tuner on the simulated database: proposes, proves, deploys, undoes; in simulated time.

The jobs are called as the scheduler calls them, with a clock turned by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

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
from backend.errors import KnobBoundsError, LockNotAvailableError, ServerConnectionError
from tests.simulated_run import Run, make_target


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
