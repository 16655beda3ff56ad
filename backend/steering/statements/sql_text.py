"""A script for psql, cut into its statements.

Like psql, this looks at quotes and comments alone, so that what is no SQL for a server (psql's own
commands, the data after COPY ... FROM STDIN) is told from what is
(https://www.postgresql.org/docs/current/app-psql.html,
https://www.postgresql.org/docs/current/sql-syntax-lexical.html).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from backend.steering.client.statements import HINT_COMMENT

_TOKEN = re.compile(
    r"""
      (?P<space> \s+)
    | (?P<line_comment> --[^\n]*)
    | (?P<block_comment> /\*)
    | (?P<escaped> [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'?)
    | (?P<quoted> '[^']*'? | "[^"]*"?)
    | (?P<word> \w[\w$]*)
    | (?P<dollar> \$(?:[^\W\d]\w*)?\$)
    | (?P<semicolon> \\?;)
    | (?P<command> \\[^\n]*)
    | (?P<other> [^-/'"$;\\\w\s]+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_SENDS = re.compile(r"\\(?:g|crosstabview|watch)")
"""Commands that end a statement, as a semicolon does."""
_COPY_FROM_STDIN = re.compile(r"\s*COPY\b.*\bFROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)
_END_OF_DATA = re.compile(r"^\\\.[^\S\n]*(?:\n|\Z)", re.MULTILINE)
_BODY = re.compile(r"\s*CREATE\b.*\bBEGIN\s+ATOMIC\b", re.IGNORECASE | re.DOTALL)


class UnclosedError(Exception):
    """A quoted text or comment has no end; ``line`` is where it begins, from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True)
class Piece:
    """A statement, or a command of psql, and the line where it begins, from 1.

    Statements are without semicolon and comments, but for hints.
    """

    text: str
    line: int
    is_command: bool = False


def pieces(text: str) -> Iterator[Piece]:
    """The statements and commands of a script, in their order.

    Raises:
        UnclosedError: a quoted text or a comment has no end.
    """
    body: Piece | None = None
    for piece in _pieces(text):
        # The statements in a function's body are separated by semicolons, too.
        if body is not None:
            body = None if piece.text.lower() == "end" else body
        elif not piece.is_command and _BODY.match(piece.text):
            body = piece
            yield piece
        else:
            yield piece


def _pieces(text: str) -> Iterator[Piece]:
    place = begin = 0
    line = 1
    parts: list[str] = []  # of the statement that begins in line ``begun``
    begun: int | None = None
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:  # never: the last alternative takes any character
            break
        kind = match.lastgroup
        end = _end(text, match, line)
        if kind in ("semicolon", "command", "line_comment") or (
            kind == "block_comment" and not text.startswith(HINT_COMMENT, place)
        ):
            parts += [text[begin:place], " " if kind == "block_comment" else ""]
            begin = end
        elif kind != "space" and begun is None:
            begun = line
        if kind == "semicolon" or (kind == "command" and _SENDS.match(match[0])):
            statement = "".join(parts).strip()
            if begun is not None:
                yield Piece(statement, begun)
            if _COPY_FROM_STDIN.match(statement):
                data = _END_OF_DATA.search(text, end)
                begin = end = data.end() if data else len(text)
            parts, begun = [], None
        if kind == "command":
            yield Piece(match[0].rstrip(), line, is_command=True)
        line += text.count("\n", place, end)
        place = end
    if begun is not None:
        yield Piece("".join([*parts, text[begin:]]).strip(), begun)


def _end(text: str, match: re.Match[str], line: int) -> int:
    """Where a token ends.

    Raises:
        UnclosedError: nowhere.
    """
    found = match[0]
    if match.lastgroup == "quoted":
        is_closed = len(found) > 1 and found[-1] == found[0]
    elif match.lastgroup == "escaped":
        is_closed = re.sub(r"\\.", "", found, flags=re.DOTALL).count("'") % 2 == 0
    elif match.lastgroup == "dollar":
        close = text.find(found, match.end())
        is_closed = close >= 0
        if is_closed:
            return close + len(found)
    elif match.lastgroup == "block_comment":
        return _comment_end(text, match.end(), line)
    else:
        is_closed = True
    if not is_closed:
        raise UnclosedError(line)
    return match.end()


def _comment_end(text: str, place: int, line: int) -> int:
    depth = 1
    for edge in _BLOCK_EDGE.finditer(text, place):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    raise UnclosedError(line)
