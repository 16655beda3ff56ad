"""One statement on its way into the book of samples: is it a query that could be steered?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from pglast import parser

from backend.domain.steering import ClassKey, StatementSample
from backend.steering.client.messages import TAG
from backend.steering.client.statements import (
    HINT_COMMENT,
    MAX_TEXT_LENGTH,
    MAY_SELECT,
    fingerprint,
    functions_called,
)

_CONSTANTS = frozenset({"SCONST", "USCONST", "BCONST", "XCONST", "FCONST"})
_COMMENTS = frozenset({"C_COMMENT", "SQL_COMMENT"})


class NotASampleError(Exception):
    """The text is no statement for the explorer; the message says why, without any of the text."""


@dataclass(frozen=True)
class ClassUse:
    """How much a class was executed.

    Args:
        key: the class.
        executions: how often.
        timed: of how many of these the time is known, and ``total_s``: their seconds together.
        until: when the last of them was.
    """

    key: ClassKey
    executions: int
    timed: int
    total_s: float
    until: datetime


@dataclass
class Gathered:
    """What a source had to give.

    Args:
        samples: the oldest first.
        uses: of the classes.
        skipped: why something was left out, and how often; nothing of the statements is in it.
        first_places: where that was for the first time, as far as there are places.
    """

    samples: list[StatementSample] = field(default_factory=list)
    uses: list[ClassUse] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    first_places: dict[str, str] = field(default_factory=dict)

    def skip(self, why: str, place: str = "") -> None:
        """Count something that was left out."""
        self.skipped[why] += 1
        if place:
            self.first_places.setdefault(why, place)

    def left_out(self) -> str:
        """What was left out, for people: ``2 not a plain query (first in shop.sql, line 7)``."""
        parts = []
        for why, count in self.skipped.most_common():
            place = self.first_places.get(why)
            parts.append(f"{count} {why}" + (f" (first in {place})" if place else ""))
        return ", ".join(parts)


def refuse_unread(text: str) -> None:
    """Look at what needs no parser.

    Raises:
        NotASampleError: this is no query, or none that the plug-in would steer.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise NotASampleError(f"longer than {MAX_TEXT_LENGTH} characters")
    if "\0" in text:
        raise NotASampleError("with a NUL character")
    if TAG in text:
        raise NotASampleError("the autopilot's own")
    if HINT_COMMENT in text:
        raise NotASampleError("with a hint comment")
    if MAY_SELECT.match(text) is None:
        raise NotASampleError("not a plain query")


def plain_query(text: str) -> str:
    """The one query of a text, without semicolon and comments.

    Raises:
        NotASampleError: it is none, or none that the plug-in would steer.
    """
    refuse_unread(text)
    try:
        statements = parser.split(_without_comments(text), with_parser=False)
        if len(statements) != 1:
            raise NotASampleError("not one statement" if statements else "empty")
        if any(token.name == "PARAM" for token in parser.scan(statements[0])):
            raise NotASampleError("with parameters whose values are not known")
        functions = functions_called(statements[0])
    except NotASampleError:
        raise
    except Exception:  # whatever the parser, its JSON or its nesting does not bear
        raise NotASampleError("not readable as SQL") from None
    if functions is None:
        raise NotASampleError("not a plain query")
    return str(statements[0])


def sample_of(text: str, search_path: str, seen_at: datetime, source: str) -> StatementSample:
    """A sample of a text, with the class that the plug-in would see in it.

    Args:
        text: SQL with literals.
        search_path: under which it runs, as ``SHOW search_path`` prints it.
        seen_at, source: see `StatementSample`.

    Raises:
        NotASampleError: it is no query, or none that the plug-in would steer.
    """
    query = plain_query(text)
    return StatementSample(ClassKey(fingerprint(query), search_path), query, seen_at, source)


def without_literals(query: str) -> str:
    """A query with ``$n`` for its constants and without comments, to be shown to people.

    Args:
        query: one that `plain_query` let pass.

    Raises:
        pglast.Error: it is not SQL.
    """
    normal = str(parser.normalize(_without_comments(query)))
    tokens = parser.scan(normal)
    number = max(
        (int(normal[t.start + 1 : t.end + 1]) for t in tokens if t.name == "PARAM"), default=0
    )
    # Some constants are no expressions to the grammar, such as the paths of JSON_TABLE's columns.
    left = [token for token in tokens if token.name in _CONSTANTS]
    for offset, token in reversed(list(enumerate(left, number + 1))):
        normal = f"{normal[: token.start]}${offset}{normal[token.end + 1 :]}"
    return normal


def _without_comments(text: str) -> str:
    """The text, with a space for each comment.

    Raises:
        pglast.Error: it is not SQL.
    """
    for token in reversed(parser.scan(text)):
        if token.name in _COMMENTS:
            text = f"{text[: token.start]} {text[token.end + 1 :]}"
    return text.strip()
