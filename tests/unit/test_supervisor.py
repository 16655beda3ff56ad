"""The supervisor: what it tells while it prepares, and what cannot end it."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend import supervisor as supervisor_module
from backend.config import Settings
from backend.domain.clock import ManualClock
from backend.domain.modes import Mode, Phase
from backend.domain.records import EventRecord, StatusRecord
from backend.errors import EmbeddedServerError, StoreError, WorkloadError
from backend.run_options import RunOptions
from backend.supervisor import LOG_S, Supervisor
from backend.workload.mixes import MIXES


class Store:
    """The status, and the events."""

    def __init__(self, status: StatusRecord | None = None) -> None:
        self.present = status
        self.locked = False
        self.events: list[EventRecord] = []

    def status(self) -> StatusRecord | None:
        return self.present

    def save_status(self, status: StatusRecord) -> None:
        self.present = status

    def add_event(self, event: EventRecord) -> int:
        if self.locked:
            raise StoreError("the store is locked")
        self.events.append(event)
        return len(self.events)


def supervisor(store: Store, folder: Path, **workload: object) -> Supervisor:
    sections = {"paths": {"data_dir": str(folder)}, "workload": workload}
    settings = Settings.model_validate(sections)
    commands = {"tuner": ["true"], "workload": ["true"]}
    return Supervisor(settings, RunOptions(), store, commands, lambda *_: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("paused", "frozen"), [(True, False), (False, True), (False, False)])
def test_pause_and_freeze_outlive_a_restart_of_the_product(
    tmp_path: Path, paused: bool, frozen: bool
) -> None:
    last = StatusRecord(
        datetime.now(timezone.utc), Mode.AUTO, Phase.LEARNING, paused=paused, frozen=frozen
    )
    store = Store(last)
    supervisor(store, tmp_path)._tell("starting PostgreSQL", 0.5)
    assert store.present is not None
    assert (store.present.paused, store.present.frozen) == (paused, frozen)
    assert (store.present.phase, store.present.progress) == (Phase.STARTING, 0.5)


def test_the_first_run_has_no_switches_to_keep(tmp_path: Path) -> None:
    store = Store()
    supervisor(store, tmp_path)._tell("starting PostgreSQL", 0.0)
    assert store.present is not None
    assert not store.present.frozen


def test_a_locked_store_does_not_end_it(tmp_path: Path) -> None:
    store = Store()
    store.locked = True
    running = supervisor(store, tmp_path)
    child = running._children["tuner"]
    running._plan_restart(child, -9)
    assert child.restart_at_s is not None
    store.locked = False
    running._plan_restart(child, 1)
    assert [event.kind for event in store.events] == ["process_died"]


class Log:
    """A server of which only the log is asked for; it cannot be made smaller."""

    def __init__(self) -> None:
        self.asked = 0

    def bound_log(self) -> None:
        self.asked += 1
        raise EmbeddedServerError("the disk is full")


def test_the_servers_log_is_looked_at_now_and_then_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(supervisor_module, "time", SimpleNamespace(monotonic=clock.monotonic_s))
    running, server = supervisor(Store(), tmp_path), Log()
    running._embedded = server  # type: ignore[assignment]
    asked = []
    for _ in range(4):
        running._bound_log()
        asked.append(server.asked)
        clock.advance(LOG_S / 2)
    assert asked == [0, 0, 1, 1]


def test_its_processes_know_whom_to_watch(tmp_path: Path) -> None:
    options = RunOptions.from_environment(supervisor(Store(), tmp_path)._options.to_environment())
    assert options.supervisor_pid == os.getpid()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"name": "simple", "query_distribution": dict.fromkeys(MIXES["simple"].day, 0.0)},
            "'simple' needs classes with weights above 0",
        ),
        ({"data_scale_factor": 0.0001}, r"scale 0\.0001 is outside"),
    ],
)
def test_a_workload_that_cannot_be_is_told_before_anything_starts(
    tmp_path: Path, asked: dict[str, object], words: str
) -> None:
    with pytest.raises(WorkloadError, match=words):
        supervisor(Store(), tmp_path, **asked)


class Ending:
    """Ends a process of the supervisor's again and again, on a clock that is turned by hand."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self._clock = Store(), ManualClock()
        monkeypatch.setattr(
            "backend.supervisor.time", SimpleNamespace(monotonic=self._clock.monotonic_s)
        )
        self._supervisor = supervisor(self.store, folder)
        self.child = self._supervisor._children[name]

    def after(self, lived_s: float, code: int) -> bool:
        """Let it end; whether it will be started again."""
        self.child.started_s, self.child.restart_at_s = self._clock.monotonic_s(), None
        self._clock.advance(lived_s)
        self._supervisor._plan_restart(self.child, code)
        return self.child.restart_at_s is not None

    @property
    def told(self) -> list[str]:
        return [event.kind for event in self.store.events]


