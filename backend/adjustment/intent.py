"""Intent before action: what is about to be changed, in the journal before it is."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from backend.adjustment.readback import Goal
from backend.domain.modes import ChangeState
from backend.domain.records import ChangeRecord
from backend.domain.server import KnobReading, ServerIdentity
from backend.protocols import Clock, Journal


class Intents:
    """Notes changes in the journal, with what stood before, and knows the batch undone last.

    The arms of a trial change places many times: the same step from the same place opens its
    rows again instead of adding new ones each time.
    """

    def __init__(self, journal: Journal, clock: Clock, here: ServerIdentity) -> None:
        self._journal = journal
        self._clock = clock
        self._here = here
        self._last_undone: dict[object, tuple[ChangeRecord, ...]] = {}

    def note(
        self,
        goals: Sequence[Goal],
        readings: Mapping[str, KnobReading],
        actor: str,
        epoch: int,
        trial_id: int | None,
    ) -> tuple[ChangeRecord, ...]:
        """Write one batch into the journal as pending; its rows, none for no goals."""
        batch_id, now = new_batch_id(), self._clock.now()
        rows = tuple(
            ChangeRecord(
                batch_id=batch_id,
                epoch=epoch,
                actor=actor,
                knob=goal.name,
                before_entry=readings[goal.name].entry,
                after_entry=goal.entry,
                before_value=readings[goal.name].value,
                after_value=goal.value,
                state=ChangeState.PENDING,
                created_at=now,
                trial_id=trial_id,
                timeline=self._here.timeline,
                place=self._here.place,
            )
            for goal in goals
        )
        if not rows:
            return rows
        again = self._last_undone.get(_signature(rows)) if trial_id is not None else None
        if again is not None:
            self._journal.settle_changes([row_id(r) for r in again], ChangeState.PENDING)
            return tuple(replace(row, state=ChangeState.PENDING) for row in again)
        return tuple(self._journal.add_changes(rows))

    def remember_undone(
        self, rows: Sequence[ChangeRecord], rolled_back: tuple[ChangeRecord, ...]
    ) -> None:
        """Open ``rolled_back`` again where the step of ``rows`` is the next one."""
        self._last_undone = {_signature(rows): rolled_back}

    def forget_undone(self) -> None:
        """Let the next batch have rows of its own."""
        self._last_undone = {}


def row_id(row: ChangeRecord) -> int:
    """Return the id that the journal gave the row."""
    if row.id is None:
        raise ValueError(f"the change of {row.knob} was never journalled")
    return row.id


def new_batch_id() -> str:
    """A name for a batch that no other has."""
    return uuid.uuid4().hex[:16]


def _signature(rows: Sequence[ChangeRecord]) -> object:
    """What makes two batches the same step from the same place within one trial."""
    first = rows[0]
    steps = sorted(
        (r.knob, r.before_entry or "", r.after_entry or "", repr(r.before_value)) for r in rows
    )
    return first.epoch, first.actor, first.trial_id, tuple(steps)
