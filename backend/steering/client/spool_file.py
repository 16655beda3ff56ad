"""A bounded file of lines that many processes append to and one reader takes away.

Each append is one write to a file opened for appending; the reader renames the file first and reads
it the next time, when nobody can still be appending to it. The folder may be shared with others, so
what stands where the file should be is looked at before it is used.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PRIVATE = 0o600
SHARED = 0o660

_NO_TRAPS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Neither a symbolic link is followed, nor a pipe waited for."""


def append(path: Path, data: bytes, *, max_bytes: int, mode: int) -> None:
    """Append whole lines.

    Args:
        path: the file; made when it is not there.
        data: the lines, each with its end.
        max_bytes: a longer file is not written to.
        mode: the file's permissions: `PRIVATE` or `SHARED` (less the process's umask).

    Raises:
        OSError: the file cannot be written, is full, is no file, or is private but open to others.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_TRAPS, mode)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a file")
        if mode == PRIVATE and (status.st_mode & 0o077 or status.st_uid != os.geteuid()):
            raise OSError(f"{path} is open to others; remove it, or name another file")
        if status.st_size + len(data) > max_bytes:
            raise OSError(f"{path} is full ({max_bytes} bytes); does nobody read?")
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def take(path: Path, read: Callable[[Any], T], *, max_bytes: int) -> tuple[list[T], int]:
    """Take the lines that were there when this was called last, for the one reader of a file.

    A reader that dies in between finds them again.

    Args:
        path: as the writers name it.
        read: makes something of a line's JSON; raises ValueError, KeyError or TypeError where that
            is none of ours.
        max_bytes: whoever writes past it is not one of ours; the rest is thrown away.

    Returns:
        what the lines were, the oldest first, and the number of those that were nothing.

    Raises:
        OSError: the folder cannot be read or written.
    """
    taken = path.with_name(f"{path.name}.taken")
    lines = _read(taken, max_bytes).splitlines() if os.path.lexists(taken) else []
    taken.unlink(missing_ok=True)
    if os.path.lexists(path):
        path.rename(taken)
    found: list[T] = []
    broken = 0
    for line in lines:
        try:
            found.append(read(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError):
            broken += 1
    return found, broken


def _read(path: Path, max_bytes: int) -> bytes:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return b""
    with os.fdopen(os.open(path, os.O_RDONLY | _NO_TRAPS), "rb") as file:
        return file.read(max_bytes)
