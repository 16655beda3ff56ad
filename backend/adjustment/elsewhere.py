"""Changes that the journal holds open, but that were made on another server than the present one.

A stand-by that took over has entries of its own: to put back there what stood before on the former
server would be wrong. Such changes are left behind; they are undone when their server is back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.adjustment.intent import row_id
from backend.catalog import KnobCatalog
from backend.catalog.entries import same_entry
from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState
from backend.domain.records import ChangeRecord
from backend.domain.server import KnobReading, ServerIdentity
from backend.protocols import Journal

LEFT_BEHIND = "left_behind"
"""The kind of the event that tells of it."""


class Elsewhere:
    """Tells the present server's changes from others'.

    Args:
        journal: holds them.
        here: the present server.
    """

    def __init__(self, journal: Journal, here: ServerIdentity) -> None:
        self._journal, self._here = journal, here

    def leave_behind(self) -> tuple[ChangeRecord, ...]:
        """Settle what is open on another server; nothing is written to any server."""
        rows = [r for r in self._journal.open_changes() if self._here.is_not(r.timeline)]
        detail = f"{self._here} answers in its place"
        self._journal.settle_changes([row_id(r) for r in rows], ChangeState.LEFT_BEHIND, detail)
        return tuple(rows)

    def take_up(self) -> tuple[ChangeRecord, ...]:
        """Open again what was left behind on the server that is here now."""
        rows = [
            row
            for row in self._journal.changes_left_behind()
            if row.timeline and row.timeline == self._here.timeline
        ]
        self._journal.settle_changes([row_id(r) for r in rows], ChangeState.APPLIED)
        return tuple(rows)


def brought_along(
    left: Sequence[ChangeRecord],
    readings: Mapping[str, KnobReading],
    catalog: KnobCatalog,
    deployed: Mapping[str, KnobValue],
) -> tuple[ChangeRecord, ...]:
    """What was left behind on trial, stands on this server too, and was not deployed since.

    A stand-by that was copied in mid-trial has it, and a former primary that was made a stand-by.

    Args:
        left: the changes that were left behind.
        readings: of this server's knobs.
        catalog: the writable knobs.
        deployed: the active version's values.
    """

    def stands(row: ChangeRecord) -> bool:
        reading = readings.get(row.knob)
        if reading is None or row.knob not in catalog or reading.value == deployed.get(row.knob):
            return False
        knob = catalog.knob(row.knob).knob
        is_ours = same_entry(knob, reading.entry, row.after_entry)
        return is_ours and not same_entry(knob, row.before_entry, row.after_entry)

    return tuple(row for row in left if stands(row))


def what_was_left(rows: Sequence[ChangeRecord]) -> str:
    """Where these changes may still stand, and what undoes them there; "" for none."""
    if not rows:
        return ""
    knobs = ", ".join(sorted({row.knob for row in rows}))
    return (
        f"another server answers: {knobs} stood on trial on {_servers(rows)}, and may still "
        "stand in its postgresql.auto.conf. It is undone when that server is back as it was; where "
        f"it comes back as another's stand-by, run there: {_undoing(rows)}"
    )


def what_stands_here(rows: Sequence[ChangeRecord]) -> str:
    """What to do about changes that came with a server without any proof; "" for none."""
    if not rows:
        return ""
    knobs = ", ".join(sorted({row.knob for row in rows}))
    return (
        f"this server's postgresql.auto.conf holds what stood on trial on {_servers(rows)}: "
        f"{knobs}; nothing has proven it. To undo it here: {_undoing(rows)}"
    )


def _servers(rows: Sequence[ChangeRecord]) -> str:
    found = {ServerIdentity(row.timeline, row.place) for row in rows}
    return " and ".join(sorted(map(str, found)))


def _undoing(rows: Sequence[ChangeRecord]) -> str:
    oldest = {row.knob: row for row in sorted(rows, key=row_id, reverse=True)}
    statements = [_statement(row) for _, row in sorted(oldest.items())]
    return " ".join([*statements, "SELECT pg_reload_conf();"])


def _statement(row: ChangeRecord) -> str:
    if row.before_entry is None:
        return f"ALTER SYSTEM RESET {row.knob};"
    text = row.before_entry.replace("'", "''")
    return f"ALTER SYSTEM SET {row.knob} = '{text}';"
