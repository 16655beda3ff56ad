"""What the dashboard and the reports read. All lists are oldest first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from backend.domain.records import (
    ChangeRecord,
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
from backend.telemetry.codec import from_document, from_row
from backend.telemetry.connections import Connections
from backend.telemetry.schema import (
    changes,
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
from backend.telemetry.writer import KNOBS, STATUS, WORKLOADS

T = TypeVar("T")

_KEYS_A_STATEMENT = 500
"""How many ids one IN list holds."""


class TelemetryReaderTables(Connections):
    """Implements ``backend.protocols.TelemetryReader`` but for commands and policies."""

    def status(self) -> StatusRecord | None:
        """The tuner's newest state, None before the first."""
        document = self._present(STATUS)
        return None if document is None else from_document(StatusRecord, document)

    def knob_statuses(self) -> Sequence[KnobStatusRecord]:
        """The catalogued knobs as they stand, in the order in which they were saved."""
        return [from_document(KnobStatusRecord, item) for item in self._present(KNOBS) or []]

    def known_workloads(self) -> Sequence[KnownWorkloadRecord]:
        """The workloads that the tuner knows, the last one seen last."""
        saved = self._present(WORKLOADS) or []
        return [from_document(KnownWorkloadRecord, item) for item in saved]

    def windows(
        self, *, since: datetime | None = None, limit: int = 500, trial_id: int | None = None
    ) -> Sequence[WindowRecord]:
        """The newest ``limit`` windows that began at ``since`` or later, without ``queries``."""
        query = sa.select(windows)
        if trial_id is not None:
            query = query.where(windows.c.trial_id == trial_id)
        return self._newest(WindowRecord, query, windows.c.started_at, since, limit)

    def query_windows(
        self, *, since: datetime | None = None, limit: int = 500
    ) -> Sequence[WindowRecord]:
        """The newest windows that began at ``since`` or later, with their ``queries``."""
        bare = self.windows(since=since, limit=limit)
        ids = [window.id for window in bare if window.id is not None]
        with self._reading() as connection:
            queries = queries_of(connection, ids)
        return [replace(window, queries=tuple(queries.get(window.id or 0, ()))) for window in bare]

    def query_classes(self) -> Mapping[str, QueryClassRecord]:
        """All known query classes by their key."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(query_classes)).mappings()
            return {row["key"]: from_row(QueryClassRecord, row) for row in rows}

    def client_intervals(
        self, *, since: datetime | None = None, class_name: str | None = "*", limit: int = 2000
    ) -> Sequence[ClientIntervalRecord]:
        """The newest intervals of a class (``*``: all together; None: of every class)."""
        query = sa.select(client_intervals)
        if class_name is not None:
            query = query.where(client_intervals.c.class_name == class_name)
        return self._newest(
            ClientIntervalRecord, query, client_intervals.c.started_at, since, limit
        )

    def trials(self, *, limit: int = 200) -> Sequence[TrialRecord]:
        """The newest trials."""
        return self._newest(TrialRecord, sa.select(trials), None, None, limit)

    def trial(self, trial_id: int) -> TrialRecord | None:
        """The trial of that id, None where there is none."""
        with self._reading() as connection:
            query = sa.select(trials).where(trials.c.id == trial_id)
            row = connection.execute(query).mappings().first()
        return None if row is None else from_row(TrialRecord, row)

    def changes(self, *, limit: int = 500) -> Sequence[ChangeRecord]:
        """The newest journalled changes."""
        return self._newest(ChangeRecord, sa.select(changes), None, None, limit)

    def events(self, *, level: str | None = None, limit: int = 200) -> Sequence[EventRecord]:
        """The newest events, of one level or of all."""
        query = sa.select(events)
        if level is not None:
            query = query.where(events.c.level == level)
        return self._newest(EventRecord, query, None, None, limit)

    def learning(self, *, agent: str = "knob", limit: int = 1000) -> Sequence[LearningRecord]:
        """The newest learning steps of an agent."""
        query = sa.select(learning).where(learning.c.agent == agent)
        return self._newest(LearningRecord, query, None, None, limit)

    def knob_spaces(self) -> Mapping[str, KnobSpaceRecord]:
        """All known knob spaces by their fingerprint."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(knob_spaces)).mappings()
            return {row["fingerprint"]: from_row(KnobSpaceRecord, row) for row in rows}

    def transitions(
        self, *, workload: str | None = None, limit: int = 100_000
    ) -> Sequence[TransitionRecord]:
        """The newest transitions, of one workload or of all."""
        query = sa.select(transitions)
        if workload is not None:
            query = query.where(transitions.c.workload == workload)
        return self._newest(TransitionRecord, query, None, None, limit)

    def _newest(
        self,
        kind: type[T],
        query: sa.Select[Any],
        time_column: sa.Column[datetime] | None,
        since: datetime | None,
        limit: int,
    ) -> list[T]:
        id_column = query.selected_columns["id"]
        order = [id_column.desc()]
        if time_column is not None:
            order.insert(0, time_column.desc())
            if since is not None:
                query = query.where(time_column >= since)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(*order).limit(limit)).mappings().all()
        return [from_row(kind, row) for row in reversed(rows)]

    def _present(self, name: str) -> Any:
        with self._reading() as connection:
            return connection.execute(
                sa.select(present.c.document).where(present.c.name == name)
            ).scalar()


def queries_of(
    connection: sa.Connection, window_ids: Sequence[int]
) -> Mapping[int, list[QueryWindowRecord]]:
    """Return the queries of windows by the window's id."""
    found: dict[int, list[QueryWindowRecord]] = defaultdict(list)
    for start in range(0, len(window_ids), _KEYS_A_STATEMENT):
        some = window_ids[start : start + _KEYS_A_STATEMENT]
        query = sa.select(window_queries).where(window_queries.c.window_id.in_(some))
        for row in connection.execute(query).mappings():
            found[row["window_id"]].append(from_row(QueryWindowRecord, row))
    return found
