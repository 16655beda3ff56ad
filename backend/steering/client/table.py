"""The steering table: which statements get which planner settings; and its file.

A table is immutable. Its file is JSON with a version (docs/steering-plugin.md describes it), is
written whole and renamed into place, and is checked whole before anything of it is used: one wrong
entry, and none is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .planner_settings import refusal
from .statements import PARSER

FORMAT = "query_steering table"
VERSION = 1
MAX_ENTRIES = 2000
MAX_FILE_BYTES = 2 * 1024**2
"""Both bound what reading a table may cost an application."""
MODES = ("auto", "pin", "off")
"""auto: steered, but for the share that runs the default plan; pin: always steered; off: never."""

FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_HINT_SET = re.compile(r"[A-Za-z0-9_.+~-]{1,200}")
_FUNCTION = re.compile(r"[^\s%]{1,130}")
SEARCH_PATH = re.compile(r"[^%\\\x00-\x1f\x7f-\U0010ffff]{0,1000}")
"""It becomes a quoted literal in a text whose "%" a driver may read: neither it nor "\\" passes."""


class TableError(ValueError):
    """A steering table that may not be used; the message says which part of it and why."""


@dataclass(frozen=True)
class SteeringEntry:
    """One class of statements with the settings that were proved to be faster for it.

    Args:
        fingerprint: of the statement (`statements.fingerprint`), 16 hexadecimal digits.
        search_path: the schemas under which it was verified, as ``SHOW search_path`` prints them.
        hint_set: the name of the settings, for reports.
        settings: planner setting -> value to send.
        under: planner setting -> value in force when it was verified, as ``SHOW`` prints it: of
            all that ``settings`` names, and of others that matter. Where one differs, the
            statement is not steered.
        functions: the functions that the statement calls, as it writes them, each looked up and
            found not to be volatile. A statement that calls another is not steered.
        mode: one of `MODES`.

    Raises:
        TableError: a part is malformed, or a setting or value is not allowed.
    """

    fingerprint: str
    search_path: str
    hint_set: str
    settings: Mapping[str, str]
    under: Mapping[str, str]
    functions: frozenset[str] = frozenset()
    mode: str = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        object.__setattr__(self, "under", MappingProxyType(dict(self.under)))
        for name, pattern in (
            ("fingerprint", FINGERPRINT),
            ("search_path", SEARCH_PATH),
            ("hint_set", _HINT_SET),
        ):
            if not pattern.fullmatch(getattr(self, name)):
                raise TableError(f"{name} {getattr(self, name)[:80]!r} is malformed")
        if self.mode not in MODES:
            raise TableError(f"mode {self.mode[:80]!r} is none of {', '.join(MODES)}")
        for function in self.functions:
            if not _FUNCTION.fullmatch(function):
                raise TableError(f"function {function[:80]!r} is malformed")
        why = refusal(self.settings, self.under)
        if why is not None:
            raise TableError(f"entry {self.fingerprint}: {why}")


@dataclass(frozen=True)
class SteeringTable:
    """The entries by fingerprint, and how long they hold.

    Args:
        entries: at most one for each pair of fingerprint and search path, and `MAX_ENTRIES`.
        expires_at_s: Unix time after which nothing is steered by it; None: never.

    Raises:
        TableError: two entries are for the same statement and search path, or there are too many.
    """

    entries: tuple[SteeringEntry, ...] = ()
    expires_at_s: float | None = None
    by_fingerprint: Mapping[str, tuple[SteeringEntry, ...]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if len(self.entries) > MAX_ENTRIES:
            raise TableError(f"{len(self.entries)} entries are more than {MAX_ENTRIES}")
        found: dict[str, tuple[SteeringEntry, ...]] = {}
        for entry in self.entries:
            others = found.get(entry.fingerprint, ())
            if any(other.search_path == entry.search_path for other in others):
                raise TableError(f"two entries for {entry.fingerprint} under one search_path")
            found[entry.fingerprint] = (*others, entry)
        object.__setattr__(self, "by_fingerprint", MappingProxyType(found))


EMPTY = SteeringTable()


def write_table(path: Path, entries: Iterable[SteeringEntry], *, expires_at_s: float) -> None:
    """Write a table file; readers see the old one or the new one, never a part.

    Args:
        path: the file; readable by everybody, as it holds no secret.
        entries: see `SteeringTable`.
        expires_at_s: Unix time after which readers stop steering, should nobody write it again.

    Raises:
        TableError: the entries do not make a table.
        OSError: the file cannot be written.
    """
    table = SteeringTable(tuple(entries), expires_at_s)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "parser": PARSER,
        "expires_at_s": expires_at_s,
        "entries": [_as_json(entry) for entry in table.entries],
    }
    data = (json.dumps(document, indent=1) + "\n").encode("ascii")
    if len(data) > MAX_FILE_BYTES:
        raise TableError(f"the table has {len(data)} bytes; readers take {MAX_FILE_BYTES} at most")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _as_json(entry: SteeringEntry) -> dict[str, Any]:
    return {
        "fingerprint": entry.fingerprint,
        "search_path": entry.search_path,
        "mode": entry.mode,
        "hint_set": entry.hint_set,
        "settings": dict(entry.settings),
        "under": dict(entry.under),
        "functions": sorted(entry.functions),
    }


def parse_table(data: bytes) -> SteeringTable:
    """Read the contents of a table file.

    Raises:
        TableError: they are no table, of another version, or hold an entry that is not allowed.
    """
    if len(data) > MAX_FILE_BYTES:
        raise TableError(f"it has more than {MAX_FILE_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TableError(f"it is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TableError(f"it is not a {FORMAT}")
    version = document.get("version")
    if version != VERSION:
        raise TableError(
            f"its version is {str(version)[:20]}, this query_steering reads {VERSION}; "
            "install the query_steering that belongs to the writer"
        )
    parser = document.get("parser")
    if parser != PARSER:
        raise TableError(
            f"its fingerprints are of the grammar of PostgreSQL {str(parser)[:20]}, those of this "
            f"pglast of {PARSER}; install the same major version of pglast as the writer"
        )
    expires_at_s = document.get("expires_at_s")
    if isinstance(expires_at_s, bool) or not isinstance(expires_at_s, (int, float)):
        raise TableError("expires_at_s is not a number")
    entries = document.get("entries")
    if not isinstance(entries, list):
        raise TableError("entries are not a list")
    return SteeringTable(tuple(_entry(item) for item in entries), float(expires_at_s))


def _entry(item: object) -> SteeringEntry:
    """Check the types; the values are checked by the entry itself."""
    if not isinstance(item, dict):
        raise TableError("an entry is not an object")
    texts = {key: item.get(key) for key in ("fingerprint", "search_path", "mode", "hint_set")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise TableError(f"an entry has no {key}")
    functions = item.get("functions")
    if not isinstance(functions, list) or not all(isinstance(name, str) for name in functions):
        raise TableError("functions are not a list of names")
    return SteeringEntry(
        **texts,  # type: ignore[arg-type]  # checked above
        settings=_texts(item, "settings"),
        under=_texts(item, "under"),
        functions=frozenset(functions),
    )


def _texts(item: Mapping[str, object], key: str) -> dict[str, str]:
    value = item.get(key)
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise TableError(f"{key} is not an object of texts")
    return value
