"""A statement's answer, gathered while it runs and summed up afterwards.

Answers are compared by the number of their rows and a checksum that does not depend on the rows'
order: the sum, modulo 2^128, of a hash of each row. (An exclusive or would not see a row that is
there twice.) While the statement runs nothing is computed, so as not to slow it down.
"""

from __future__ import annotations

import hashlib

_MODULUS = 1 << 128
_BYTES_OF_A_ROW_OBJECT = 48


class AnswerTooLargeError(Exception):
    """The answer has more bytes than are to be kept."""


class Answer:
    """A file that COPY ... TO STDOUT writes its rows into, one line a row.

    Args:
        max_bytes: the most memory that it may take, with what Python adds to each row.
    """

    def __init__(self, max_bytes: int) -> None:
        self._parts: list[bytes] = []
        self._bytes_left = max_bytes

    def write(self, data: bytes) -> int:
        """Keep some more of the answer.

        Raises:
            AnswerTooLargeError: this is more than is to be kept.
        """
        self._bytes_left -= len(data) + _BYTES_OF_A_ROW_OBJECT
        if self._bytes_left < 0:
            raise AnswerTooLargeError
        self._parts.append(data)
        return len(data)

    def sum_up(self) -> tuple[int, str]:
        """Return the number of rows and their checksum, 32 hexadecimal digits.

        In COPY's text format a line feed inside a value is escaped, so lines are rows.
        """
        rows, total = 0, 0
        for line in b"".join(self._parts).split(b"\n")[:-1]:
            digest = hashlib.blake2b(line, digest_size=16).digest()
            total += int.from_bytes(digest, "big")
            rows += 1
        return rows, f"{total % _MODULUS:032x}"
