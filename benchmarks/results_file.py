"""Finished runs of a benchmark in a file of JSON lines, so that it goes on where it ended."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from backend.errors import ConfigError

OPTIONS = "options"
"""The one field of the line that says how a file's runs were made."""


class KeyedCell(Protocol):
    """What a run was of."""

    @property
    def key(self) -> str:
        """The same for the same run."""


class KeptRun(Protocol):
    """A finished run that fits into a line."""

    @property
    def cell(self) -> KeyedCell:
        """What it was of."""

    def line(self) -> str:
        """One line of JSON."""


RunT = TypeVar("RunT", bound=KeptRun)
LineT = TypeVar("LineT", bound="JsonLine")


class JsonLine(ABC):
    """Base of a dataclass that is kept as a line of JSON."""

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of_line(cls: type[LineT], line: str) -> LineT:
        """What stands behind a line.

        Raises:
            ValueError, TypeError, KeyError: nothing of this class.
        """
        return cls.of_fields(json.loads(line))

    @classmethod
    @abstractmethod
    def of_fields(cls: type[LineT], fields: dict[str, Any]) -> LineT:
        """The same from what JSON made of the fields; those that are no plain values are made."""


class ResultsFile(Generic[RunT]):
    """Finished runs in a file of JSON lines; of the same cell the last one counts.

    Several processes may append at once, and a line that a killed process left unfinished is
    ignored.

    Args:
        path: the file.
        of_line: the run behind a line; ValueError, TypeError or KeyError where there is none.
    """

    def __init__(self, path: Path, of_line: Callable[[str], RunT]) -> None:
        self.path = path
        self._of_line = of_line

    def read(self) -> dict[str, RunT]:
        """All runs by the key of their cell."""
        runs: dict[str, RunT] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    run = self._of_line(line)
                    runs[run.cell.key] = run
        return runs

    def append(self, run: RunT) -> None:
        """Keep a run."""
        append_line(self.path, run.line())


def append_line(path: Path, line: str) -> None:
    """Keep a line. The line break in front of it ends what may have been left unfinished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(f"\n{line}\n".encode())


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects in a file's lines; one that a killed process left unfinished is ignored."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def results_in(path: Path) -> Iterator[dict[str, Any]]:
    """The same without the options."""
    return (found for found in objects(path) if OPTIONS not in found)


def keep_options(path: Path, options: Mapping[str, Any]) -> None:
    """Refuse to go on in a file whose runs were made otherwise; a new file notes the options.

    Args:
        path: the file.
        options: what a run depends on, besides its own name and seed.

    Raises:
        ConfigError: what differs.
    """
    found = list(objects(path))
    before = next((line[OPTIONS] for line in found if OPTIONS in line), None)
    if before is None:
        if found:
            raise ConfigError(
                f"{path} does not say with which options it was made",
                remedy="choose another file for the results",
            )
        append_line(path, json.dumps({OPTIONS: dict(options)}))
    elif before != (wanted := json.loads(json.dumps(dict(options)))):
        names = [name for name in {**before, **wanted} if before.get(name) != wanted.get(name)]
        told = ", ".join(f"{n} {before.get(n)} instead of {wanted.get(n)}" for n in names)
        raise ConfigError(
            f"{path} holds results made otherwise: {told}",
            remedy="choose another file for the results, or the same options as before",
        )
