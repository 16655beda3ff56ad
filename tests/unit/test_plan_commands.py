"""``run.py plan``, ``promotion``, ``freeze`` and ``unfreeze`` on a store, without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import run
from backend.domain.experiment_plans import PlanState, PromotionState
from backend.domain.modes import CommandKind, CommandState
from backend.domain.records import CommandRecord
from backend.errors import AdjustmentError, AutopilotError, ConfigError
from backend.freeze import MOST_REASON
from backend.lease import holder_name
from backend.telemetry import SqlStore, open_store
from tests.contracts import records as full

DRAFT = replace(
    full.EXPERIMENT_PLAN,
    state=PlanState.DRAFT,
    begun=0,
    note="nights \x1b[31monly",
    decided_at=None,
    expires_at=datetime.now(timezone.utc) + timedelta(days=1),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as opened:
        yield opened


@pytest.fixture
def call(tmp_path: Path, store: SqlStore) -> Callable[..., Result]:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(run.app, [*arguments, "--data-dir", str(tmp_path)])

    return invoke


def fine(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(result: Result, kind: type[AutopilotError] = ConfigError) -> str:
    assert isinstance(result.exception, kind), (result.output, result.exception)
    return str(result.exception)


@contextmanager
def a_tuner(store: SqlStore, state: CommandState, answer: str) -> Iterator[list[CommandRecord]]:
    """A tuner at work that answers everything so; yields what it was asked."""
    store.acquire_lease(holder_name(), 60.0)
    asked: list[CommandRecord] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            command = store.take()
            if command is not None and command.id is not None:
                asked.append(command)
                store.finish(command.id, state, answer)
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


Call = Callable[..., Result]


def test_without_a_plan_it_says_how_to_make_one(call: Call) -> None:
    assert "plan draft makes one" in fine(call("plan", "list"))
    assert "no experiment plan waits or is in force" in refused(call("plan", "show"))


def test_a_plan_is_shown_without_what_a_terminal_would_obey(call: Call, store: SqlStore) -> None:
    store.save_experiment_plan(DRAFT)
    listed, shown = fine(call("plan", "list")), fine(call("plan", "show"))
    assert "1  draft  0 of 40 trials, 3 knobs" in listed
    assert "work_mem: 4 MB to 64 MB" in shown
    assert "jit: off, on" in shown
    assert "hours: Mon-Fri 01:00-05:00 Europe/Berlin" in shown
    assert "\x1b" not in listed + shown


def test_a_plan_is_printed_as_a_file_to_edit(call: Call, store: SqlStore) -> None:
    store.save_experiment_plan(replace(DRAFT, note="nights only"))
    text = fine(call("plan", "show", "1", "--yaml"))
    assert 'work_mem: {"low": 4096, "high": 65536}' in text
    assert "trials: 40" in text


def test_without_a_tuner_the_store_is_told(call: Call, store: SqlStore) -> None:
    store.save_experiment_plan(DRAFT)
    assert "experiment plan 1 is approved for 40 trials" in fine(call("plan", "approve"))
    assert store.experiment_plans()[0].state is PlanState.APPROVED
    assert "command-line" in store.experiment_plans()[0].decided_by
    assert "no experiment plan 1 waits" in refused(call("plan", "approve", "1"))
    assert "is declined" in fine(call("plan", "decline"))
    assert store.experiment_plans()[0].state is PlanState.DECLINED
    assert "is over" in refused(call("plan", "decline", "1"))


def test_a_draft_needs_a_tuner_to_check_it(call: Call, tmp_path: Path) -> None:
    assert "no tuner is at work" in refused(call("plan", "draft"))
    file = tmp_path / "plan.yaml"
    file.write_text("knobs: [", encoding="utf-8")
    assert "is not YAML" in refused(call("plan", "draft", str(file)))


def test_a_tuner_at_work_is_asked(call: Call, store: SqlStore, tmp_path: Path) -> None:
    store.save_experiment_plan(DRAFT)
    file = tmp_path / "plan.yaml"
    file.write_text("trials: 3\nknobs: {jit: {choices: [off]}}\n", encoding="utf-8")
    with a_tuner(store, CommandState.DONE, "so be it") as asked:
        for arguments in (("draft",), ("draft", str(file)), ("approve",), ("decline", "1")):
            assert "so be it" in fine(call("plan", *arguments))
    assert [(command.kind, dict(command.payload)) for command in asked] == [
        (CommandKind.DRAFT_PLAN, {}),
        (
            CommandKind.DRAFT_PLAN,
            {"document": {"trials": 3, "knobs": {"jit": {"choices": [False]}}}},
        ),
        (CommandKind.APPROVE_PLAN, {"plan_id": 1}),
        (CommandKind.DECLINE_PLAN, {"plan_id": 1}),
    ]
    assert store.experiment_plans()[0].state is PlanState.DRAFT  # that is the tuner's matter


def test_its_refusal_is_told(call: Call, store: SqlStore) -> None:
    store.save_experiment_plan(DRAFT)
    with a_tuner(store, CommandState.REFUSED, "it does not fit"):
        assert "it does not fit" in refused(call("plan", "approve"), AdjustmentError)


# -- promotions -------------------------------------------------------------------------------


def waiting(store: SqlStore) -> int:
    trial = store.save_trial(full.TRIAL)
    store.save_knob_statuses([full.KNOB])
    store.save_promotion(
        replace(full.PROMOTION_THAT_WAITS, trial_id=trial, state=PromotionState.WAITING, reason="")
    )
    return trial


def test_a_promotion_is_shown_with_its_evidence(call: Call, store: SqlStore) -> None:
    assert "no promotion waits" in refused(call("promotion", "show"))
    trial = waiting(store)
    store.add_window(replace(full.window(), trial_id=trial))
    shown = fine(call("promotion", "show"))
    assert f"Promotion of trial {trial}: waiting" in shown
    assert "effect on the latency index: -25.0%, -31.0% to -18.0% at 90.00%" in shown
    assert "in 6 blocks" in shown
    assert "jit: on -> off" in shown
    assert "-40.0%" in shown


def test_it_is_decided_in_the_store_or_by_the_tuner(call: Call, store: SqlStore) -> None:
    trial = waiting(store)
    assert "is approved; the next tuner goes by that" in fine(call("promotion", "approve"))
    assert store.promotions()[0].state is PromotionState.APPROVED
    assert "is declined" in fine(call("promotion", "decline", str(trial)))
    assert store.promotions()[0].state is PromotionState.DECLINED
    assert "waits for approval" in refused(call("promotion", "approve", str(trial)))
    with a_tuner(store, CommandState.DONE, "so be it") as asked:
        assert "so be it" in fine(call("promotion", "approve"))
    assert [(c.kind, dict(c.payload)) for c in asked] == [
        (CommandKind.APPROVE, {"trial_id": trial})
    ]


# -- the freeze switch ------------------------------------------------------------------------


def test_a_reason_is_short_and_holds_nothing_that_a_terminal_obeys(
    call: Call, store: SqlStore
) -> None:
    fine(call("freeze", "--reason", "the\x1b]0;sale\x07\n\u202ebegins" + "x" * 400))
    switch = store.freeze()
    assert switch is not None
    assert switch.reason.startswith("the ]0;sale begins")
    assert len(switch.reason) == MOST_REASON
    assert switch.reason in store.events()[-1].message


def test_it_is_thrown_whether_or_not_a_tuner_runs(call: Call, store: SqlStore) -> None:
    assert "no tuner is at work" in fine(call("freeze", "--reason", "the sale begins"))
    switch = store.freeze()
    assert switch is not None
    assert (switch.frozen, switch.reason) == (True, "the sale begins")
    assert "command-line" in switch.actor
    with a_tuner(store, CommandState.DONE, "unfrozen") as asked:
        assert "unfrozen" in fine(call("unfreeze"))
    assert [command.kind for command in asked] == [CommandKind.UNFREEZE]
    switch = store.freeze()
    assert switch is not None
    assert not switch.frozen


def test_it_is_not_thrown_where_no_autopilot_ever_looked(tmp_path: Path) -> None:
    """Of a mistyped folder it must not be said that all is frozen."""
    elsewhere = tmp_path / "typo"
    told = refused(
        CliRunner().invoke(run.app, ["freeze", "--data-dir", str(elsewhere)]), AutopilotError
    )
    assert "there is no store" in told
    assert not elsewhere.exists()


def test_a_tuner_that_does_not_answer_cannot_keep_it_open(
    call: Call, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.commands.asking.ANSWER_TIMEOUT_S", 0.1)
    store.acquire_lease(holder_name(), 60.0)
    told = refused(call("freeze"), AdjustmentError)
    assert "the switch is thrown, but the tuner has not confirmed it" in told
    switch = store.freeze()
    assert switch is not None
    assert switch.frozen
