"""Which processes belong to a cluster: the postmaster of its pid file, and what a dead one left.

Pid file: https://www.postgresql.org/docs/current/storage-file-layout.html (postmaster.pid). Its
lines are: pid, data folder, start time, port, socket folder, listen address, shared memory key,
status.
"""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil

from backend.embedded.files import read_text, telling, write_atomically

# No kernel gives out a process id this high, and it still fits PostgreSQL's 32-bit integer.
_NOBODYS_PID = 2_147_483_646
_TITLE_PREFIX = "postgres: "


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
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return found if _serves(process.cmdline(), cluster_dir) else None
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
    text = read_text(path)
    if text is None:
        return False
    with telling(f"cannot clear the stale pid file {path}"):
        if not text.splitlines() or not text.splitlines()[0].strip().isdigit():
            path.unlink()  # empty or torn: it holds no shared memory key either
        else:
            lines = text.splitlines(keepends=True)
            write_atomically(path, f"{_NOBODYS_PID}\n" + "".join(lines[1:]), owner=owner)
    return True


def end_leftovers(cluster_dir: Path, cluster_name: str, owner_uid: int, *, wait_s: float) -> int:
    """End backends that outlived their postmaster; SIGTERM first, SIGKILL after half of `wait_s`.

    They are known by their title, which carries the cluster's unique name, and by their owner.

    Returns how many there were.
    """
    leftovers = []
    for process in psutil.process_iter():
        try:
            cmdline = process.cmdline()
            if process.uids().real != owner_uid or not cmdline:
                continue
            title = " ".join(cmdline)
            backend = title.startswith(f"{_TITLE_PREFIX}{cluster_name}: ")
            if backend or _serves(cmdline, cluster_dir):
                leftovers.append(process)
        except psutil.Error:
            continue
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in leftovers:
            try:
                process.send_signal(sign)
            except psutil.Error:
                continue
        _, alive = psutil.wait_procs(leftovers, timeout=wait_s / 2)
        if not alive:
            break
    return len(leftovers)


def _serves(cmdline: list[str], cluster_dir: Path) -> bool:
    if len(cmdline) < 3 or os.path.basename(cmdline[0]) not in ("postgres", "postmaster"):
        return False
    return any(
        option == "-D" and value == str(cluster_dir)
        for option, value in itertools.pairwise(cmdline)
    )
