"""Small, careful file work: one lock between processes, atomic writes, errors that say more."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
        owner: (uid, gid) for the new file, whose the folder must be; None leaves the file ours.

    Raises:
        OSError: disk full, no permission, or the folder is not the owner's.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if owner is not None:
            _check_owner(path.parent, folder, owner[0])
        _replace_in(folder, path.name, text, mode, owner)
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace_in(
    folder: int, name: str, text: str, mode: int, owner: tuple[int, int] | None
) -> None:
    temporary = f".{name}.{secrets.token_hex(4)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, mode, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise


def read_text(path: Path, *, account_uid: int | None = None) -> str | None:
    """Return a file's content, None when there is no such file. Odd bytes survive a rewrite.

    Args:
        path: the file.
        account_uid: whose folder it must be in, and be no link there; None: it is a file of ours.

    Raises:
        EmbeddedServerError: it may not be read, or is a trap.
    """
    with telling(f"cannot read {path}"):
        try:
            if account_uid is None:
                return path.read_text(encoding="utf-8", errors="surrogateescape")
            with open_of_account(path, account_uid) as stream:
                return stream.read().decode(errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return None


def open_of_account(path: Path, uid: int) -> BinaryIO:
    """Open a file in a folder of the server's account for reading.

    As root we could be led to a file that is not for others by a link that the account put there.

    Raises:
        OSError: it cannot be opened, or is no plain file in such a folder.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check_owner(path.parent, folder, uid)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        stream = os.fdopen(os.open(path.name, flags, dir_fd=folder), "rb")
    finally:
        os.close(folder)
    status = os.fstat(stream.fileno())
    own = status.st_uid == uid or status.st_nlink == 1
    if not (stat.S_ISREG(status.st_mode) and own):
        stream.close()
        raise PermissionError(f"{path} is not a plain file of the server's account")
    return stream


def _check_owner(folder: Path, descriptor: int, uid: int) -> None:
    """Refuse a folder that is not the server's account's: a link of its may have led us there.

    Whoever may use COPY TO PROGRAM in the server has the account's rights, and not ours.
    """
    found = os.fstat(descriptor).st_uid
    if found != uid:
        raise PermissionError(f"{folder} belongs to uid {found}, not to the server's uid {uid}")


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
