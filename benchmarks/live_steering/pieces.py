"""What was measured, piece by piece, in a file of JSON lines: none is measured twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results_file import JsonLine, ResultsFile

STAGES = ("search", "single", "greedy", "ours", "compare", "unseen")

Found = Mapping[str, Any]
"""What a piece showed, as JSON holds it."""


@dataclass(frozen=True)
class Cell:
    """What a piece is of: what makes it up, and nothing that does not change its outcome.

    Args:
        stage: one of :data:`STAGES`.
        scale: of the demo store.
        seed: of statements and orders.
        subject: the class, or whatever the stage has one piece for each of.
        rules: what else decides about the outcome, as JSON holds it.
    """

    stage: str
    scale: float
    seed: int
    subject: str = ""
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same piece."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Piece(JsonLine):
    """A finished measurement."""

    cell: Cell
    found: Found

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Piece:
        """The piece behind what JSON made of it."""
        return cls(Cell(**fields["cell"]), fields["found"])


class Pieces:
    """The pieces of a results file.

    Args:
        path: the file; made with the first piece.
        redo: stages whose pieces are measured again.
    """

    def __init__(self, path: Path, redo: Collection[str] = ()) -> None:
        self._file = ResultsFile(path, Piece.of_line)
        known = self._file.read()
        self._known = {key: piece for key, piece in known.items() if piece.cell.stage not in redo}

    def once(self, cell: Cell, measure: Callable[[], Found]) -> Found:
        """What a cell showed; measured and kept, where that is missing."""
        if cell.key not in self._known:
            piece = Piece(cell, measure())
            self._file.append(piece)
            self._known[cell.key] = piece
        return self._known[cell.key].found
