"""The whole product as a user starts it: real processes, a real server, a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import yaml

from backend.config import load_settings
from backend.domain.records import ChangeRecord
from backend.embedded import autoconf
from backend.embedded.place import free_port
from backend.errors import EmbeddedServerError, StoreError
from backend.run_options import ENVIRONMENT_KEY
from backend.servers import embedded_server
from backend.telemetry import SqlStore, open_store
from tests.waiting import eventually

REPOSITORY = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 120.0
"""Generous: the machine may be busy with other tests."""
CHILDREN = ("dashboard", "watchdog", "workload", "tuner")


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment without what would reach into the product's settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTOPILOT_", "PG")) and name != "DATABASE_URL"
    }
    return {**kept, **extra}


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that the server's account can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="autopilot-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class ServerState:
    """What the server runs with: pg_settings, and the entries of postgresql.auto.conf."""

    settings: Mapping[str, str]
    entries: Mapping[str, str]

    def differences(self, other: ServerState) -> dict[str, tuple[object, object]]:
        """Name → (here, there) of everything that is not the same."""
        found: dict[str, tuple[object, object]] = {}
        for mine, theirs, mark in (
            (self.settings, other.settings, ""),
            (self.entries, other.entries, " (postgresql.auto.conf)"),
        ):
            for name in sorted(mine.keys() | theirs.keys()):
                if mine.get(name) != theirs.get(name):
                    found[name + mark] = (mine.get(name), theirs.get(name))
        return found


@dataclass(frozen=True)
class Candidate:
    """A candidate that stands on the server: what stood before, and the journal's open changes."""

    last_good: ServerState
    changes: Sequence[ChangeRecord]

    @property
    def epoch(self) -> int:
        """The epoch of the tuner that put it there."""
        return self.changes[0].epoch


