"""The supervisor: what it tells while it prepares, and what cannot end it."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from backend.config import Settings
from backend.domain.modes import Mode, Phase
from backend.domain.records import EventRecord, StatusRecord
from backend.errors import StoreError
from backend.run_options import RunOptions
from backend.supervisor import Supervisor


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


def supervisor(store: Store, folder: Path) -> Supervisor:
    settings = Settings.model_validate({"paths": {"data_dir": str(folder)}})
    return Supervisor(settings, RunOptions(), store, {"tuner": ["true"]}, lambda *_: None)  # type: ignore[arg-type]


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


def test_its_processes_know_whom_to_watch(tmp_path: Path) -> None:
    options = RunOptions.from_environment(supervisor(Store(), tmp_path)._options.to_environment())
    assert options.supervisor_pid == os.getpid()
