"""The processes of a run: started in order, watched, started again, ended together.

The dashboard comes first, so that the page answers while the database is still being made. The
processes share only the store and the server; each ends by itself when the supervisor is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from types import FrameType

from backend.config import Settings
from backend.domain.modes import Phase
from backend.domain.records import EventRecord, StatusRecord
from backend.embedded_postgres import EmbeddedPostgres
from backend.errors import AutopilotError
from backend.heartbeat import HUNG_S, Pulse
from backend.protocols import Store
from backend.run_options import RunOptions
from backend.servers import demo_store, embedded_server
from backend.workload.runner import WorkloadSettings

log = logging.getLogger(__name__)

FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 30.0
STEADY_S = 60.0
"""A process that ran this long starts with a fresh back-off when it ends."""
AT_ONCE_S = 10.0
MAX_AT_ONCE = 3
"""A process of :data:`NEEDS_NOBODY` that exits this often in a row, each time this soon after its
start, is not started again."""
NEEDS_NOBODY = ("workload",)
"""What makes these exit at once does not pass by itself; the others may miss a server or a store
that comes back."""
WATCHED = ("watchdog",)
"""Nobody else notices when it hangs; a hung tuner is the watchdog's."""
EVOLUTION = "evolution"
"""The process that runs when it is due, and not otherwise."""
STOP_TIMEOUT_S = 20.0
LOG_S = 600.0
"""Between two looks at the embedded server's log."""
READY = "running"
"""The last step told: everything has been started."""
Progress = Callable[[str, float], None]


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    backoff_s: float = FIRST_BACKOFF_S
    restart_at_s: float | None = None
    exits_at_once: int = 0
    pulse: Pulse | None = None


