"""The account that owns the cluster and runs the server's programs.

PostgreSQL refuses to run as root (https://www.postgresql.org/docs/current/postgres-user.html).
When we are root the server therefore runs as an unprivileged account of the machine; otherwise it
runs as the account that we are.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backend.errors import EmbeddedServerError

_PREFERRED_ACCOUNTS = ("postgres", "nobody")
_FIRST_PERSON_UID = 1000  # accounts of people begin here; the server is never run as one of them


@dataclass(frozen=True)
class ServerAccount:
    """A Unix account and how to run a program under it.

    Args:
        name: the account's name in the password database.
        uid: its user id, never 0.
        gid: its primary group's id.
        switch: whether programs must change to it first (true when we are root).
    """

    name: str
    uid: int
    gid: int
    switch: bool
    environment: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout_s: float,
        stdin_text: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a program under this account, in a session of its own, and return what it said.

        The environment is a fresh one: the server must inherit neither our secrets nor the PG*
        variables of the caller's shell.

        Raises:
            EmbeddedServerError: the program could not be started, or passed `timeout_s`.
        """
        program = " ".join(str(part) for part in argv[:1])
        environment = {"PATH": os.defpath, "LC_ALL": "C", **self.environment}
        try:
            return subprocess.run(
                [str(part) for part in argv],
                cwd="/",
                env=environment,
                input=stdin_text if stdin_text is not None else "",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                umask=0o077,
                start_new_session=True,
                pass_fds=tuple(pass_fds),
                user=self.uid if self.switch else None,
                group=self.gid if self.switch else None,
                extra_groups=[] if self.switch else None,
            )
        except subprocess.TimeoutExpired as error:
            raise EmbeddedServerError(
                f"{program} did not end within {timeout_s:.0f} s",
                remedy="look at the server's log and at the machine's load, then try again",
            ) from error
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(
                f"{program} could not be run as account {self.name!r} (uid {self.uid}): {error}",
                remedy="as root this needs the right to change accounts (CAP_SETUID, CAP_SETGID); "
                "otherwise run as an ordinary account",
            ) from error

    def why_not_writable(self, folder: Path) -> str | None:
        """Return why this account cannot make files in `folder`, or None when it can.

        Tried out by the account itself, since mode bits alone know nothing of access lists,
        read-only mounts or network file systems.
        """
        script = 'umask 077 && : > "$1/.reach" && rm -f "$1/.reach" && [ -O "$1" ]'
        result = self.run(["/bin/sh", "-c", script, "sh", folder], timeout_s=30)
        if result.returncode == 0:
            return None
        return result.stderr.strip() or f"{folder} is not owned by {self.name!r}"


def choose_account(owner_uid: int | None = None) -> ServerAccount:
    """Choose the account for a cluster, that of its owner where it exists already.

    Args:
        owner_uid: who owns the existing cluster; None when there is none yet.

    Raises:
        EmbeddedServerError: no unprivileged account exists, or the cluster is somebody else's.
    """
    own_uid = os.geteuid()
    if own_uid != 0:
        if owner_uid is not None and owner_uid != own_uid:
            raise EmbeddedServerError(
                f"the embedded cluster belongs to uid {owner_uid}, this process runs as "
                f"uid {own_uid}",
                remedy="run as the account that made it (as root if root did), or choose another "
                "data folder",
            )
        return _account_of(own_uid, switch=False)
    if owner_uid is not None:
        if owner_uid == 0:
            raise EmbeddedServerError(
                "the embedded cluster belongs to root, under which PostgreSQL refuses to run",
                remedy="give its folder to an unprivileged account with chown -R, or remove it",
            )
        return _account_of(owner_uid, switch=True)
    entry = pick_unprivileged(pwd.getpwall())
    if entry is None:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and this machine has no unprivileged account "
            "to run it under (looked for postgres, nobody and other system accounts)",
            remedy="add one, for example: useradd --system --no-create-home postgres",
        )
    account = ServerAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
    account.run(["/bin/sh", "-c", ":"], timeout_s=30)  # may we become that account at all?
    return account


def pick_unprivileged(entries: Sequence[pwd.struct_passwd]) -> pwd.struct_passwd | None:
    """Return the best account for a server started by root: postgres, nobody, another system one.

    Accounts whose primary group is root's come last: the files of root's group stay closed to the
    server as long as there is any other choice.
    """

    def rank(entry: pwd.struct_passwd) -> tuple[bool, int, int]:
        names = _PREFERRED_ACCOUNTS
        place = names.index(entry.pw_name) if entry.pw_name in names else len(names)
        return (entry.pw_gid == 0, place, entry.pw_uid)

    system = [
        entry
        for entry in entries
        if entry.pw_name in _PREFERRED_ACCOUNTS or entry.pw_uid < _FIRST_PERSON_UID
    ]
    return min((entry for entry in system if entry.pw_uid != 0), key=rank, default=None)


def _account_of(uid: int, *, switch: bool) -> ServerAccount:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise EmbeddedServerError(
            f"uid {uid} has no entry in the password database, and PostgreSQL insists on one",
            remedy=f"add it, for example: useradd --uid {uid} --no-create-home autopilot",
        ) from error
    return ServerAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=switch)
