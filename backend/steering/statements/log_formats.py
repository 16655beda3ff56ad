"""The three formats of a PostgreSQL server's log, as entries.

https://www.postgresql.org/docs/current/runtime-config-logging.html: ``stderr`` (whatever
``log_line_prefix`` says), ``csvlog`` and ``jsonlog``.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_ENTRY_BYTES = 256 * 1024
"""What is longer is cut off there, or cannot be read: no statement that is wanted is so long."""

_CSV_BEGIN = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [^\s,]+,")
_CSV_DATABASE, _CSV_SEVERITY, _CSV_MESSAGE, _CSV_DETAIL, _CSV_FIELDS = 2, 11, 13, 14, 23
_STDERR_LINE = re.compile(
    rb"(?:.{0,500}?[\s\]):|>])?"
    rb"(LOG|DETAIL|HINT|QUERY|CONTEXT|STATEMENT|LOCATION|DEBUG\d?|INFO|NOTICE|WARNING|ERROR|FATAL"
    rb"|PANIC):  "
)
_PARTS = (b"DETAIL", b"HINT", b"QUERY", b"CONTEXT", b"STATEMENT", b"LOCATION")
"""What follows the first line of an entry, each on a line of its own."""


@dataclass(frozen=True)
class LogEntry:
    """One message of severity LOG.

    Args:
        message, detail: without what the log puts in front.
        database: where it happened; None where the log does not say.
    """

    message: str
    detail: str
    database: str | None


Entries = tuple[list[LogEntry], int, int]
"""What was read; how many bytes of the data that took; and entries that could not be read."""
Parse = Callable[[bytes, bool], Entries]


def parser_for(first_line: bytes) -> Parse:
    """What reads a log that begins with this line.

    The function takes whole lines and whether the log has come to rest: if not, its last entry may
    go on, and is left for the next time.
    """
    if first_line.startswith(b"{"):
        return _parse_json
    return _parse_csv if _CSV_BEGIN.match(first_line) else _parse_stderr


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each line with the place where it ends."""
    place = 0
    while place < len(data):
        end = data.find(b"\n", place) + 1 or len(data)
        yield end, data[place:end]
        place = end


def _parse_json(data: bytes, is_at_rest: bool) -> Entries:
    entries, broken = [], 0
    for _, line in _lines(data):
        try:
            item = json.loads(line)
            texts = [item.get(key, "") for key in ("message", "detail", "dbname")]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("not texts")
            if item.get("error_severity") == "LOG":
                entries.append(LogEntry(*texts))
        except (ValueError, AttributeError, RecursionError):
            broken += 1
    return entries, len(data), broken


def _parse_csv(data: bytes, is_at_rest: bool) -> Entries:
    entries: list[LogEntry] = []
    broken = taken = quotes = size = 0
    record: list[bytes] = []
    for end, line in _lines(data):
        begins = _CSV_BEGIN.match(line) is not None
        if record and begins:
            broken += 1  # the one before it has no end
            record, quotes, size = [], 0, 0
        if not record and not begins:
            taken = end  # we are inside an entry whose beginning was not read
            continue
        record.append(line)
        quotes, size = quotes + line.count(b'"'), size + len(line)
        if quotes % 2 and size <= MAX_ENTRY_BYTES:
            continue  # a field goes on in the next line
        taken = end
        try:
            fields = next(csv.reader([b"".join(record).decode()], strict=True))
            if len(fields) < _CSV_FIELDS:
                raise ValueError("too few fields")
            if fields[_CSV_SEVERITY] == "LOG":
                entries.append(
                    LogEntry(fields[_CSV_MESSAGE], fields[_CSV_DETAIL], fields[_CSV_DATABASE])
                )
        except (ValueError, csv.Error, StopIteration):
            broken += 1
        record, quotes, size = [], 0, 0
    return entries, taken, broken


def _parse_stderr(data: bytes, is_at_rest: bool) -> Entries:
    entries: list[LogEntry] = []
    broken = begin = place = 0
    parts: dict[bytes, list[bytes]] = {}  # of the entry that begins at ``begin``
    part: bytes | None = None

    def close() -> None:
        nonlocal broken
        if b"LOG" in parts:
            try:
                message, detail = (
                    b"".join(parts.get(name, ())).decode().rstrip("\n")
                    for name in (b"LOG", b"DETAIL")
                )
                entries.append(LogEntry(message, detail, None))
            except UnicodeDecodeError:
                broken += 1

    for end, line in _lines(data):
        if line.startswith(b"\t"):
            # The server puts a tab in front of each further line of a part.
            if part is not None and end - begin < MAX_ENTRY_BYTES:
                parts[part].append(line[1:])
        else:
            match = _STDERR_LINE.match(line)
            part = match[1] if match is not None else None
            if part not in _PARTS:
                close()
                parts, begin = {}, place
            if match is not None:
                parts[match[1]] = [line[match.end() :]]
        place = end
    if is_at_rest:
        close()
        begin = place
    return entries, begin, broken
