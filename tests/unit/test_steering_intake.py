"""Statements from files, logs and plug-ins on their way into the book and the register."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.config import PathSettings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.records import QueryClassRecord
from backend.domain.steering import (
    ClassKey,
    SteeredClassRecord,
    SteeringMode,
    SteeringState,
)
from backend.errors import SteeringError
from backend.settings.steering import SteeringSection
from backend.steering.client.statements import fingerprint
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.statements.intake import MOST_REMEMBERED, StatementIntake
from backend.steering.statements.sample_book import SampleBook
from backend.steering.statements.samples import sample_of
from backend.telemetry import SqlStore, open_store
from tests.steered_classes import START, MemoryStore

QUERY = "SELECT total FROM orders WHERE id = 4711"
LOGGED = "2026-01-05 08:00:00.000 UTC [7] LOG:  duration: 12.5 ms  statement: "


def log_to(path: Path, *statements: str) -> None:
    """Append to a server's log that nobody has written to for a while."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{LOGGED}{statement}\n" for statement in statements)
    os.utime(path, (0, 0))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with closing(open_store(f"sqlite:///{tmp_path}/telemetry.db")) as opened:
        yield opened


def intake_of(store: SqlStore, folder: Path, **steering: object) -> StatementIntake:
    settings = load_settings(
        overrides={"paths": PathSettings.under(folder), "steering": steering}, environ={}
    )
    section: SteeringSection = settings.steering
    places, clock = SteeringPlaces(settings.paths.steering_dir), ManualClock()
    places.folder.mkdir(exist_ok=True)
    book = SampleBook(places.kept_samples)
    register = SteeringRegister(store, clock)
    return StatementIntake(section, places, book, register, store, clock, "shop")


def test_a_file_s_queries_become_known_classes_without_their_literals(
    store: SqlStore, tmp_path: Path
) -> None:
    (tmp_path / "queries.sql").write_text(f"{QUERY};\nDELETE FROM orders;\n", encoding="utf-8")
    intake = intake_of(store, tmp_path, statements=[str(tmp_path / "queries.sql")])
    intake.take()
    (record,) = store.steered_classes()
    assert record.state is SteeringState.WAITING
    assert record.key.fingerprint == fingerprint(QUERY)
    assert "$1" in record.text
    assert "4711" not in record.text


def test_a_log_is_read_on_where_it_ended(store: SqlStore, tmp_path: Path) -> None:
    log = tmp_path / "postgresql.log"
    log_to(log, QUERY)
    intake = intake_of(store, tmp_path, logs=[str(log)])
    intake.take()
    log_to(log, "SELECT count(*) FROM orders")
    intake.take()
    texts = sorted(record.text for record in store.steered_classes())
    assert texts == ["SELECT count(*) FROM orders", "SELECT total FROM orders WHERE id = $1"]


def test_what_cannot_be_read_is_told_once_and_stops_nothing(
    store: SqlStore, tmp_path: Path
) -> None:
    log = tmp_path / "postgresql.log"
    log_to(log, QUERY)
    intake = intake_of(store, tmp_path, statements=[str(tmp_path / "gone.sql")], logs=[str(log)])
    for _ in range(3):
        intake.take()
    (event,) = store.events()
    assert (event.level, event.kind) == ("warning", "statements")
    assert "gone.sql" in event.message
    assert len(store.steered_classes()) == 1


def test_the_command_line_is_told_of_a_file_that_cannot_be_read(
    store: SqlStore, tmp_path: Path
) -> None:
    intake = intake_of(store, tmp_path, statements=[str(tmp_path / "gone.sql")])
    with pytest.raises(SteeringError, match=r"gone\.sql"):
        intake.read_files()


def test_telemetry_s_keys_are_noted_by_the_statements_fingerprint(
    store: SqlStore, tmp_path: Path
) -> None:
    now = ManualClock().now()
    store.add_query_classes(
        [
            QueryClassRecord("1.2.3.t", "SELECT total FROM orders WHERE id = $1", now),
            QueryClassRecord("1.2.4.t", "SELECT total FROM orders WHERE id = ", now),
            QueryClassRecord("1.2.5.t", "SELECT 1", now),
        ]
    )
    (tmp_path / "queries.sql").write_text(f"{QUERY};", encoding="utf-8")
    intake = intake_of(store, tmp_path, statements=[str(tmp_path / "queries.sql")])
    intake.take()
    (record,) = store.steered_classes()
    assert record.query_keys == ("1.2.3.t",)
    changed_at = record.updated_at
    intake.take()
    assert store.steered_classes()[0].updated_at == changed_at


def intake_in_memory(
    store: MemoryStore, folder: Path, *, max_classes: int = 500
) -> tuple[StatementIntake, SampleBook, SteeringRegister]:
    clock: ManualClock = ManualClock()
    kept: Any = store
    book = SampleBook(folder / "kept.json", max_classes=max_classes)
    register = SteeringRegister(kept, clock)
    places = SteeringPlaces(folder)
    return (
        StatementIntake(SteeringSection(), places, book, register, kept, clock),
        book,
        register,
    )


def test_what_waits_without_a_statement_is_forgotten(tmp_path: Path) -> None:
    store = MemoryStore()
    intake, book, register = intake_in_memory(store, tmp_path, max_classes=2)
    for number in range(20):
        sample = sample_of(f"SELECT c{number} FROM t", "public", ManualClock().now(), "plug-in")
        book.add([sample])
        intake.take()
        assert set(book.keys()) == set(store.classes) == {r.key for r in register.classes()}
    assert len(store.classes) == 2


@pytest.mark.parametrize("state", [SteeringState.REFUSED, SteeringState.DEFAULT_BEST])
def test_what_has_nothing_to_find_is_remembered_within_bounds(
    tmp_path: Path, state: SteeringState
) -> None:
    store = MemoryStore()
    for number in range(MOST_REMEMBERED + 5):
        changed_at = START + timedelta(seconds=-number if number % 2 else number)
        key = ClassKey(f"{number:016x}", "public")
        store.classes[key] = SteeredClassRecord(key, "SELECT $1", state, changed_at)
    intake, _, register = intake_in_memory(store, tmp_path)
    newest = sorted(register.classes(), key=lambda record: record.updated_at)[5:]
    intake.take()
    assert set(register.classes()) == set(newest) == set(store.classes.values())


def test_what_was_proven_or_decided_is_never_forgotten(tmp_path: Path) -> None:
    store = MemoryStore()
    found = (SteeringState.VERIFIED, SteeringState.WITHDRAWN, SteeringState.EXPLORING)
    for number in range(MOST_REMEMBERED + 5):
        key = ClassKey(f"{number:016x}", "public")
        off = SteeredClassRecord(
            key, "SELECT $1", SteeringState.WAITING, START, mode=SteeringMode.OFF
        )
        proven = replace(off, state=found[number % 3], mode=SteeringMode.AUTO)
        store.classes[key] = proven if number % 2 else off
    before = dict(store.classes)
    intake, _, _ = intake_in_memory(store, tmp_path)
    intake.take()
    assert store.classes == before
