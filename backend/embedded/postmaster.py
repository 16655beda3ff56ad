"""Which processes belong to a cluster: the postmaster of its pid file, and what a dead one left.

Pid file: https://www.postgresql.org/docs/current/storage-file-layout.html (postmaster.pid). Its
lines are: pid, data folder, start time, port, socket folder, listen address, shared memory key,
status.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from backend.embedded.files import read_text, telling, write_atomically
from backend.errors import EmbeddedServerError

# No kernel gives out a process id this high, and it still fits PostgreSQL's 32-bit integer.
_NOBODYS_PID = 2_147_483_646
_POLL_S = 0.01


@dataclass(frozen=True)
class PidFile:
    """What postmaster.pid says.

    Args:
        pid: the postmaster's process id.
        port: the TCP port; None while the file is not complete yet.
        status: 'starting', 'stopping', 'ready', 'standby' or '' (not written yet).
    """

    pid: int
    port: int | None
    status: str


def read_pid_file(cluster_dir: Path) -> PidFile | None:
    """Read postmaster.pid; None when there is none or its first line is no process id."""
    text = read_text(cluster_dir / "postmaster.pid")
    if text is None:
        return None
    lines = [line.strip() for line in text.splitlines()]
    if not lines or not lines[0].lstrip("-").isdigit():
        return None
    port = int(lines[3]) if len(lines) > 3 and lines[3].isdigit() else None
    return PidFile(abs(int(lines[0])), port, lines[7] if len(lines) > 7 else "")


def living_postmaster(cluster_dir: Path) -> PidFile | None:
    """Return the pid file's content when its process lives and really is this cluster's.

    A pid alone proves nothing, for it may have been given to another process meanwhile; the
    process must be a postgres that was started on this very folder.
    """
    found = read_pid_file(cluster_dir)
    if found is None:
        return None
    try:
        process = psutil.Process(found.pid)
        return found if _lives(process) and _serves(process.cmdline(), cluster_dir) else None
    except psutil.Error:
        return None


def disown_pid_file(cluster_dir: Path, owner: tuple[int, int]) -> bool:
    """Give a pid file whose process is not our postmaster a process id that nobody has.

    PostgreSQL refuses to start while the recorded process lives, whatever it is. The rest of the
    file stays, for by its shared memory key PostgreSQL notices backends that outlived the
    postmaster; deleting the file would throw that protection away.

    Returns whether there was such a file. The caller holds the lock and found no postmaster.
    """
    path = cluster_dir / "postmaster.pid"
    text = read_text(path, account_uid=owner[0])
    if text is None:
        return False
    with telling(f"cannot clear the stale pid file {path}"):
        if not text.splitlines() or not text.splitlines()[0].strip().isdigit():
            path.unlink()  # empty or torn: it holds no shared memory key either
        else:
            lines = text.splitlines(keepends=True)
            write_atomically(path, f"{_NOBODYS_PID}\n" + "".join(lines[1:]), owner=owner)
    return True


def cluster_name(server_dir: Path) -> str:
    """Return `cluster_name`: unique on the machine, and part of each backend's title."""
    return f"autopilot-{hashlib.sha256(os.fsencode(server_dir)).hexdigest()[:8]}"


def end_processes(server_dir: Path, *, wait_s: float) -> int:
    """End the server of this folder at once, and the backends that outlived a killed one.

    The postmaster is known by the folder it was started on (SIGQUIT: an immediate shutdown), a
    backend by its title, which carries the cluster's unique name (SIGTERM); both by their owner.
    What is left after half of `wait_s` gets SIGKILL.

    Returns how many processes there were.

    Raises:
        EmbeddedServerError: some of them live on.
    """
    found: dict[psutil.Process, signal.Signals] = {}
    title = f"postgres: {cluster_name(server_dir)}: "
    owner_uid = server_dir.stat().st_uid
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            cmdline = process.cmdline()
            if process.uids().real != owner_uid:
                continue
            if _serves(cmdline, server_dir / "cluster"):
                found[process] = signal.SIGQUIT
            elif " ".join(cmdline).startswith(title):
                found[process] = signal.SIGTERM
    alive = list(found)
    for sign in (None, signal.SIGKILL):
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.send_signal(sign or found[process])
        deadline = time.monotonic() + wait_s / 2
        while alive and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            alive = [process for process in alive if _lives(process)]
    if not alive:
        return len(found)
    raise EmbeddedServerError(
        f"processes {[process.pid for process in alive]} of {server_dir} cannot be ended",
        remedy="end them by hand as their owner or as root",
    )


def _lives(process: psutil.Process) -> bool:
    """Return whether it still runs; a zombie, which a slow init has yet to reap, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _serves(cmdline: list[str], cluster_dir: Path) -> bool:
    if len(cmdline) < 3 or os.path.basename(cmdline[0]) not in ("postgres", "postmaster"):
        return False
    return any(
        option == "-D" and value == str(cluster_dir)
        for option, value in itertools.pairwise(cmdline)
    )
