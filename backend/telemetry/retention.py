"""Keeps the store small: what is older than a day is merged, what is past retention goes.

What was deployed or decided stays for good, with its evidence: policy versions, the changes that
were kept, commands, the trials behind them with all their windows, and what Level 1 and Level 2
deployed. So does what stands for each query class. What was only tried goes.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

import sqlalchemy as sa

from backend.domain.modes import ChangeState, TrialKind, TrialState
from backend.domain.records import ClientIntervalRecord, WindowRecord
from backend.domain.service_latency import merged
from backend.domain.steering import ServiceTimingRecord
from backend.errors import StoreError
from backend.telemetry.codec import dump_json, from_row, to_row
from backend.telemetry.connections import Connections
from backend.telemetry.downsampling import (
    bucket_start,
    merge_client_intervals,
    merge_windows,
)
from backend.telemetry.reader import queries_of
from backend.telemetry.schema import (
    changes,
    client_intervals,
    events,
    genomes,
    learning,
    leases,
    plan_runs,
    policy_updates,
    policy_versions,
    promotions,
    query_classes,
    service_timings,
    transitions,
    trials,
    window_queries,
    windows,
)
from backend.telemetry.writer import insert_queries

_NO_MORE = datetime(9999, 1, 1, tzinfo=timezone.utc)

T = TypeVar("T", WindowRecord, ClientIntervalRecord, ServiceTimingRecord)

_Save = Callable[[sa.Connection, int, Sequence[int], list[T]], None]
"""Makes one row of several: takes the id to keep, those to delete, and the records of them all."""

FULL_DETAIL = timedelta(days=1)
"""Younger records are left as they are."""

CHANGES_KEPT = 50_000
"""The newest changes stay, however old. Of further ones only those that were kept stay, or that a
human has come across: every trial makes some, and takes them off again."""

TRANSITIONS_KEPT = 20_000
"""The newest transitions stay, however old: what was learnt from can be learnt from again."""

PLAN_RUNS_KEPT = 50_000
"""The newest plan runs stay, however old: each cost the server the time of a statement. Further
ones go at once, since an explorer at work would make millions within retention."""

GENOMES_KEPT = 20_000
"""The newest genomes stay, however old: the next evolution begins with them."""

_TAKEN_OFF = (ChangeState.ROLLED_BACK, ChangeState.FAILED)

_ROWS_A_TRANSACTION = 250
"""Other writers wait while one runs."""

_PAUSE_S = 0.12
"""Between two transactions: who waits for SQLite's lock looks every 100 ms, so that a loop without
a pause could keep others out until their time is over."""


class RetentionTables(Connections):
    """Implements the store's ``prune``."""

    def prune(self, now: datetime, retention_days: float, aggregation_interval_s: float) -> int:
        """Downsample what is older than a day, delete what is older than retention.

        Windows of a trial stay as they are while it runs, and for good where it is evidence.
        Work is split into short transactions; stopped halfway, the next call goes on.

        Args:
            now: aware; retention counts back from it.
            retention_days: above 0.
            aggregation_interval_s: length of a bucket of old records, above 0.

        Returns:
            How many rows went (of windows, intervals, trials, changes, events, learning,
            transitions, classes, plan runs, service timings, policy updates, genomes).

        Raises:
            StoreError: a bound is not above 0, or the database failed.
        """
        if not (retention_days > 0 and aggregation_interval_s > 0):
            raise StoreError(
                f"retention of {retention_days} days in intervals of {aggregation_interval_s} s: "
                "both must be above 0"
            )
        horizon = now - timedelta(days=retention_days)
        taken_off = changes.c.state.in_([state.value for state in _TAKEN_OFF])
        gone = self._delete_but_the_newest(changes, CHANGES_KEPT, taken_off)
        gone += self._delete_trials(horizon)
        is_old = (windows.c.started_at < horizon) & windows.c.trial_id.is_(None)
        gone += self._delete_in_steps(windows, is_old)
        gone += self._delete_in_steps(client_intervals, client_intervals.c.started_at < horizon)
        gone += self._delete_in_steps(learning, learning.c.at < horizon)
        gone += self._delete_in_steps(events, events.c.at < horizon)
        gone += self._delete_in_steps(service_timings, service_timings.c.ended_at < horizon)
        gone += self._delete_but_the_newest(
            transitions, TRANSITIONS_KEPT, transitions.c.at < horizon
        )
        of_no_use = policy_updates.c.deployed.is_(False) & (policy_updates.c.at < horizon)
        gone += self._delete_in_steps(policy_updates, of_no_use)
        of_no_use = genomes.c.deployed.is_(False) & (genomes.c.at < horizon)
        gone += self._delete_but_the_newest(genomes, GENOMES_KEPT, of_no_use)
        gone += self._delete_but_the_newest(plan_runs, PLAN_RUNS_KEPT, sa.true())
        gone += self._delete_query_classes(horizon)
        self._delete_leases(horizon)
        bucket_s = aggregation_interval_s
        cutoff = bucket_start(now - FULL_DETAIL, bucket_s)
        gone += self._downsample_windows(cutoff, bucket_s)
        gone += self._downsample_client_intervals(cutoff, bucket_s)
        gone += self._downsample_service_timings(cutoff, bucket_s)
        return gone

    # -- deleting ---------------------------------------------------------------------------

    def _delete_in_steps(self, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
        gone = 0
        some = sa.select(table.c.id).where(condition).limit(_ROWS_A_TRANSACTION)
        while True:
            with self._writing() as connection:
                deleted = connection.execute(
                    sa.delete(table).where(table.c.id.in_(some.scalar_subquery()))
                ).rowcount
            gone += deleted
            if deleted < _ROWS_A_TRANSACTION:
                return gone
            time.sleep(_PAUSE_S)

    def _delete_trials(self, horizon: datetime) -> int:
        """Delete old windows of what was only tried, and the trials of which nothing else tells."""
        of_changes = sa.select(changes.c.trial_id).where(changes.c.trial_id.is_not(None))
        gone = self._delete_in_steps(
            trials,
            (trials.c.finished_at < horizon) & _only_tried() & trials.c.id.not_in(of_changes),
        )
        of_no_evidence = windows.c.trial_id.not_in(_evidence())
        is_old = windows.c.started_at < horizon
        return gone + self._delete_in_steps(windows, is_old & of_no_evidence)

    def _delete_but_the_newest(
        self, table: sa.Table, kept: int, condition: sa.ColumnElement[bool]
    ) -> int:
        """Delete what the condition holds for, but for the newest ``kept`` rows of the table."""
        ids = sa.select(table.c.id).order_by(table.c.id.desc())
        with self._reading() as connection:
            newest_to_go = connection.execute(ids.offset(kept).limit(1)).scalar()
        if newest_to_go is None:
            return 0
        return self._delete_in_steps(table, condition & (table.c.id <= newest_to_go))

    def _delete_query_classes(self, horizon: datetime) -> int:
        is_old = query_classes.c.first_seen_at < horizon
        with self._reading() as connection:
            old = set(connection.execute(sa.select(query_classes.c.key).where(is_old)).scalars())
            if old:
                used = sa.select(window_queries.c.key).distinct()
                old.difference_update(connection.execute(used).scalars())
        if old:
            with self._writing() as connection:
                connection.execute(
                    sa.delete(query_classes).where(query_classes.c.key == sa.bindparam("old_key")),
                    [{"old_key": key} for key in sorted(old)],
                )
        return len(old)

    def _delete_leases(self, horizon: datetime) -> None:
        """Delete old leases but the newest: epochs never repeat."""
        newest = sa.select(sa.func.max(leases.c.epoch)).scalar_subquery()
        is_old = (leases.c.expires_at < horizon) & (leases.c.epoch < newest)
        with self._writing() as connection:
            connection.execute(sa.delete(leases).where(is_old))

    # -- downsampling -----------------------------------------------------------------------

    def _downsample_windows(self, cutoff: datetime, bucket_s: float) -> int:
        def key(window: WindowRecord) -> Hashable:
            config = dump_json(dict(sorted(window.config.items())))
            return window.phase, config, window.trial_id, window.arm

        def save(
            connection: sa.Connection, keep: int, gone: Sequence[int], group: list[WindowRecord]
        ) -> None:
            queries = queries_of(connection, [keep, *gone])
            full = [replace(w, queries=tuple(queries.get(w.id or 0, ()))) for w in group]
            merged = merge_windows(full)
            row = to_row(merged, omit=("id", "queries")) | {"downsampled": True}
            connection.execute(sa.update(windows).where(windows.c.id == keep).values(row))
            if gone:
                parts = [keep, *gone]
                of_parts = window_queries.c.window_id.in_(parts)
                connection.execute(sa.delete(window_queries).where(of_parts))
                connection.execute(sa.delete(windows).where(windows.c.id.in_(gone)))
                insert_queries(connection, keep, merged.queries)

        of_tried = windows.c.trial_id.in_(sa.select(trials.c.id).where(_only_tried()))
        due = windows.c.trial_id.is_(None) | of_tried
        started = windows.c.started_at
        return self._downsample(WindowRecord, started, due, cutoff, bucket_s, key, save)

    def _downsample_client_intervals(self, cutoff: datetime, bucket_s: float) -> int:
        def key(interval: ClientIntervalRecord) -> Hashable:
            return interval.class_name

        started = client_intervals.c.started_at
        save = _saving(client_intervals, merge_client_intervals)
        return self._downsample(
            ClientIntervalRecord, started, sa.true(), cutoff, bucket_s, key, save
        )

    def _downsample_service_timings(self, cutoff: datetime, bucket_s: float) -> int:
        def key(timing: ServiceTimingRecord) -> Hashable:
            return timing.key, timing.hint_set, timing.arm

        ended = service_timings.c.ended_at
        save = _saving(service_timings, merged)
        return self._downsample(ServiceTimingRecord, ended, sa.true(), cutoff, bucket_s, key, save)

    def _downsample(
        self,
        kind: type[T],
        moment: sa.Column[datetime],
        due: sa.ColumnElement[bool],
        cutoff: datetime,
        bucket_s: float,
        key: Callable[[T], Hashable],
        save: _Save[T],
    ) -> int:
        """Merge all whole buckets before ``cutoff``, a few hundred rows a transaction.

        ``moment`` is the column of the table that says which bucket a row belongs to.
        """
        table = moment.table
        raw = due & table.c.downsampled.is_(False) & (moment < cutoff)
        count = 0
        while True:
            with self._writing() as connection:
                first = connection.execute(sa.select(sa.func.min(moment)).where(raw)).scalar()
                if first is None:
                    return count
                end = self._end_of_step(connection, moment, raw, first, bucket_s)
                query = sa.select(table).where(raw, moment < end).order_by(moment, table.c.id)
                groups: dict[Hashable, tuple[list[int], list[T]]] = defaultdict(lambda: ([], []))
                for row in connection.execute(query).mappings().all():
                    record: Any = from_row(kind, row)
                    bucket = bucket_start(getattr(record, moment.name), bucket_s)
                    ids, records = groups[bucket, key(record)]
                    ids.append(row["id"])
                    records.append(record)
                for ids, records in groups.values():
                    save(connection, ids[0], ids[1:], records)
                    count += len(ids) - 1
            if end is _NO_MORE:
                return count
            time.sleep(_PAUSE_S)

    def _end_of_step(
        self,
        connection: sa.Connection,
        moment: sa.Column[datetime],
        raw: sa.ColumnElement[bool],
        first: datetime,
        bucket_s: float,
    ) -> datetime:
        """Return the end of the last whole bucket that this transaction can take."""
        some = sa.select(moment).where(raw).order_by(moment).limit(1).offset(_ROWS_A_TRANSACTION)
        after = connection.execute(some).scalar()
        one_bucket = bucket_start(first, bucket_s) + timedelta(seconds=bucket_s)
        if after is None:
            return _NO_MORE
        return max(one_bucket, bucket_start(after, bucket_s))


def _evidence() -> sa.ScalarSelect[int]:
    """Trials behind what was deployed, what people decided about, and what a report claims."""
    return sa.union(
        sa.select(policy_versions.c.trial_id).where(policy_versions.c.trial_id.is_not(None)),
        sa.select(promotions.c.trial_id),
        sa.select(trials.c.id).where(trials.c.kind == TrialKind.FINAL.value),
    ).scalar_subquery()


def _only_tried() -> sa.ColumnElement[bool]:
    """Finished trials that are no evidence."""
    return (trials.c.state == TrialState.FINISHED.value) & trials.c.id.not_in(_evidence())


def _saving(table: sa.Table, merge: Callable[[Sequence[T]], T]) -> _Save[T]:
    """Return what makes one row of several where a row is all that there is of a record."""

    def save(connection: sa.Connection, keep: int, gone: Sequence[int], group: list[T]) -> None:
        row = to_row(merge(group)) | {"downsampled": True}
        connection.execute(sa.update(table).where(table.c.id == keep).values(row))
        if gone:
            connection.execute(sa.delete(table).where(table.c.id.in_(gone)))

    return save
