"""What the tuner and the workload record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from backend.domain.records import (
    ClientIntervalRecord,
    EventRecord,
    KnobSpaceRecord,
    KnobStatusRecord,
    KnownWorkloadRecord,
    LearningRecord,
    QueryClassRecord,
    QueryWindowRecord,
    StatusRecord,
    TransitionRecord,
    TrialRecord,
    WindowRecord,
)
from backend.errors import StoreError
from backend.telemetry.codec import to_document, to_row
from backend.telemetry.connections import Connections
from backend.telemetry.schema import (
    client_intervals,
    events,
    knob_spaces,
    learning,
    present,
    query_classes,
    transitions,
    trials,
    window_queries,
    windows,
)

STATUS = "status"
KNOBS = "knobs"
WORKLOADS = "workloads"


class TelemetryWriterTables(Connections):
    """Implements ``backend.protocols.TelemetryWriter`` but for policies."""

    def add_window(self, window: WindowRecord) -> int:
        """Append a window with its queries; returns the id."""
        with self._writing() as connection:
            return insert_window(connection, to_row(window, omit=("id", "queries")), window.queries)

    def add_client_intervals(self, intervals: Sequence[ClientIntervalRecord]) -> None:
        """Append the workload's own measurements."""
        if intervals:
            rows = [to_row(interval) for interval in intervals]
            with self._writing() as connection:
                connection.execute(sa.insert(client_intervals), rows)

    def add_query_classes(self, classes: Sequence[QueryClassRecord]) -> None:
        """Add classes that are not known yet; what is known stays as first seen."""
        if classes:
            rows = [to_row(query_class) for query_class in classes]
            with self._writing() as connection:
                connection.execute(self._upsert(query_classes).on_conflict_do_nothing(), rows)

    def save_trial(self, trial: TrialRecord) -> int:
        """Insert (id None) or update; returns the id.

        Raises:
            StoreError: there is no trial of that id.
        """
        row = to_row(trial)
        with self._writing() as connection:
            if trial.id is None:
                statement = sa.insert(trials).returning(trials.c.id)
                return int(connection.execute(statement, row).scalar_one())
            updated = connection.execute(
                sa.update(trials).where(trials.c.id == trial.id).values(row)
            )
            if updated.rowcount != 1:
                raise StoreError(f"there is no trial {trial.id} to update")
            return trial.id

    def add_event(self, event: EventRecord) -> int:
        """Append an event, secrets hidden; returns the id."""
        with self._writing() as connection:
            statement = sa.insert(events).returning(events.c.id)
            return int(connection.execute(statement, to_row(event)).scalar_one())

    def add_learning(self, record: LearningRecord) -> None:
        """Append a learning step."""
        with self._writing() as connection:
            connection.execute(sa.insert(learning), to_row(record))

    def add_knob_space(self, space: KnobSpaceRecord) -> None:
        """Make a knob space known; nothing happens where it is."""
        with self._writing() as connection:
            connection.execute(self._upsert(knob_spaces).on_conflict_do_nothing(), to_row(space))

    def add_transition(self, transition: TransitionRecord) -> int:
        """Append what the knob agent was told; returns the id."""
        with self._writing() as connection:
            statement = sa.insert(transitions).returning(transitions.c.id)
            return int(connection.execute(statement, to_row(transition)).scalar_one())

    def save_knob_statuses(self, statuses: Sequence[KnobStatusRecord]) -> None:
        """Replace the present knob statuses."""
        document = [to_document(status) for status in statuses]
        self._save_present(KNOBS, datetime.now(timezone.utc), document)

    def save_status(self, status: StatusRecord) -> None:
        """Replace the tuner's present state."""
        self._save_present(STATUS, status.at, to_document(status))

    def save_known_workloads(self, workloads: Sequence[KnownWorkloadRecord]) -> None:
        """Replace the workloads that the tuner knows."""
        document = [to_document(workload) for workload in workloads]
        self._save_present(WORKLOADS, datetime.now(timezone.utc), document)

    def _save_present(self, name: str, at: datetime, document: Any) -> None:
        statement = self._upsert(present).on_conflict_do_update(
            index_elements=["name"],
            set_={
                "at": sa.literal_column("excluded.at"),
                "document": sa.literal_column("excluded.document"),
            },
        )
        with self._writing() as connection:
            connection.execute(statement, {"name": name, "at": at, "document": document})

    def _upsert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


def insert_window(
    connection: sa.Connection, row: dict[str, Any], queries: Sequence[QueryWindowRecord]
) -> int:
    """Insert a window's row and its queries; returns the id."""
    statement = sa.insert(windows).returning(windows.c.id)
    window_id = int(connection.execute(statement, row).scalar_one())
    insert_queries(connection, window_id, queries)
    return window_id


def insert_queries(
    connection: sa.Connection, window_id: int, queries: Sequence[QueryWindowRecord]
) -> None:
    """Insert the queries of a window."""
    if queries:
        rows = [to_row(query) | {"window_id": window_id} for query in queries]
        connection.execute(sa.insert(window_queries), rows)
