"""Statements from files, logs and plug-ins on their way into the book and the register."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backend.config import PathSettings, load_settings
from backend.config_steering import SteeringSection
from backend.domain.clock import ManualClock
from backend.domain.records import QueryClassRecord
from backend.domain.steering import SteeringState
from backend.errors import SteeringError
from backend.steering.client.statements import fingerprint
from backend.steering.places import SteeringPlaces
from backend.steering.register import SteeringRegister
from backend.steering.statements.intake import StatementIntake
from backend.steering.statements.sample_book import SampleBook
from backend.telemetry import SqlStore, open_store

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
