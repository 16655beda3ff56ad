"""Steering's records: what stands for each query class, the runs behind it, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from backend.domain.steering import (
    ClassKey,
    PlanRunRecord,
    ServiceTimingRecord,
    SteeredClassRecord,
    SteeringStatusRecord,
)
from backend.errors import StoreError
from backend.telemetry.codec import from_document, from_row, to_document, to_row
from backend.telemetry.reader import TelemetryReaderTables
from backend.telemetry.redaction import redact_statement
from backend.telemetry.schema import plan_runs, service_timings, steered_classes
from backend.telemetry.writer import TelemetryWriterTables

STEERING = "steering"

MAX_KEY_BYTES = 2000
"""Of a search path in UTF-8: a key must fit into a page of PostgreSQL's index."""


class SteeringTables(TelemetryWriterTables, TelemetryReaderTables):
    """Implements ``backend.protocols.SteeringWriter`` and ``SteeringReader``."""

    def save_steered_classes(self, classes: Sequence[SteeredClassRecord]) -> None:
        """Insert or replace, by key; of two with the same key the last one counts.

        Raises:
            StoreError: a key that cannot be stored to the letter.
        """
        if not classes:
            return
        rows = {record.key: _class_row(record) for record in classes}
        insert = self._upsert(steered_classes)
        key = steered_classes.primary_key.columns
        changed = {c.name: insert.excluded[c.name] for c in steered_classes.c if c not in set(key)}
        statement = insert.on_conflict_do_update(
            index_elements=[column.name for column in key], set_=changed
        )
        with self._writing() as connection:
            # In one order, or two writers on PostgreSQL could wait for each other's rows.
            connection.execute(statement, [rows[key] for key in sorted(rows)])

    def delete_steered_classes(self, keys: Sequence[ClassKey]) -> None:
        """Forget classes; one that is not known is none already."""
        if not keys:
            return
        statement = sa.delete(steered_classes).where(
            steered_classes.c.fingerprint == sa.bindparam("of_fingerprint"),
            steered_classes.c.search_path == sa.bindparam("of_search_path"),
        )
        with self._writing() as connection:
            connection.execute(
                statement,
                [
                    {"of_fingerprint": key.fingerprint, "of_search_path": key.search_path}
                    for key in sorted(keys)
                ],
            )

    def add_plan_runs(self, runs: Sequence[PlanRunRecord]) -> None:
        """Append runs.

        Raises:
            StoreError: a key that cannot be stored to the letter.
        """
        self._append(plan_runs, runs)

    def add_service_timings(self, timings: Sequence[ServiceTimingRecord]) -> None:
        """Append what classes did in service.

        Raises:
            StoreError: a key that cannot be stored to the letter.
        """
        self._append(service_timings, timings)

    def save_steering_status(self, status: SteeringStatusRecord) -> None:
        """Replace the explorer's present state."""
        self._save_present(STEERING, status.at, to_document(status))

    def steered_classes(self) -> Sequence[SteeredClassRecord]:
        """All of them, ordered by key."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(steered_classes)).mappings().all()
        # Not by the database: its collation need not be that of code points.
        return sorted((from_row(SteeredClassRecord, row) for row in rows), key=lambda r: r.key)

    def plan_runs(
        self, *, fingerprint: str | None = None, limit: int = 10_000
    ) -> Sequence[PlanRunRecord]:
        """The newest runs, of one class (under whatever search path) or of all."""
        query = sa.select(plan_runs)
        if fingerprint is not None:
            query = query.where(plan_runs.c.fingerprint == fingerprint)
        return self._newest(PlanRunRecord, query, None, None, limit)

    def service_timings(
        self, *, since: datetime | None = None, limit: int = 10_000
    ) -> Sequence[ServiceTimingRecord]:
        """The newest timings that ended at ``since`` or later, by their end."""
        query = sa.select(service_timings)
        return self._newest(ServiceTimingRecord, query, service_timings.c.ended_at, since, limit)

    def steering_status(self) -> SteeringStatusRecord | None:
        """The explorer's newest state, None before the first."""
        document = self._present(STEERING)
        return None if document is None else from_document(SteeringStatusRecord, document)

    def _append(
        self, table: sa.Table, records: Sequence[PlanRunRecord] | Sequence[ServiceTimingRecord]
    ) -> None:
        if records:
            for record in records:
                _check_key(record.key)
            with self._writing() as connection:
                connection.execute(sa.insert(table), [to_row(record) for record in records])


def _class_row(record: SteeredClassRecord) -> dict[str, Any]:
    _check_key(record.key)
    return to_row(record, omit=("text",)) | {"text": redact_statement(record.text)}


def _check_key(key: ClassKey) -> None:
    """Refuse a key that would come back as another one, or not at all."""
    for part in (key.fingerprint, key.search_path):
        try:
            size = len(part.encode())
        except UnicodeEncodeError:
            size = MAX_KEY_BYTES + 1
        if size > MAX_KEY_BYTES or "\x00" in part:
            raise StoreError(
                f"a query class is known by {part!r:.80}: such a text cannot be a key",
                remedy=f"use valid text without NUL, of at most {MAX_KEY_BYTES} bytes",
            )
