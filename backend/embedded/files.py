"""Small, careful file work: one lock between processes, atomic writes, errors that say more."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from backend.errors import EmbeddedServerError

_LOCK_POLL_S = 0.02


@contextlib.contextmanager
def telling(action: str) -> Iterator[None]:
    """Turn an OSError of the block into an EmbeddedServerError that names action and remedy."""
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(f"{action}: {error}", remedy=os_error_remedy(error)) from error


def os_error_remedy(error: OSError) -> str:
    """Return what a user can do about a failed file operation."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk (or the quota) is full: free some space, or choose another data folder"
    if error.errno == errno.EROFS:
        return "the file system is mounted read-only: choose another data folder"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this account may not do that here: choose a data folder that it owns"
    return "check the data folder's path, owner and free space"


def write_atomically(
    path: Path, text: str, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Replace a file's content so that a crash leaves either the old or the new, never a torn one.

    Args:
        path: the file; its folder must exist.
        text: the new content.
        mode: permission bits of the new file.
        owner: (uid, gid) for the new file; None leaves it ours.

    Raises:
        OSError: disk full, no permission.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_text(path: Path) -> str | None:
    """Return a file's content, None when there is no such file. Odd bytes survive a rewrite.

    Raises:
        EmbeddedServerError: it may not be read.
    """
    with telling(f"cannot read {path}"):
        try:
            return path.read_text(encoding="utf-8", errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return None


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def process_lock(path: Path, *, timeout_s: float) -> Iterator[int]:
    """Hold an exclusive lock between processes (and threads); yields its file descriptor.

    The lock is an flock: the kernel drops it when its holder dies. A child that inherits the
    descriptor keeps it held, which is meant for programs that must not overlap with a successor.

    Raises:
        EmbeddedServerError: the lock was not free within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        with telling(f"cannot open the lock file {path}"):
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            _wait_for_flock(descriptor, path, deadline)
            # A destroy() may have removed the file while we waited: then this lock guards nothing.
            if _is_same_file(descriptor, path):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _wait_for_flock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"another process holds the embedded server's lock {path} for too long",
                    remedy="wait until its start or stop ends, or end the process that hangs",
                ) from None
            time.sleep(_LOCK_POLL_S)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
