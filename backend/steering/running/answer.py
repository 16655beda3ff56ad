"""A statement's answer, gathered while it runs and summed up afterwards.

Answers are compared by the number of their rows and a checksum that does not depend on the rows'
order: the sum, modulo 2^128, of a hash of each row. (An exclusive or would not see a row that is
there twice.) While the statement runs next to nothing is done in Python, so as not to slow it down.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

from backend.steering.statements.ties import CutTies

_MODULUS = 1 << 128
_BUFFER_BYTES = 1 << 20


class AnswerTooLargeError(Exception):
    """The answer has more bytes than are to be kept."""


class Answer:
    """The rows of a COPY ... TO STDOUT in text format, one line a row.

    Args:
        max_bytes: the most that is kept, give or take a megabyte.
    """

    def __init__(self, max_bytes: int) -> None:
        self._kept = _Kept(max_bytes)
        self.sink = io.BufferedWriter(self._kept, _BUFFER_BYTES)
        """The file that psycopg2 writes into; it raises AnswerTooLargeError."""

    def sum_up(self, ties: CutTies | None = None) -> tuple[int, str]:
        """Return the number of rows and their checksum, 32 hexadecimal digits.

        In COPY's text format line feeds and tabs inside a value are escaped, so lines are rows and
        tabs part columns.

        Args:
            ties: of the rows that LIMIT cut among equals only the sort key counts.

        Raises:
            AnswerTooLargeError: the last of it was too much.
        """
        self.sink.flush()
        answer = b"".join(self._kept.parts)
        cut = _cut_keys(answer, ties) if ties is not None else set()
        rows, total = 0, 0
        for line in io.BytesIO(answer):
            counted = line
            if cut and ties is not None and (key := _key(line, ties)) in cut:
                counted = b"\0".join(key)  # which no value holds
            total += int.from_bytes(hashlib.blake2b(counted, digest_size=16).digest(), "big")
            rows += 1
        return rows, f"{total % _MODULUS:032x}"


def _cut_keys(answer: bytes, ties: CutTies) -> set[tuple[bytes, ...]]:
    """The sort keys of the rows next to where the answer was cut."""
    keys = set()
    if answer and ties.has_offset:
        keys.add(_key(answer[: answer.index(b"\n")], ties))
    if answer and answer.count(b"\n") >= ties.limit:
        keys.add(_key(answer[answer.rfind(b"\n", 0, -1) + 1 :], ties))
    return keys


def _key(line: bytes, ties: CutTies) -> tuple[bytes, ...]:
    columns = line.rstrip(b"\n").split(b"\t")
    return (b"", *(columns[index] for index in ties.columns))


class _Kept(io.RawIOBase):
    """Keeps what is written, up to a bound."""

    def __init__(self, max_bytes: int) -> None:
        self.parts: list[bytes] = []
        self._bytes_left = max_bytes

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = len(data)
        if self._bytes_left < 0:
            return size  # it has been said; the buffer above empties itself once more at its end
        self._bytes_left -= size
        if self._bytes_left < 0:
            self.parts.clear()
            raise AnswerTooLargeError
        self.parts.append(bytes(data))
        return size
