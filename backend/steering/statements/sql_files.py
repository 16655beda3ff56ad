"""Statements for the explorer from files of SQL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pglast
from pglast import ast, enums, keywords

from backend.errors import SteeringError
from backend.steering.client.statements import MAX_TEXT_LENGTH
from backend.steering.client.table import SEARCH_PATH
from backend.steering.statements.samples import Gathered, NotASampleError, sample_of
from backend.steering.statements.sql_text import Piece, UnclosedError, pieces

MAX_FILE_BYTES = 16 * 1024**2
MAX_FILES = 1000
MAX_TOTAL_LENGTH = 4 * MAX_FILE_BYTES
"""Of the texts of all files, in characters."""
MAX_ENTRIES = 20_000
"""Files and folders that are looked at below a folder."""
MAX_DEPTH = 20
"""Of folders in folders."""
MAX_SAMPLES = 5000
"""Of all files together."""

_SPLIT_REMEDY = "split it, or name the files that hold queries"
_MAY_SET = re.compile(
    r"(?:set|reset|discard|begin|start|commit|end|rollback|abort)\b", re.IGNORECASE
)
_BARE_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_NOT_BARE = (
    keywords.RESERVED_KEYWORDS | keywords.COL_NAME_KEYWORDS | keywords.TYPE_FUNC_NAME_KEYWORDS
)


def read_sql_files(paths: Sequence[Path], *, search_path: str, at: datetime) -> Gathered:
    """The queries in files of SQL, as psql would read them.

    ``SET search_path`` is honoured from there on, SET LOCAL to the end of its transaction. psql's
    commands, and whatever is not a query that the plug-in would steer, is left out and counted.

    Args:
        paths: files, or folders whose files ``*.sql`` are read, those of their folders too.
        search_path: at the beginning of each file, as ``SHOW search_path`` prints it.
        at: when they are read.

    Raises:
        SteeringError: a path is missing, unreadable, too large, not UTF-8, or has a quoted text
            or comment without end; the message names the file and, where there is one, the line.
            Or they are too many, too deep or too large in all.
    """
    gathered, left = Gathered(), MAX_TOTAL_LENGTH
    for path in _files(paths):
        reader = _FileReader(path, search_path, at, gathered)
        contents = _contents(path)
        left -= len(contents)
        if left < 0:
            raise SteeringError(
                f"{path}: these files have more than {MAX_TOTAL_LENGTH} characters in all",
                remedy=_SPLIT_REMEDY,
            )
        try:
            for piece in pieces(contents):
                reader.read(piece)
        except UnclosedError as error:
            raise SteeringError(
                f"{path}, line {error.line}: a quoted text or comment begins here and never ends",
                remedy="close it; psql -f shows the same",
            ) from None
    return gathered


class _FileReader:
    """Turns the pieces of one file into samples."""

    def __init__(self, path: Path, search_path: str, at: datetime, gathered: Gathered) -> None:
        self._path = path
        self._at = at
        self._gathered = gathered
        self._search_path = _SearchPath(search_path)

    def read(self, piece: Piece) -> None:
        place = f"{self._path}, line {piece.line}"
        if piece.is_command:
            self._gathered.skip("psql's own commands", place)
            return
        if _MAY_SET.match(piece.text) and len(piece.text) <= MAX_TEXT_LENGTH:
            self._search_path.follow(piece.text)
        try:
            sample = sample_of(piece.text, self._search_path.now, self._at, "file")
            if not SEARCH_PATH.fullmatch(sample.key.search_path):
                raise NotASampleError("under a search path that no steering table may hold")
        except NotASampleError as error:
            self._gathered.skip(str(error), place)
            return
        if len(self._gathered.samples) >= MAX_SAMPLES:
            raise SteeringError(
                f"{place}: this is more than {MAX_SAMPLES} queries in all", remedy=_SPLIT_REMEDY
            )
        self._gathered.samples.append(sample)


class _SearchPath:
    """The search path of a session that runs a file's statements."""

    def __init__(self, default: str) -> None:
        self._default = default
        self._session = self._before = default  # ``_before`` the open transaction
        self._local: str | None = None

    @property
    def now(self) -> str:
        return self._session if self._local is None else self._local

    def follow(self, text: str) -> None:
        try:
            statements: Any = pglast.parse_sql(text)
        except Exception:  # what is no SQL sets nothing; it is counted elsewhere
            return
        for statement in statements:
            self._follow(statement.stmt)

    def _follow(self, statement: Any) -> None:
        kinds = enums.TransactionStmtKind
        if isinstance(statement, ast.TransactionStmt):
            if statement.kind == kinds.TRANS_STMT_ROLLBACK:
                self._session = self._before
            if statement.kind in (kinds.TRANS_STMT_ROLLBACK, kinds.TRANS_STMT_COMMIT):
                self._local = None
            if statement.kind in (kinds.TRANS_STMT_BEGIN, kinds.TRANS_STMT_START):
                self._before = self._session
        elif isinstance(statement, ast.DiscardStmt):
            self._session = self._default
        elif isinstance(statement, ast.VariableSetStmt):
            setting = enums.VariableSetKind
            if statement.kind == setting.VAR_RESET_ALL:
                self._session = self._default
            elif statement.name == "search_path":
                is_value = statement.kind == setting.VAR_SET_VALUE
                value = _as_shown(statement.args or ()) if is_value else self._default
                if statement.is_local:
                    self._local = value
                else:
                    self._session, self._local = value, None


