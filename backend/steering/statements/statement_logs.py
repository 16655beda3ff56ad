"""Statements for the explorer from a server's log.

Read are what ``log_min_duration_statement`` and ``log_statement`` write, and the plans of
auto_explain (text or JSON), in the server's English. Parameters are filled in as literals
(https://www.postgresql.org/docs/current/runtime-config-logging.html,
https://www.postgresql.org/docs/current/auto-explain.html).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from pglast import parser

from backend.domain.steering import ClassKey, StatementSample
from backend.errors import SteeringError
from backend.steering.client.statements import MAX_TEXT_LENGTH, fingerprint
from backend.steering.statements.log_formats import LogEntry, parser_for
from backend.steering.statements.samples import (
    ClassUse,
    Gathered,
    NotASampleError,
    plain_query,
    refuse_unread,
)

MAX_BYTES = 4 * 1024**2
"""Of one log that are read at a time, the newest: some two seconds of work."""
MAX_LOGS = 100
"""Of a folder, the newest."""
MAX_CLASSES = 2000
KEPT_PER_CLASS = 12

_SUFFIXES = (".log", ".csv", ".json")
_AT_REST_S = 2.0
_MAX_FIRST_LINE = 4096
_STATEMENT = re.compile(
    r"(?:duration: (?P<ms>\d{1,12}(?:\.\d{1,12})?) ms  )?"
    r"(?:statement|execute (?!fetch from )[^:\n]{1,200}): (?P<text>.*)",
    re.DOTALL,
)
_PLAN = re.compile(r"duration: (\d{1,12}(?:\.\d{1,12})?) ms  plan:\n")
_TOP_STEP = re.compile(r"^[^\n]*  \(cost=\d+\.\d+\.\.\d+\.\d+ rows=\d+ width=\d+\)", re.MULTILINE)
_PARAMETERS = re.compile(r"[Pp]arameters: ")
_PARAMETER = re.compile(r"\$(\d{1,5}) = (NULL|'[^']*(?:''[^']*)*')(?:, |\Z)")


@dataclass(frozen=True)
class _Execution:
    """A statement that was executed, its parameters as they were logged, and how long it took."""

    text: str
    parameters: str
    seconds: float | None


@dataclass
class _Seen:
    """What was logged of one class: the newest of its executions, and all of them together."""

    texts: deque[_Execution] = field(default_factory=lambda: deque(maxlen=KEPT_PER_CLASS))
    executions: int = 0
    timed: int = 0
    total_s: float = 0.0


def read_statement_logs(
    paths: Sequence[Path],
    positions: Mapping[str, int],
    *,
    search_path: str,
    at: datetime,
    database: str | None = None,
) -> tuple[Gathered, dict[str, int]]:
    """What was logged since the last time.

    Logs may be rotated, by the server (into other files of a folder) or by others (renamed or
    truncated); what was written to a renamed file before is read there. Of a log that grows by more
    than `MAX_BYTES` between two calls, the newest part is read.

    Args:
        paths: logs, or folders of them (``*.log``, ``*.csv``, ``*.json``).
        positions: what the last call returned; at first, empty.
        search_path: of the sessions that were logged, as ``SHOW search_path`` prints it: a log does
            not say it.
        at: when this is read.
        database: statements of others are left out, where the log says (csvlog, jsonlog).

    Returns:
        the statements, and the positions for the next call.

    Raises:
        SteeringError: a path is missing or may not be read; the message names it.
    """
    gathered = Gathered()
    collector = _Collector(gathered, database)
    reached: dict[str, int] = {}
    for path in paths:
        try:
            for log in _logs(path, positions):
                begin = positions.get(log.identity, 0)
                reached[log.identity] = _read(log, begin, collector)
        except OSError as error:
            raise SteeringError(
                f"the log {path} cannot be read: {error.strerror or error}",
                remedy="name a log or a folder of logs, and let the tuner's account read it "
                "(log_file_mode = 0640 and the server's group)",
            ) from error
    collector.finish(search_path, at)
    return gathered, reached


@dataclass(frozen=True)
class _Log:
    """A log as it was found; ``identity`` survives its renaming."""

    path: Path
    identity: str
    first_line: bytes
    size: int
    is_at_rest: bool


def _logs(path: Path, positions: Mapping[str, int]) -> Iterator[_Log]:
    """The logs that a path stands for, the oldest first.

    Raises:
        OSError: there are none, or one may not be read.
    """
    if path.is_dir():
        inside = [entry for entry in path.iterdir() if entry.suffix in _SUFFIXES]
        yield from _opened(inside)
        return
    # Renamed by a rotation, it is next to the new one; what we began to read there is read on.
    named_alike = [
        entry
        for entry in path.parent.iterdir()
        if entry.name.startswith(path.name) and entry.name != path.name
    ]
    yield from (log for log in _opened(named_alike) if log.identity in positions)
    log = _open(path)
    if log is not None:
        yield log


def _opened(paths: list[Path]) -> Iterator[_Log]:
    changed_s: dict[Path, float] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # it was removed just now
            changed_s[path] = path.stat().st_mtime
    for path in sorted(changed_s, key=lambda path: changed_s[path])[-MAX_LOGS:]:
        with contextlib.suppress(FileNotFoundError):
            log = _open(path)
            if log is not None:
                yield log


def _open(path: Path) -> _Log | None:
    """Look at a log; None: it has no line yet, or is no file."""
    if not path.is_file():
        path.stat()  # which tells one that is missing
        return None
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        first_line = file.readline(_MAX_FIRST_LINE)
    if not first_line.endswith(b"\n") and len(first_line) < _MAX_FIRST_LINE:
        return None
    digest = hashlib.sha256(first_line).hexdigest()[:16]
    is_at_rest = time.time() - status.st_mtime >= _AT_REST_S
    return _Log(path, f"{status.st_ino}:{digest}", first_line, status.st_size, is_at_rest)


def _read(log: _Log, begin: int, collector: _Collector) -> int:
    """Read a log from a place on; returns the place that was reached."""
    if begin > log.size:
        begin = 0
    with log.path.open("rb") as file:
        if log.size - begin > MAX_BYTES:
            collector.gathered.skip("older parts of large logs", str(log.path))
            file.seek(log.size - MAX_BYTES)
            file.readline()
            begin = file.tell()
        file.seek(begin)
        data = file.read(log.size - begin)
    whole = data[: data.rfind(b"\n") + 1]
    entries, taken, broken = parser_for(log.first_line)(whole, log.is_at_rest)
    if broken:
        collector.gathered.skipped["entries of logs that cannot be read"] += broken
    for entry in entries:
        collector.take(entry)
    return begin + taken


class _Collector:
    """Gathers what the entries of logs say of query classes."""

    def __init__(self, gathered: Gathered, database: str | None) -> None:
        self.gathered = gathered
        self._database = database
        self._classes: dict[str, _Seen] = {}
        self._fingerprint = lru_cache(1024)(fingerprint)

    def take(self, entry: LogEntry) -> None:
        """Note an entry, if it is of an execution."""
        try:
            found = _execution(entry)
            if found is None:
                return
            if None not in (self._database, entry.database) and entry.database != self._database:
                raise NotASampleError("of another database")
            self._note(found)
        except NotASampleError as error:
            self.gathered.skip(str(error))

    def _note(self, found: _Execution) -> None:
        refuse_unread(found.text)
        try:
            name = self._fingerprint(found.text)
        except Exception:  # whatever the parser does not bear
            raise NotASampleError("not readable as SQL") from None
        if name not in self._classes and len(self._classes) >= MAX_CLASSES:
            raise NotASampleError(f"of more than {MAX_CLASSES} classes")
        seen = self._classes.setdefault(name, _Seen())
        seen.texts.append(found)
        seen.executions += 1
        if found.seconds is not None:
            seen.timed += 1
            seen.total_s += found.seconds

    def finish(self, search_path: str, at: datetime) -> None:
        """Turn what was noted into samples."""
        for name, seen in self._classes.items():
            key = ClassKey(name, search_path)
            for found in seen.texts:
                try:
                    query = plain_query(fill_in(found.text, found.parameters))
                except NotASampleError as error:
                    self.gathered.skip(str(error))
                    continue
                self.gathered.samples.append(StatementSample(key, query, at, "log"))
            use = ClassUse(key, seen.executions, seen.timed, seen.total_s, at)
            self.gathered.uses.append(use)


def _execution(entry: LogEntry) -> _Execution | None:
    """What an entry says of an execution; None: it is of something else.

    Raises:
        NotASampleError: it is of one, but does not say enough.
    """
    message = entry.message
    match = _STATEMENT.match(message)
    if match is not None:
        label = _PARAMETERS.match(entry.detail)
        parameters = entry.detail[label.end() :] if label is not None else ""
        return _Execution(match["text"], parameters, _seconds(match["ms"]))
    match = _PLAN.match(message)
    if match is None:
        return None
    text, parameters = _from_plan(message[match.end() :])
    return _Execution(text, parameters, _seconds(match[1]))


def _seconds(ms: str | None) -> float | None:
    return float(ms) / 1000 if ms is not None else None


def _from_plan(plan: str) -> tuple[str, str]:
    """The statement and the parameters in what auto_explain writes."""
    if plan.startswith("{"):
        try:
            document = json.loads(plan)
        except (ValueError, RecursionError):
            raise NotASampleError("plans of auto_explain that cannot be read") from None
        text, parameters = document.get("Query Text"), document.get("Query Parameters", "")
        if isinstance(text, str) and isinstance(parameters, str):
            return text, parameters
    top_step = _TOP_STEP.search(plan)
    if top_step is None or not plan.startswith("Query Text: "):
        raise NotASampleError("plans of auto_explain that cannot be read")
    head = plan[len("Query Text: ") : top_step.start()].rstrip("\n")
    text, label, parameters = head.rpartition("\nQuery Parameters: ")
    return (text, parameters) if label else (head, "")


def fill_in(text: str, parameters: str) -> str:
    """A statement with its parameters as literals.

    Args:
        text: with ``$1`` and so on.
        parameters: as the server logs them: ``$1 = 'it''s', $2 = NULL``.

    Raises:
        NotASampleError: they cannot be read, were cut short, or are too long.
    """
    if not parameters:
        return text
    values: dict[int, str] = {}
    place = 0
    while place < len(parameters):
        match = _PARAMETER.match(parameters, place)
        if match is None:
            raise NotASampleError("with parameters that cannot be read")
        if match[2].endswith("...'"):
            raise NotASampleError("with parameters cut short (log_parameter_max_length)")
        values[int(match[1])] = match[2]
        place = match.end()
    try:
        tokens = parser.scan(text)
    except Exception:  # what is no SQL
        raise NotASampleError("not readable as SQL") from None
    parts, end, length = [], 0, len(text)
    for token in tokens:
        value = (
            values.get(int(text[token.start + 1 : token.end + 1]))
            if token.name == "PARAM"
            else None
        )
        if value is not None:
            length += len(value)
            if length > MAX_TEXT_LENGTH:
                raise NotASampleError(f"longer than {MAX_TEXT_LENGTH} characters")
            # With "U&" in front of it, a literal would be read in another way.
            gap = " " if text.endswith("&", 0, token.start) else ""
            parts += [text[end : token.start], gap, value]
            end = token.end + 1
    return "".join([*parts, text[end:]])
