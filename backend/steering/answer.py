"""A statement's answer, gathered while it runs and summed up afterwards.

Answers are compared by the number of their rows and a checksum that does not depend on the rows'
order: the sum, modulo 2^128, of a hash of each row. (An exclusive or would not see a row that is
there twice.) While the statement runs next to nothing is done in Python, so as not to slow it down.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

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

    def sum_up(self) -> tuple[int, str]:
        """Return the number of rows and their checksum, 32 hexadecimal digits.

        In COPY's text format a line feed inside a value is escaped, so lines are rows.

        Raises:
            AnswerTooLargeError: the last of it was too much.
        """
        self.sink.flush()
        rows, total = 0, 0
        for line in io.BytesIO(b"".join(self._kept.parts)):
            total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
            rows += 1
        return rows, f"{total % _MODULUS:032x}"


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