def _as_shown(names: Sequence[Any]) -> str:
    """A list of schemas as ``SHOW search_path`` prints it."""
    return ", ".join(_quoted(str(getattr(name.val, "sval", ""))) for name in names)


def _quoted(name: str) -> str:
    if _BARE_NAME.fullmatch(name) and name not in _NOT_BARE:
        return name
    return '"' + name.replace('"', '""') + '"'


def _files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(_inside(path))
            if not inside:
                raise SteeringError(f"{path} holds no file *.sql", remedy="name the file itself")
            found += inside
        else:
            found.append(path)
        if len(found) > MAX_FILES:
            raise SteeringError(f"{path}: more than {MAX_FILES} files", remedy=_SPLIT_REMEDY)
    return list(dict.fromkeys(found))


def _inside(folder: Path) -> Iterator[Path]:
    """The files of SQL in a folder and its folders; links to folders are not followed.

    A folder below it that may not be read is left out.
    """
    folders, seen = [(folder, 1)], 0
    while folders:
        parent, depth = folders.pop()
        if depth > MAX_DEPTH:
            raise SteeringError(
                f"{parent} lies more than {MAX_DEPTH} folders deep", remedy=_SPLIT_REMEDY
            )
        for entry in _entries(parent, must=parent == folder):
            seen += 1
            if seen > MAX_ENTRIES:
                raise SteeringError(
                    f"{folder} holds more than {MAX_ENTRIES} files and folders",
                    remedy=_SPLIT_REMEDY,
                )
            if entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), depth + 1))
            elif entry.name.lower().endswith(".sql") and not entry.is_dir():
                yield Path(entry.path)


def _entries(folder: Path, *, must: bool) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        if must:
            raise SteeringError(
                f"{folder} cannot be read: {error.strerror}",
                remedy="name a folder that the tuner may read",
            ) from error


def _contents(path: Path) -> str:
    try:
        if not path.is_file():
            raise SteeringError(f"{path} is no file", remedy="name a file of SQL, or a folder")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SteeringError(
            f"{path} cannot be read: {error.strerror}", remedy="name a file that the tuner may read"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise SteeringError(f"{path} has more than {MAX_FILE_BYTES} bytes", remedy=_SPLIT_REMEDY)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SteeringError(f"{path}, line {line}: it is not UTF-8", remedy="convert it") from None
