"""The journal of changes and the lease that guards them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from backend.domain.modes import ChangeState
from backend.domain.records import ChangeRecord, LeaseRecord
from backend.telemetry.codec import from_row, to_row
from backend.telemetry.connections import Connections
from backend.telemetry.redaction import redact
from backend.telemetry.schema import changes as change_table
from backend.telemetry.schema import leases

OPEN_STATES = (ChangeState.PENDING, ChangeState.APPLIED)


class JournalTables(Connections):
    """Implements ``backend.protocols.Journal``."""

    def add_changes(self, changes: Sequence[ChangeRecord]) -> Sequence[ChangeRecord]:
        """Append changes before acting; returns them with ids. Durable when it returns."""
        added = []
        with self._writing() as connection:
            for change in changes:
                statement = sa.insert(change_table).returning(change_table.c.id)
                change_id = connection.execute(statement, to_row(change)).scalar_one()
                added.append(replace(change, id=int(change_id)))
        return added

    def settle_changes(self, ids: Sequence[int], state: ChangeState, detail: str = "") -> None:
        """Record what became of changes, and when; without a ``detail`` theirs stays.

        APPLIED is a step, not an end: it sets no time.
        """
        if not ids:
            return
        ended = None if state in OPEN_STATES else _now()
        values: dict[str, object] = {"state": state.value, "settled_at": ended}
        if detail:
            values["detail"] = redact(detail)
        with self._writing() as connection:
            connection.execute(
                sa.update(change_table).where(change_table.c.id.in_(ids)).values(values)
            )

    def open_changes(self) -> Sequence[ChangeRecord]:
        """Changes that are PENDING or APPLIED, oldest first."""
        wanted = change_table.c.state.in_([state.value for state in OPEN_STATES])
        query = sa.select(change_table).where(wanted).order_by(change_table.c.id)
        with self._reading() as connection:
            return [from_row(ChangeRecord, row) for row in connection.execute(query).mappings()]

    def changes_left_behind(self) -> Sequence[ChangeRecord]:
        """Changes that stand on a server from which another took over, oldest first."""
        wanted = change_table.c.state == ChangeState.LEFT_BEHIND.value
        query = sa.select(change_table).where(wanted).order_by(change_table.c.id)
        with self._reading() as connection:
            return [from_row(ChangeRecord, row) for row in connection.execute(query).mappings()]

    # -- lease ------------------------------------------------------------------------------

    def acquire_lease(self, holder: str, ttl_s: float) -> int:
        """Begin an epoch of ``ttl_s`` seconds: returns its number, greater than any before."""
        newest = sa.select(sa.func.max(leases.c.epoch))
        with self._writing() as connection:
            self._lock_table(connection, leases)
            epoch = (connection.execute(newest).scalar() or 0) + 1
            connection.execute(
                sa.insert(leases),
                {
                    "epoch": epoch,
                    "holder": redact(holder),
                    "expires_at": _now() + timedelta(seconds=ttl_s),
                    "released": False,
                },
            )
        return epoch

    def renew_lease(self, epoch: int, ttl_s: float) -> bool:
        """Heartbeat: ``ttl_s`` more seconds from now; False when the epoch is stale or over."""
        values = {"expires_at": _now() + timedelta(seconds=ttl_s)}
        with self._writing() as connection:
            self._lock_table(connection, leases)
            result = connection.execute(_if_newest(epoch).values(values))
            return result.rowcount == 1

    def release_lease(self, epoch: int) -> None:
        """End the epoch in good order; nothing happens when it is stale."""
        with self._writing() as connection:
            self._lock_table(connection, leases)
            connection.execute(_if_newest(epoch).values(released=True))

    def lease(self) -> LeaseRecord | None:
        """The newest lease, None before the first."""
        query = sa.select(leases).order_by(leases.c.epoch.desc()).limit(1)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else from_row(LeaseRecord, row)

    def current_epoch(self) -> int:
        """The newest epoch, 0 before the first."""
        lease = self.lease()
        return 0 if lease is None else lease.epoch

    def lease_expired(self, now: datetime) -> bool:
        """Whether the newest lease has run out (and was not released)."""
        lease = self.lease()
        return lease is not None and lease.expired(now)

    def _lock_table(self, connection: sa.Connection, table: sa.Table) -> None:
        """Let one process at a time read and then write the table (SQLite always does)."""
        if not self.is_sqlite:
            name = connection.dialect.identifier_preparer.format_table(table)
            connection.execute(sa.text(f"LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"))


def _if_newest(epoch: int) -> sa.Update:
    newer = leases.alias("newer")
    is_newest = ~sa.exists().where(newer.c.epoch > epoch)
    return sa.update(leases).where(leases.c.epoch == epoch, leases.c.released.is_(False), is_newest)


def _now() -> datetime:
    return datetime.now(timezone.utc)