def test_a_workload_that_exits_at_once_three_times_in_a_row_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = Ending("workload", tmp_path, monkeypatch)
    assert [workload.after(1.0, 1) for _ in range(3)] == [True, True, False]
    assert workload.told == ["process_died", "process_died", "process_given_up"]
    told = workload.store.events[-1]
    assert told.level == "error"
    for word in ("workload", "3 times", "exit code 1", "errors.log", "start everything anew"):
        assert word in told.message
    assert workload.child.process is None  # so that it is not looked at again


def test_what_ran_a_while_or_was_killed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = Ending("workload", tmp_path, monkeypatch)
    ends = [(1.0, 1), (1.0, 1), (30.0, 1), (1.0, 1), (1.0, 1), (1.0, -9), (1.0, 1), (1.0, 1)]
    assert all(workload.after(*end) for end in ends)
    assert not workload.after(1.0, 1)


def test_a_tuner_is_started_again_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = Ending("tuner", tmp_path, monkeypatch)
    assert all(tuner.after(1.0, 1) for _ in range(10))
    assert set(tuner.told) == {"process_died"}


def test_a_process_that_gives_no_sign_of_life_is_killed_once_and_started_again(
    tmp_path: Path,
) -> None:
    store, silent = Store(), False
    running = supervisor(store, tmp_path)
    child = running._children["tuner"]
    child.process = subprocess.Popen(["sleep", "60"])
    child.pulse = SimpleNamespace(is_silent=lambda: silent, close=lambda: None)  # type: ignore[assignment]
    running._kill_hung(child)
    assert child.process.poll() is None
    silent = True
    running._kill_hung(child)
    running._kill_hung(child)
    running._plan_restart(child, child.process.wait())
    assert [event.kind for event in store.events] == ["process_hung", "process_died"]
    assert "SIGKILL" in store.events[-1].message
    assert child.restart_at_s is not None


class Evolving:
    """A supervisor whose evolution is due when the test says so."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.store, self.due = Store(), False
        settings = Settings.model_validate({"paths": {"data_dir": str(folder)}})
        self.supervisor = Supervisor(
            settings, RunOptions(), self.store, {"evolution": command}, lambda *_: None,
            lambda: self.due,
        )  # type: ignore[arg-type]  # fmt: skip
        self.child = self.supervisor._children["evolution"]

    def watch(self) -> None:
        process = self.child.process
        self.supervisor._watch_evolution(self.child, process.poll() if process else None)

    def ended(self) -> list[str]:
        """Let the process end; the events that tell it."""
        assert self.child.process is not None
        self.child.process.wait()
        self.watch()
        return [event.message for event in self.store.events]


def test_an_evolution_runs_when_it_is_due_and_not_otherwise(tmp_path: Path) -> None:
    evolving = Evolving(tmp_path, ["true"])
    evolving.watch()
    assert evolving.child.process is None
    evolving.due = True
    evolving.watch()
    evolving.due = False
    assert evolving.ended() == []
    evolving.watch()
    assert evolving.child.process is None


def test_a_killed_evolution_is_told_and_goes_on_when_it_is_due_again(tmp_path: Path) -> None:
    evolving = Evolving(tmp_path, ["sleep", "600"])
    evolving.due = True
    evolving.watch()
    first = evolving.child.process
    assert first is not None
    first.kill()
    assert evolving.ended() == ["the evolution process ended (signal SIGKILL); it goes on later"]
    evolving.watch()
    second = evolving.child.process
    assert second is not None
    assert second.pid != first.pid
    evolving.supervisor._stop_all()
    assert second.poll() is not None
