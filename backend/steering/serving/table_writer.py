"""Keeps the steering table's file in step with what is to be served, and tells what changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from backend.domain.steering import ClassKey
from backend.protocols import Clock
from backend.steering.client import SteeringEntry, TableError, parse_table, write_table
from backend.steering.client.table import MAX_ENTRIES, MAX_FILE_BYTES
from backend.steering.places import FOLDER_MODE

HOLDS = timedelta(seconds=60)
"""How long a table holds: nothing is steered for longer after the autopilot is gone."""
REWRITE_AFTER_S = 20.0

Entries = Mapping[ClassKey, SteeringEntry]


class TableWriter:
    """Writes the table when it changed, and before it expires.

    What an earlier process wrote counts as written, also when it has expired: with the freeze
    switch on, that and nothing else may be served again.

    Args:
        path: the file; its folder is made when it is missing.
        clock: time.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._written_at_s = float("-inf")
        self._wanted: Entries = {}
        self.written, self._expires_at = _read(path, clock.now())
        """The newest table's entries."""

    @property
    def in_force(self) -> Entries:
        """What plug-ins steer by now; nothing once the table has expired."""
        return self.written if self._clock.now() < self._expires_at else {}

    def write(self, entries: Entries) -> None:
        """Write the table if it changed or is getting old; `written` says what came of it.

        Args:
            entries: the most important first: where they are too many for a table, the last ones
                are left out.

        Raises:
            OSError: the file or its folder cannot be written.
        """
        age_s = self._clock.monotonic_s() - self._written_at_s
        if entries == self._wanted and age_s < REWRITE_AFTER_S:
            return
        fitting = dict(list(entries.items())[:MAX_ENTRIES])
        self._path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        expires_at = self._clock.now() + HOLDS
        while True:
            try:
                write_table(self._path, fitting.values(), expires_at_s=expires_at.timestamp())
                break
            except TableError:
                # Each entry is allowed and there is one a class, so they are too large together.
                if not fitting:
                    raise
                fitting = dict(list(fitting.items())[: len(fitting) // 2])
        self._wanted, self.written, self._expires_at = dict(entries), fitting, expires_at
        self._written_at_s = self._clock.monotonic_s()

    def expire(self) -> None:
        """Have nothing steered any more; the file tells the next process what was.

        Raises:
            OSError: the file or its folder cannot be written.
        """
        self._path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        write_table(self._path, self.written.values(), expires_at_s=0.0)
        self._expires_at, self._written_at_s = self._clock.now(), float("-inf")


def _read(path: Path, now: datetime) -> tuple[Entries, datetime]:
    """What lies there, and until when it holds; nothing where it is no table."""
    try:
        with path.open("rb") as file:
            table = parse_table(file.read(MAX_FILE_BYTES + 1))
        expires_at = datetime.fromtimestamp(table.expires_at_s or 0, now.tzinfo)
    except (OSError, TableError, ValueError, OverflowError):
        return {}, now
    entries = {ClassKey(entry.fingerprint, entry.search_path): entry for entry in table.entries}
    return entries, expires_at
