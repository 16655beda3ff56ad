"""Where steering's files lie: a folder that applications and the autopilot may share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER_MODE = 0o750
"""Of the folder, where we make it: the group is that of the applications."""


@dataclass(frozen=True)
class SteeringPlaces:
    """The files of a folder.

    Args:
        folder: made by whoever needs it first.
    """

    folder: Path

    @property
    def table(self) -> Path:
        """The steering table, written by the autopilot, read by plug-ins."""
        return self.folder / "table.json"

    @property
    def timings(self) -> Path:
        """The spool of timings, written by plug-ins, taken by the autopilot."""
        return self.folder / "timings.jsonl"

    @property
    def spooled_samples(self) -> Path:
        """The spool of statements with their literals, likewise; holds data of the application."""
        return self.folder / "samples.jsonl"

    @property
    def kept_samples(self) -> Path:
        """The statements that the autopilot keeps, readable by nobody else."""
        return self.folder / "kept-samples.json"
