"""The one path on which a knob is changed, by agent and by human.

Intent before action: every change is in the journal, with what stood before, before it is made,
and it stays open there until it is kept or undone. Whoever starts (or finds the tuner dead) first
undoes what the journal holds open. A value that a human changed meanwhile is the human's.

An *entry* is a line of postgresql.auto.conf, as ALTER SYSTEM writes it; a *value* is what is in
effect. https://www.postgresql.org/docs/current/sql-altersystem.html
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from backend.adjustment.elsewhere import Elsewhere
from backend.adjustment.epoch import EpochGuard
from backend.adjustment.fitness import restart_needed
from backend.adjustment.intent import Intents, new_batch_id, row_id
from backend.adjustment.readback import Goal, Readback
from backend.adjustment.restore import RESTORE_TIMEOUT_S, ReconcileResult, Restorer
from backend.catalog import KnobCatalog, refuse_if_never
from backend.catalog.entries import entry_text, same_entry, writable_entry
from backend.domain.knobs import Knob, KnobValue
from backend.domain.modes import ChangeState
from backend.domain.records import ChangeRecord
from backend.domain.server import KnobReading, ServerIdentity
from backend.errors import (
    AdjustmentError,
    AutopilotError,
    ConflictError,
    KnobBoundsError,
    RefusedChangeError,
    RefusedValueError,
    ServerConnectionError,
    StaleEpochError,
)
from backend.lease import LEASE_TTL_S, RESTART_LEASE_S
from backend.protocols import Clock, Journal, TargetDatabase

__all__ = ["AppliedBatch", "ParameterAdjuster", "ReconcileResult"]


@dataclass(frozen=True)
class AppliedBatch:
    """Changes that were made and read back together.

    ``changes`` is empty where everything stood as wanted already; ``restarted`` tells whether the
    server was restarted for them.
    """

    batch_id: str
    changes: tuple[ChangeRecord, ...]
    restarted: bool = False

    @property
    def after(self) -> Mapping[str, KnobValue | None]:
        """The values now in effect, of the knobs that were changed."""
        return {change.knob: change.after_value for change in self.changes}


class ParameterAdjuster:
    """Applies, verifies, keeps and undoes knob changes.

    Args:
        target: the server.
        journal: where intent is written first.
        catalog: what may be written at all, within which bounds.
        clock: time.
        identity: which server that is; noted with each change. The target ends on no other one.
        sleep: waits between two looks at the server; injectable for tests.
    """

    def __init__(
        self,
        target: TargetDatabase,
        journal: Journal,
        catalog: KnobCatalog,
        clock: Clock,
        *,
        identity: ServerIdentity = ServerIdentity(),  # noqa: B008 - frozen
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._target = target
        self._journal = journal
        self._catalog = catalog
        self._readback = Readback(target, self._knob, clock, sleep)
        self._guard = EpochGuard(journal)
        self._restorer = Restorer(target, journal, self._readback, self._knob, self._guard)
        self._intents = Intents(journal, clock, identity)
        self._elsewhere = Elsewhere(journal, identity)

    # -- changing ---------------------------------------------------------------------------

    def apply(
        self,
        after: Mapping[str, KnobValue | None],
        *,
        actor: str,
        epoch: int,
        trial_id: int | None = None,
        allow_restart: bool = False,
        verify_timeout_s: float = 5.0,
    ) -> AppliedBatch:
        """Change knobs: journal, write, activate, read back; all of them or none.

        Args:
            after: native values (text may carry a unit); None removes our entry.
            actor: who wants it, for the journal (``knob agent``, ``human``, ...).
            epoch: the lease under which we act.
            trial_id: the trial that it belongs to.
            allow_restart: whether the server may be restarted for it.
            verify_timeout_s: how long to wait until the server shows the new values.

        Raises:
            KnobError: a name or a value is refused; nothing was touched.
            StaleEpochError: we may not act; nothing was touched.
            ConflictError: somebody else changed a knob meanwhile; the rest was undone.
            AdjustmentError: it did not take effect, and was undone (or, where the message says
                so, stays open in the journal for ``reconcile``).
            ServerConnectionError: the server is gone; what was begun stays open in the journal.
        """
        goals = []
        for name, value in after.items():
            checked = None if value is None else self._catalog.check(name, value)
            self._catalog.knob(name)
            goals.append(Goal(name, None if checked is None else entry_text(checked), checked))
        return self._carry_out(goals, actor, epoch, trial_id, allow_restart, verify_timeout_s)

    def keep(self, batch_id: str) -> tuple[ChangeRecord, ...]:
        """Make a batch part of the deployed state, which ``reconcile`` leaves alone."""
        return self.mark_kept(self.keepable(batch_id))

    def keepable(self, batch_id: str) -> tuple[ChangeRecord, ...]:
        """Look at journal and server whether a batch may be kept; its rows.

        Apart from :meth:`mark_kept`, since nobody else can write to the store while a transaction
        of ours waits for the server.

        Raises:
            StaleEpochError: the lease under which it was applied is over.
            ConflictError: somebody else changed one of its knobs meanwhile; it stays open.
            AdjustmentError: nothing of that batch is applied, or it rests on an open one.
        """
        opened = self._journal.open_changes()
        rows = tuple(row for row in opened if row.batch_id == batch_id)
        if not rows or any(row.state is not ChangeState.APPLIED for row in rows):
            raise AdjustmentError(f"batch {batch_id} is not applied, so it cannot be kept")
        self._guard.check(max(row.epoch for row in rows))
        knobs = {row.knob for row in rows}
        below = [r for r in opened if r.knob in knobs and row_id(r) < row_id(rows[0])]
        if below:
            raise AdjustmentError(
                f"batch {batch_id} rests on batch {below[0].batch_id}, which is still open",
                remedy=f"keep or roll back {below[0].batch_id} first",
            )
        readings = self._readings([row.knob for row in rows])
        foreign = [
            row.knob
            for row in rows
            if not same_entry(self._knob(row.knob), readings[row.knob].entry, row.after_entry)
        ]
        if foreign:
            raise ConflictError(
                f"batch {batch_id} cannot be kept: {', '.join(foreign)} was changed by somebody "
                "else meanwhile",
                remedy="the other's value stays; set yours again if you want it",
            )
        return rows

    def mark_kept(self, rows: Sequence[ChangeRecord]) -> tuple[ChangeRecord, ...]:
        """Settle what :meth:`keepable` returned just now; raises StaleEpochError as it does."""
        self._guard.check(max(row.epoch for row in rows))
        self._journal.settle_changes([row_id(row) for row in rows], ChangeState.KEPT)
        return tuple(replace(row, state=ChangeState.KEPT) for row in rows)

    # -- undoing ----------------------------------------------------------------------------

    def roll_back(
        self,
        batch: str | Sequence[ChangeRecord],
        *,
        epoch: int,
        reason: str,
        actor: str = "rollback",
        allow_restart: bool = False,
    ) -> ReconcileResult:
        """Put back what stood before a batch, the absence of an entry included.

        Open changes are undone as they are. Kept ones (given as records) are undone by a new,
        journalled batch that is kept itself; ``allow_restart`` is asked for those alone, since an
        open change that needed a restart was allowed one. Undoing a batch twice does nothing.

        Raises:
            StaleEpochError: we may not act any more.
            AdjustmentError: a newer open batch stands on it, or it could not be undone now (then
                it stays open in the journal).
        """
        opened = self._journal.open_changes()
        if isinstance(batch, str):
            rows = [row for row in opened if row.batch_id == batch]
            kept: list[ChangeRecord] = []
        else:
            ids = {row.id for row in batch}
            rows = [row for row in opened if row.id in ids]
            kept = [row for row in batch if row.state is ChangeState.KEPT]
        chosen = {row.id for row in rows}
        oldest = {row.knob: row_id(row) for row in reversed(rows)}
        for other in opened:
            above = other.id not in chosen and other.knob in oldest
            if above and row_id(other) > oldest[other.knob]:
                raise AdjustmentError(
                    f"batch {other.batch_id} changed {other.knob} after this one",
                    remedy=f"roll back {other.batch_id} first",
                )
        result = self._restorer.restore(rows, epoch, ChangeState.ROLLED_BACK, reason)
        if not result.clean:
            raise AdjustmentError(
                f"not undone yet: {'; '.join(result.problems)}",
                remedy="the journal holds it open; it is tried again",
            )
        if rows and not result.conflicts:
            self._intents.remember_undone(rows, result.rolled_back)
        if kept:
            result += self._undo_kept(kept, epoch, reason, actor, allow_restart)
        return result

    def reconcile(self, epoch: int) -> ReconcileResult:
        """Undo everything that the journal holds open: on start, and after a lost connection.

        Per knob, what stood before its oldest open change is put back. What was changed on another
        server is left behind there, and undone when that one answers again. Idempotent.

        Raises:
            StaleEpochError: somebody else has the lease.
            ServerConnectionError: the server cannot be reached; everything stays open.
        """
        left = self.leave_behind(epoch)
        taken_up = self._elsewhere.take_up()
        opened = list(self._journal.open_changes())
        result = self._restorer.restore(opened, epoch, ChangeState.ROLLED_BACK, "reconciled")
        return result + ReconcileResult(left_behind=left, taken_up=taken_up)

    def leave_behind(self, epoch: int) -> tuple[ChangeRecord, ...]:
        """Settle what is open on another server than this one; those changes. Writes to neither.

        Raises:
            StaleEpochError: somebody else has the lease.
        """
        self._guard.check(epoch)
        self._intents.forget_undone()
        return self._elsewhere.leave_behind()

    # -- inside -----------------------------------------------------------------------------

    def _carry_out(
        self,
        goals: Sequence[Goal],
        actor: str,
        epoch: int,
        trial_id: int | None,
        allow_restart: bool,
        timeout_s: float,
    ) -> AppliedBatch:
        for goal in goals:  # whatever a catalogue or a record in the store holds
            refuse_if_never(goal.name)
        self._guard.hold(epoch, LEASE_TTL_S)
        readings = self._readings([goal.name for goal in goals])
        goals = [g for g in goals if not self._readback.stands(g, readings[g.name])]
        restart = restart_needed(
            goals, readings, self._catalog, self._target, allow_restart=allow_restart
        )
        rows = self._intents.note(goals, readings, actor, epoch, trial_id)
        if not rows:
            return AppliedBatch(new_batch_id(), ())
        try:
            self._guard.check(epoch)
            self._target.write_entries(
                {g.name: writable_entry(self._knob(g.name), g.entry) for g in goals}
            )
            if restart:
                self._guard.hold(epoch, RESTART_LEASE_S)
                self._target.restart()
                self._guard.hold(epoch, LEASE_TTL_S)
            else:
                self._target.reload()
            unmet = self._readback.wait_for(goals, timeout_s)
            if unmet:
                raise AdjustmentError("; ".join(unmet.values()))
            # Inside: a change that the journal cannot call applied is not left on the server.
            self._journal.settle_changes([row_id(row) for row in rows], ChangeState.APPLIED)
        except StaleEpochError:
            raise
        except Exception as error:
            raise self._undo_failed(rows, epoch, error) from error
        applied = tuple(replace(row, state=ChangeState.APPLIED) for row in rows)
        return AppliedBatch(rows[0].batch_id, applied, restarted=restart)

    def _undo_failed(
        self, rows: Sequence[ChangeRecord], epoch: int, error: Exception
    ) -> AutopilotError:
        """Undo a batch that failed half-way; return the error that tells of it.

        Raises:
            StaleEpochError: it is no longer ours to undo.
        """
        told = error.message if isinstance(error, AutopilotError) else repr(error)
        remedy = error.remedy if isinstance(error, AutopilotError) else None
        failed = f"{', '.join(row.knob for row in rows)} was not applied ({told})"
        try:
            self._guard.hold(epoch, LEASE_TTL_S)
            result = self._restorer.restore(
                rows, epoch, ChangeState.FAILED, told, after_failure=True
            )
        except StaleEpochError:
            raise
        except AutopilotError as second:
            if isinstance(error, ServerConnectionError):
                return error
            result = ReconcileResult(unsettled=tuple(rows), problems=(second.message,))
        if not result.clean:
            return AdjustmentError(
                f"{failed} and is not undone yet ({'; '.join(result.problems)}); the journal holds "
                "it open, and it is undone at the next chance",
                remedy=remedy,
            )
        if result.conflicts:
            names = ", ".join(row.knob for row in result.conflicts)
            return ConflictError(f"{failed}: {names} was changed by somebody else and stays so")
        refused = isinstance(error, (RefusedValueError, KnobBoundsError))
        kind = RefusedChangeError if refused else AdjustmentError
        return kind(f"{failed}; what stood before stands again", remedy=remedy)

    def _undo_kept(
        self,
        kept: Sequence[ChangeRecord],
        epoch: int,
        reason: str,
        actor: str,
        allow_restart: bool,
    ) -> ReconcileResult:
        by_knob: dict[str, list[ChangeRecord]] = {}
        for row in sorted(kept, key=row_id):
            by_knob.setdefault(row.knob, []).append(row)
        readings = self._readings(list(by_knob))
        goals, result = [], ReconcileResult()
        for name, rows in by_knob.items():
            knob, present, first = self._knob(name), readings[name].entry, rows[0]
            if any(same_entry(knob, present, row.after_entry) for row in rows):
                goals.append(Goal(name, first.before_entry, first.before_value))
            elif not same_entry(knob, present, first.before_entry):
                result += ReconcileResult(conflicts=tuple(rows))
        done = self._carry_out(goals, actor, epoch, None, allow_restart, RESTORE_TIMEOUT_S)
        self._journal.settle_changes([row_id(r) for r in done.changes], ChangeState.KEPT, reason)
        undone = [row for row in kept if row not in result.conflicts]
        state = ChangeState.ROLLED_BACK
        self._journal.settle_changes([row_id(row) for row in undone], state, reason)
        return result + ReconcileResult(
            rolled_back=tuple(replace(row, state=state) for row in undone),
            restarted=done.restarted,
        )

    def _knob(self, name: str) -> Knob | None:
        return self._catalog.knob(name).knob if name in self._catalog else None

    def _readings(self, names: Sequence[str]) -> Mapping[str, KnobReading]:
        readings = self._target.read_knobs(names)
        missing = [name for name in names if name not in readings]
        if missing:
            raise AdjustmentError(f"this server has no knob named {', '.join(missing)}")
        return readings
