"""Where the steering table comes from."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Protocol, runtime_checkable

from .table import EMPTY, MAX_FILE_BYTES, SteeringTable, TableError, parse_table

logger = logging.getLogger(__package__)


@runtime_checkable
class TableSource(Protocol):
    """Gives the steering table of now; asked in the background, about once a second."""

    def refresh(self) -> SteeringTable:
        """The table; the same object as before, where nothing changed."""


class TableFile:
    """The steering table in a file (see `table.write_table`), read again when it was replaced.

    A file that is missing, broken or of another version steers nothing, and is told once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._table = EMPTY
        self._told = ""

    def refresh(self) -> SteeringTable:
        """The table of the file as it is now."""
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._table = self._read(status.st_mode)
                self._seen = seen
                self._told = ""
        except (OSError, TableError) as error:
            self._table = EMPTY
            self._seen = None if isinstance(error, OSError) else seen
            if str(error) != self._told:
                logger.warning("nothing is steered: %s: %s", self._path, error)
                self._told = str(error)
        return self._table

    def _read(self, mode: int) -> SteeringTable:
        if not stat.S_ISREG(mode):
            raise TableError("it is not a file")
        with self._path.open("rb") as file:
            return parse_table(file.read(MAX_FILE_BYTES + 1))
