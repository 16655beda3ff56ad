"""Samples of statements on their way from applications to the product: a bounded, private file.

One JSON line for each class and report. The file is its owner's alone: an application and the
product that share one run under the same account.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import spool_file
from .sampling import ALL_PER_MINUTE, SampledClass, SampledStatement
from .statements import MAX_TEXT_LENGTH, PARSER
from .table import FINGERPRINT, SEARCH_PATH

VERSION = 1
MAX_SPOOL_BYTES = 16 * 1024**2

_MAX_COUNT = 2**53


class SampleSpoolWriter:
    """Appends samples to a spool file; a reporter for `query_steering_samples`.

    Args:
        path: the file; made, for its owner alone, when the first sample is written.
        max_bytes: a report that would make the file longer is dropped.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_SPOOL_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def __call__(self, classes: Sequence[SampledClass]) -> None:
        """Append one report.

        Raises:
            OSError: the file cannot be written, is full, or is open to others.
        """
        lines = [json.dumps(_as_json(item), separators=(",", ":")) + "\n" for item in classes]
        data = "".join(lines).encode("ascii")
        spool_file.append(self._path, data, max_bytes=self._max_bytes, mode=spool_file.PRIVATE)


def _as_json(item: SampledClass) -> dict[str, Any]:
    samples = [vars(sample) for sample in item.samples]
    return {"version": VERSION, "parser": PARSER, **vars(item), "samples": samples}


def take_samples(path: Path) -> tuple[list[SampledClass], int]:
    """Take what applications noted, for the one reader of a spool (see `spool.take_spool`).

    Returns:
        the classes' reports, the oldest first, and the number of lines that were none, or were
        written with another grammar than ours.

    Raises:
        OSError: the folder cannot be read or written.
    """
    return spool_file.take(path, _sampled_class, max_bytes=MAX_SPOOL_BYTES)


def _sampled_class(item: Any) -> SampledClass:
    """Check a line.

    Raises:
        ValueError, KeyError, TypeError: it is no report of this version.
    """
    if item["version"] != VERSION or item["parser"] != PARSER:
        raise ValueError("another version")
    if not FINGERPRINT.fullmatch(item["fingerprint"]):
        raise ValueError("no fingerprint")
    if not SEARCH_PATH.fullmatch(item["search_path"]):
        raise ValueError("a search path that no table may hold")
    samples = item["samples"]
    if not isinstance(samples, list) or len(samples) > ALL_PER_MINUTE:
        raise ValueError("no list of samples, or a long one")
    executions = item["executions"]
    if isinstance(executions, bool) or not isinstance(executions, int):
        raise ValueError("not a count")
    return SampledClass(
        fingerprint=item["fingerprint"],
        search_path=item["search_path"],
        executions=int(_number(executions, _MAX_COUNT)),
        total_s=_number(item["total_s"], 1e12),
        samples=tuple(
            SampledStatement(_text(sample["text"]), _number(sample["seen_at_s"], 1e11))
            for sample in samples
        ),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH:
        raise ValueError("not a text, or a long one")
    return value


def _number(value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < most:
        raise ValueError("not a number, or a large one")
    return float(value)
