"""Operators' requests on their way to the tuner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

import sqlalchemy as sa

from backend.domain.modes import CommandState
from backend.domain.records import CommandRecord
from backend.errors import StoreError
from backend.telemetry.codec import from_row, to_row
from backend.telemetry.connections import Connections
from backend.telemetry.redaction import redact
from backend.telemetry.schema import commands


class CommandTables(Connections):
    """Implements ``backend.protocols.CommandQueue`` and its reader."""

    def submit(self, command: CommandRecord) -> int:
        """Queue a command; returns its id."""
        row = to_row(replace(command, state=CommandState.QUEUED, finished_at=None))
        with self._writing() as connection:
            result = connection.execute(sa.insert(commands).returning(commands.c.id), row)
            return int(result.scalar_one())

    def command(self, command_id: int) -> CommandRecord | None:
        """The command of that id, None where there is none."""
        query = sa.select(commands).where(commands.c.id == command_id)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else from_row(CommandRecord, row)

    def take(self) -> CommandRecord | None:
        """Mark the oldest queued command RUNNING and return it; no two callers get the same."""
        queued = commands.c.state == CommandState.QUEUED.value
        oldest = sa.select(commands).where(queued).order_by(commands.c.id).limit(1)
        # An idle queue is asked often: look first without becoming a writer.
        with self._reading() as connection:
            if connection.execute(oldest.with_only_columns(commands.c.id)).first() is None:
                return None
        running = CommandState.RUNNING
        with self._writing() as connection:
            locked = oldest.with_for_update(skip_locked=True)
            row = connection.execute(locked).mappings().first()
            if row is None:
                return None
            connection.execute(
                sa.update(commands).where(commands.c.id == row["id"]).values(state=running.value)
            )
        return replace(from_row(CommandRecord, row), state=running)

    def finish(self, command_id: int, state: CommandState, result: str) -> None:
        """Record what came of a command.

        Raises:
            StoreError: there is no such command, or it ended before.
        """
        open_states = [CommandState.QUEUED.value, CommandState.RUNNING.value]
        is_open = (commands.c.id == command_id) & commands.c.state.in_(open_states)
        now = datetime.now(timezone.utc)
        with self._writing() as connection:
            values = {"state": state.value, "result": redact(result), "finished_at": now}
            if connection.execute(sa.update(commands).where(is_open).values(values)).rowcount != 1:
                raise StoreError(
                    f"command {command_id} cannot become {state.value!r}: "
                    "it does not exist or ended before"
                )

    def commands(self, *, limit: int = 100) -> Sequence[CommandRecord]:
        """The newest commands, oldest first."""
        query = sa.select(commands).order_by(commands.c.id.desc()).limit(limit)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [from_row(CommandRecord, row) for row in reversed(rows)]