class Supervisor:
    """Runs the product's processes.

    Args:
        settings: of this run.
        options: handed on to the processes.
        store: the supervisor's own handle, for events and the status of the preparation.
        commands: process name → command line; order is the order of starting.
        on_progress: told of the preparation's steps, (text, share done).
        evolution_due: whether the process of that name is to be started now; asked often.

    Raises:
        WorkloadError: the settings ask for a demo workload that there cannot be.
    """

    def __init__(
        self,
        settings: Settings,
        options: RunOptions,
        store: Store,
        commands: Mapping[str, Sequence[str]],
        on_progress: Progress,
        evolution_due: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings, self._store = settings, store
        self._options = replace(options, supervisor_pid=os.getpid())
        self._children = {name: _Child(name, command) for name, command in commands.items()}
        self._on_progress, self._evolution_due = on_progress, evolution_due
        self._stopping = threading.Event()
        self._log_due_s = time.monotonic() + LOG_S
        self._embedded = embedded_server(settings) if settings.is_embedded else None
        if settings.is_embedded:
            # What its process would refuse is told before anything has been started.
            WorkloadSettings.of(settings.workload, options.time_scale).schedule()

    def run(self) -> int:
        """Run until told to stop, or until the tuner has finished; returns an exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        try:
            if "dashboard" in self._children:
                self._start("dashboard")
            if self._embedded is not None:
                self._prepare(self._embedded)
            self._options = replace(self._options, begun_at=time.time())
            for name in self._children:
                if name not in ("dashboard", EVOLUTION) and not self._stopping.is_set():
                    self._start(name)
            self._on_progress(READY, 1.0)
            return self._watch()
        finally:
            self._stop_all()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping.set()

    # -- the embedded server and its data -----------------------------------------------------

    def _prepare(self, server: EmbeddedPostgres) -> None:
        """Start the server and load the demo store, with progress on page and console."""
        self._tell("starting PostgreSQL", 0.0)
        server.ensure_started()
        demo = demo_store(self._settings, server)
        if demo.is_loaded():
            self._tell("the demo store is loaded", 1.0)
            return
        demo.load(lambda step, done, total: self._tell(f"loading {step}", done / max(total, 1)))

    def _tell(self, activity: str, progress: float) -> None:
        if self._stopping.is_set():
            raise KeyboardInterrupt
        self._on_progress(activity, progress)
        last = self._store.status()
        self._store.save_status(
            StatusRecord(
                at=datetime.now(timezone.utc),
                mode=self._settings.effective_mode,
                phase=Phase.STARTING,
                # The operator's switches stand until they are lifted, over restarts of the product.
                paused=last.paused if last else False,
                frozen=last.frozen if last else False,
                activity=activity,
                progress=progress,
                workload=self._settings.workload.name if self._settings.is_embedded else "",
                fast_mode=self._options.fast_mode,
            )
        )

    # -- the processes ------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        child = self._children[name]
        if child.pulse is not None:
            child.pulse.close()
        child.pulse = Pulse() if name in WATCHED else None
        given = [child.pulse.writing_end] if child.pulse else []
        options = replace(self._options, heartbeat=given[0] if given else None)
        # A session of its own: Ctrl-C reaches the supervisor alone, which ends them in order.
        child.process = subprocess.Popen(
            list(child.command),
            env=options.to_environment(),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=given,
        )
        if child.pulse is not None:
            child.pulse.given()
        child.started_s = time.monotonic()
        child.restart_at_s = None

    def _watch(self) -> int:
        while not self._stopping.wait(0.2):
            self._bound_log()
            for child in self._children.values():
                code = child.process.poll() if child.process else None
                if child.name == EVOLUTION:
                    self._watch_evolution(child, code)
                elif child.restart_at_s is not None:
                    if time.monotonic() >= child.restart_at_s:
                        self._start(child.name)
                elif code is not None:
                    if child.name == "tuner" and code == 0:
                        return 0
                    self._plan_restart(child, code)
                else:
                    self._kill_hung(child)
        return 0

    def _kill_hung(self, child: _Child) -> None:
        """End what lives and does nothing: then it is started again as one that died."""
        if child.process is None or child.pulse is None or not child.pulse.is_silent():
            return
        child.process.kill()
        child.pulse.close()
        child.pulse = None
        told = f"the {child.name} process gave no sign of life for {HUNG_S:g} s; it was killed"
        self._event("error", "process_hung", told)

    def _bound_log(self) -> None:
        """Keep the log of the embedded server small, which never does that itself."""
        if self._embedded is None or time.monotonic() < self._log_due_s:
            return
        self._log_due_s = time.monotonic() + LOG_S
        try:
            self._embedded.bound_log()
        except AutopilotError as error:
            log.warning("the server's log: %s", error.message)

    def _watch_evolution(self, child: _Child, code: int | None) -> None:
        """Start it when it is due; one that was killed is due again."""
        if child.process is None:
            if self._evolution_due():
                self._start(child.name)
        elif code is not None:
            child.process = None
            if code != 0:
                told = f"the {child.name} process ended ({_told(code)}); it goes on later"
                self._event("error", "process_died", told)

    def _plan_restart(self, child: _Child, code: int) -> None:
        now_s = time.monotonic()
        lived_s = now_s - child.started_s
        if lived_s > STEADY_S:
            child.backoff_s = FIRST_BACKOFF_S
        # Who was killed did not exit: that says nothing about the next start.
        child.exits_at_once = child.exits_at_once + 1 if code >= 0 and lived_s < AT_ONCE_S else 0
        if child.name in NEEDS_NOBODY and child.exits_at_once >= MAX_AT_ONCE:
            self._give_up(child, code)
            return
        self._event(
            "error",
            "process_died",
            f"the {child.name} process ended ({_told(code)}); "
            f"started again in {child.backoff_s:.1f} s",
        )
        child.restart_at_s = now_s + child.backoff_s
        child.backoff_s = min(child.backoff_s * 2, LAST_BACKOFF_S)

    def _give_up(self, child: _Child, code: int) -> None:
        child.process = None
        self._event(
            "error",
            "process_given_up",
            f"the {child.name} process ended {MAX_AT_ONCE} times in a row just after its start "
            f"({_told(code)}) and is not started again; see errors.log in "
            f"{self._settings.paths.logs_dir}, remove the cause and start everything anew",
        )

    def _stop_all(self) -> None:
        # A kill costs an evolution no more than a polite end, which may take long beside others.
        evolution = self._children.get(EVOLUTION)
        if evolution is not None and evolution.process is not None:
            evolution.process.kill()
            evolution.process.wait()
        # The tuner first, so that it takes its candidate off while all others still live; the
        # watchdog last, in case the tuner cannot.
        for name in ("tuner", "workload", "dashboard", "watchdog"):
            child = self._children.get(name)
            if child is not None and child.process is not None:
                _end(child.process)
        if self._embedded is not None and self._embedded.is_running():
            self._embedded.stop()

    def _event(self, level: str, kind: str, message: str) -> None:
        log.log(logging.getLevelName(level.upper()), message)
        try:
            self._store.add_event(EventRecord(datetime.now(timezone.utc), level, kind, message))
        except AutopilotError as error:
            # A store that a hung process holds is the watchdog's trouble, not the end of the run.
            log.warning("the event could not be stored: %s", error.message)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _told(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def stop_event_for_child(parent_pid: int) -> threading.Event:
    """An event that is set on SIGTERM, SIGINT, or when the parent, the supervisor, is gone."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)

    def watch_parent() -> None:
        while not stop.wait(1.0):
            if os.getppid() != parent_pid:
                log.warning("the supervisor is gone; this process ends")
                stop.set()

    threading.Thread(target=watch_parent, name="watch-parent", daemon=True).start()
    return stop