class RunningProduct:
    """``python run.py`` in a data folder of its own.

    Args:
        data_dir: everything is written there; may hold an earlier run's data.
        sections: settings that replace those of a quick small run, by section.
    """

    def __init__(self, data_dir: Path, **sections: Any) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._store: SqlStore | None = None
        self._configure(sections)
        paths = {"paths": {"data_dir": str(data_dir)}}
        self.server = embedded_server(load_settings(self.config_path, overrides=paths, environ={}))

    def _configure(self, sections: Mapping[str, Any]) -> None:
        settings: dict[str, Any] = {
            "workload": {"data_scale_factor": 0.02},
            "level1": {"window_s": 2, "settle_s": 0.5, "baseline_s": 10},
            "telemetry": {"collection_interval": 1},
            "dashboard": {"port": self.port},
            # A busy machine must not keep the tuner from trying.
            "safety": {"cpu_limit_percent": 100, "memory_limit_percent": 100},
        }
        for name, section in sections.items():
            settings[name] = (
                {**settings.get(name, {}), **section} if isinstance(section, Mapping) else section
            )
        self.config_path = self.data_dir / "config.yaml"
        self.config_path.write_text(yaml.safe_dump(settings), encoding="utf-8")

    # -- life ---------------------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        """The command line of ``run.py`` on this folder; the command comes first."""
        name, rest = arguments[:1], arguments[1:]
        places = ["--data-dir", str(self.data_dir), "--config", str(self.config_path)]
        return [sys.executable, str(REPOSITORY / "run.py"), *name, *places, *rest]

    def start(self, *arguments: str) -> RunningProduct:
        """Start it; what it prints goes to ``console.log`` in the data folder."""
        with (self.data_dir / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [*self.command(), *arguments],
                cwd=REPOSITORY,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def supervisor(self) -> psutil.Process:
        """The first process."""
        assert self._process is not None, "call start() first"
        return psutil.Process(self._process.pid)

    def wait_for_exit(self, timeout_s: float) -> int:
        """The exit code of the first process."""
        assert self._process is not None, "call start() first"
        return self._process.wait(timeout_s)

    def child(self, name: str) -> psutil.Process | None:
        """The living process of this run with this name."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-2:] == ["process", name]:
                    return process
        return None

    def wait_for_child(self, name: str, other_than: int | None = None) -> psutil.Process:
        """The process of this name, once there is one (with another pid)."""

        def look() -> psutil.Process | None:
            found = self.child(name)
            return None if found is None or found.pid == other_than else found

        return eventually(look, f"a {name} process", START_TIMEOUT_S)

    def processes(self) -> list[psutil.Process]:
        """All living processes of the product, those included that lost their parent."""
        found = [] if self._process is None else [process_of(self._process.pid)]
        found += [p for p in psutil.process_iter() if self._is_child(p)]
        return [process for process in found if process is not None and lives(process)]

    def _is_child(self, process: psutil.Process) -> bool:
        try:
            if process.cmdline()[-2:-1] != ["process"]:
                return False
            options = process.environ().get(ENVIRONMENT_KEY, "")
        except psutil.Error:
            return False
        return json.dumps(str(self.config_path)) in options

    def server_processes(self) -> list[psutil.Process]:
        """The embedded server's postmaster with its children."""
        pid_file = self.server.cluster_dir / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
            return [postmaster, *postmaster.children(recursive=True)]
        return []

    def kill_everything(self) -> None:
        """``kill -9`` of all processes at once, the server's included."""
        doomed = [*self.processes(), *self.server_processes()]
        for process in doomed:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert self._process is not None
        self._process.wait(10)
        psutil.wait_procs(doomed, timeout=10)

    def end(self) -> None:
        """Leave nothing behind: processes, server, handles. For the end of a test."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self._process is not None:
            self._process.wait(10)
        if self._store is not None:
            self._store.close()
            self._store = None
        with contextlib.suppress(EmbeddedServerError):
            self.server.stop("immediate")

    def story(self) -> str:
        """What happened, for the reader of a failed test: status, events, the logs' last lines."""
        lines = [f"status: {self.store.status()}"]
        lines += [f"{e.at:%H:%M:%S} {e.level} {e.kind}: {e.message}" for e in self.store.events()]
        for path in (self.data_dir / "console.log", self.data_dir / "logs" / "optimizer.log"):
            if path.exists():
                lines += [f"-- {path.name}", *path.read_text("utf-8").splitlines()[-40:]]
        return "\n".join(lines)

    # -- what it does -------------------------------------------------------------------------

    @property
    def store(self) -> SqlStore:
        """The run's store, for reading."""
        if self._store is None:
            self._store = eventually(self._open_store, "a store", START_TIMEOUT_S)
        return self._store

    def _open_store(self) -> SqlStore | None:
        with contextlib.suppress(StoreError):
            return open_store(f"sqlite:///{self.data_dir / 'telemetry.db'}", read_only=True)
        return None

    def get(self, path: str) -> tuple[int, bytes]:
        """GET of a page; (0, b"") when nobody answers."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return response.status, response.read()
        except OSError:
            return 0, b""

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a statement, on a connection of its own: it sees the newest reload."""
        url = self.server.dsn(application_name="test")
        connection = psycopg2.connect(
            host=url.host, port=url.port, user=url.username, password=url.password,
            dbname=url.database, application_name="test", connect_timeout=10,
        )  # fmt: skip
        # A transaction that is not committed counts as a failed one; the tuner would rest.
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall()
        finally:
            connection.close()

    def server_state(self) -> ServerState:
        """What stands on the server now."""
        text = (self.server.cluster_dir / "postgresql.auto.conf").read_text(encoding="utf-8")
        rows = self.query("SELECT name, setting FROM pg_settings")
        return ServerState(dict(rows), autoconf.entries(text))

    def try_server_state(self) -> ServerState | None:
        """The same, None while the server does not answer."""
        with contextlib.suppress(psycopg2.Error, OSError, EmbeddedServerError):
            return self.server_state()
        return None

    def last_good(self) -> ServerState | None:
        """What stands on the server when no change is open; None while one is."""
        newest = [row.id for row in self.store.changes(limit=1)]
        if self.store.open_changes():
            return None
        state = self.try_server_state()
        same = newest == [row.id for row in self.store.changes(limit=1)]
        return state if same and not self.store.open_changes() else None

    def wait_for_candidate(self) -> Candidate:
        """Wait until a trial's candidate stands on the server, and stop the tuner right there.

        The tuner is left stopped (SIGSTOP), so that the candidate cannot leave before the test
        has done with the tuner what it wants to do.
        """
        good: ServerState | None = None

        def look() -> Candidate | None:
            nonlocal good
            good = self.last_good() or good
            tuner = self.child("tuner")
            if good is None or tuner is None or not self._stands(good):
                return None
            tuner.suspend()
            # Stopped with the candidate on, or just too late: only the first counts.
            if changes := self._stands(good):
                return Candidate(good, changes)
            tuner.resume()
            return None

        return eventually(look, "a candidate on the server", START_TIMEOUT_S, poll_s=0.05)

    def _stands(self, good: ServerState) -> Sequence[ChangeRecord]:
        changes = self.store.open_changes()
        state = self.try_server_state() if changes else None
        applied = state is not None and good.entries != state.entries != {}
        if not applied or state is None or state.settings == good.settings:
            return ()
        return changes

    def stands_again(self, good: ServerState) -> bool:
        """Whether the server, its file and the journal are back at ``good``."""
        state = self.try_server_state()
        return state is not None and not state.differences(good) and not self.store.open_changes()


def process_of(pid: int) -> psutil.Process | None:
    """The process with this pid, None when there is none."""
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def lives(process: psutil.Process) -> bool:
    """Whether it runs; a dead one that nobody has waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal; the process must be there."""
    os.kill(process.pid, number)
