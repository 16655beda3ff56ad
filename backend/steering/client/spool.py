"""Timings on their way from applications to the product: a bounded file of JSON lines.

Any number of processes append, each report with one write to a file opened for appending; one
reader takes the file away by renaming it. A reader that is gone costs at most `MAX_SPOOL_BYTES`.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from . import spool_file
from .timings import ClassTimings

VERSION = 1
MAX_SPOOL_BYTES = 16 * 1024**2
_MAX_COUNT = 2**53


@dataclass(frozen=True)
class Report:
    """What one process noted between two moments.

    Args:
        writer: the process; with ``sequence`` it tells a report that was read twice.
        sequence: 0, 1, 2 ... of this writer; a gap is a report that was lost.
        written_at_s: Unix time.
        classes: see `ClassTimings`.
    """

    writer: str
    sequence: int
    written_at_s: float
    classes: tuple[ClassTimings, ...]


class SpoolWriter:
    """Appends reports to a spool file; a reporter for `query_steering_report`.

    Args:
        path: the file; made when the first report is written.
        max_bytes: a report that would make the file longer is dropped.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_SPOOL_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._name = secrets.token_hex(8)
        self._sequence = 0

    def __call__(self, classes: Sequence[ClassTimings]) -> None:
        """Append one report.

        Raises:
            OSError: the file cannot be written, or is full.
        """
        sequence, self._sequence = self._sequence, self._sequence + 1
        line = json.dumps(
            {
                "version": VERSION,
                # A forked process goes on under the name of its own.
                "writer": f"{self._name}-{os.getpid()}",
                "sequence": sequence,
                "written_at_s": time.time(),
                "classes": [_as_json(timings) for timings in classes],
            },
            separators=(",", ":"),
        )
        data = line.encode("ascii") + b"\n"
        spool_file.append(self._path, data, max_bytes=self._max_bytes, mode=spool_file.SHARED)


def _as_json(timings: ClassTimings) -> dict[str, Any]:
    return {**vars(timings), "buckets": {str(k): v for k, v in timings.buckets.items()}}


def take_spool(path: Path) -> tuple[list[Report], int]:
    """Take what applications reported, for the one reader of a spool.

    The file is renamed first and read by the next call, when nobody can still be appending to it:
    call this every few seconds or minutes, not faster. A reader that dies in between finds the
    renamed file again; ``writer`` and ``sequence`` tell what it has seen already.

    Returns:
        the reports, and the number of lines that were none.

    Raises:
        OSError: the folder cannot be read or written.
    """
    return spool_file.take(path, _report, max_bytes=MAX_SPOOL_BYTES)


def _report(document: Any) -> Report:
    """Check a line.

    Raises:
        ValueError, KeyError, TypeError: it is no report of this version.
    """
    if document["version"] != VERSION:
        raise ValueError("another version")
    return Report(
        writer=_text(document["writer"]),
        sequence=_count(document["sequence"]),
        written_at_s=_seconds(document["written_at_s"]),
        classes=tuple(_class_timings(item) for item in document["classes"]),
    )


def _class_timings(item: Any) -> ClassTimings:
    arm: Literal["default", "steered"] = "steered" if item["arm"] == "steered" else "default"
    if item["arm"] != arm:
        raise ValueError("no such arm")
    return ClassTimings(
        fingerprint=_text(item["fingerprint"]),
        search_path=_text(item["search_path"]),
        hint_set=_text(item["hint_set"]),
        arm=arm,
        executions=_count(item["executions"]),
        total_s=_seconds(item["total_s"]),
        cancelled=_count(item["cancelled"]),
        failed=_count(item["failed"]),
        buckets=MappingProxyType({int(k): _count(v) for k, v in item["buckets"].items()}),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 2000:
        raise ValueError("not a short text")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_COUNT:
        raise ValueError("not a count")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise ValueError("not a number of seconds")
    return float(value)
