"""What the processes of the catalogue do: a tuner by a script, a watchdog, a tuner with trials.

Journal, lease, adjuster, deployment and watchdog are the product's own; only what is tried comes
from a script instead of an agent. Started by ``World`` through a fork server that has imported
this module, so that a life begins within milliseconds.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from backend.catalog import load_catalog
from backend.components import Components, build_components
from backend.config import PathSettings, Settings, load_settings
from backend.db_connector import DatabaseConnector
from backend.domain import clock
from backend.domain.clock import SystemClock
from backend.domain.knobs import KnobValue
from backend.domain.server import HostFacts
from backend.errors import AutopilotError, LockNotAvailableError, StaleEpochError
from backend.heartbeat import HUNG_S
from backend.lease import LEASE_TTL_S, TunerLease
from backend.orchestrator import SystemOrchestrator
from backend.parameter_adjuster import ParameterAdjuster
from backend.processes.watchdog import watchdog
from backend.processes.workload import workload
from backend.run_options import RunOptions
from backend.servers import embedded_server, postgres_target
from backend.supervisor import Supervisor
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import journal, open_store
from benchmarks.harness.scripted import Proposes
from tests.running_product import REPOSITORY

T = TypeVar("T")
log = logging.getLogger(__name__)

STOP = signal.SIGSTOP
FAILED = 3
"""Exit code of a tuner that could not do what it wanted, or may not act any more."""
CANDIDATE: Mapping[str, KnobValue] = {
    "work_mem": 8192,
    "random_page_cost": 1.5,
    "jit": False,
    "effective_io_concurrency": 64,
    "cpu_tuple_cost": 0.02,
}
CLOCK_FILE = "clock"
HUGE = HostFacts(memory_bytes=1 << 50, cpu_count=4.0, free_disk_bytes=1 << 50)
"""Takes any value."""
_LOCK_WAIT_S = 10.0
_WRITES = ("INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True)
class Place:
    """Where a process finds its settings.

    Attributes:
        config_path: the settings file.
        data_dir: the run's data folder.
        store: a SQLite file; None: where the data folder has it.
    """

    config_path: Path
    data_dir: Path
    store: Path | None = None

    def begin(self) -> Settings:
        """The settings, whatever the environment says; from now on what is logged goes to a file.

        What goes wrong is meant to: it is for those who look for the cause of something else.
        """
        logging.basicConfig(
            filename=self.data_dir / "lives.log",
            format="%(asctime)s %(process)d %(name)s %(message)s",
            level=logging.INFO,
        )
        _follow(self.data_dir / CLOCK_FILE)
        paths = dict(PathSettings.under(self.data_dir))
        if self.store is not None:
            paths["telemetry_db"] = str(self.store)
        return load_settings(self.config_path, overrides={"paths": paths}, environ={})


def _follow(clock_file: Path) -> None:
    """From now on the time of day is off by the seconds in this file, as if somebody set it."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            off_s = float(clock_file.read_text()) if clock_file.exists() else 0.0
            return datetime.now(tz) + timedelta(seconds=off_s)

    clock.datetime = journal.datetime = Shifted  # type: ignore[attr-defined]


class Steps:
    """Counts the steps of a tuner, and sends it a signal at one of them.

    A step is a write or a commit in the store, or one side of a statement that changes the server.

    Args:
        signal_at: the step's number, from 1; 0 for never.
        number: the signal.
    """

    def __init__(self, signal_at: int, number: int) -> None:
        self.count = 0
        self._signal_at, self._number = signal_at, number

    def step(self) -> None:
        """One more."""
        self.count += 1
        if self.count == self._signal_at:
            os.kill(os.getpid(), self._number)

    def watch(self, parts: Components) -> None:
        """Count what this tuner does from now on."""
        engine = parts.store._engine

        def before(_c: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.lstrip().upper().startswith(_WRITES):
                self.step()

        sa.event.listen(engine, "before_cursor_execute", before)
        sa.event.listen(engine, "commit", lambda _: self.step())
        target: Any = parts.target
        target._connector.execute = self._both_sides(target._connector.execute)
        target.reload = self._both_sides(target.reload)

    def _both_sides(self, act: Callable[..., None]) -> Callable[..., None]:
        def stepping(*arguments: object) -> None:
            self.step()
            act(*arguments)
            self.step()

        return stepping


def watch(place: Place) -> None:
    """Live as the watchdog."""
    settings = place.begin()
    watchdog(settings, threading.Event())


def supervise(place: Place, told: Connection) -> None:
    """Live as the supervisor of a watchdog and of nobody else.

    Tells the watchdog's pid at the first sign of life.
    """
    settings = place.begin()
    paths = {name: str(path) for name, path in PathSettings.under(place.data_dir).items()}
    supervisor = Supervisor(
        settings,
        RunOptions(config_path=str(place.config_path), overrides={"paths": paths}),
        open_store(settings.store_url),
        {"watchdog": [sys.executable, str(REPOSITORY / "run.py"), "process", "watchdog"]},
        lambda *_: None,
    )
    supervisor._start("watchdog")
    child = supervisor._children["watchdog"]
    assert child.process is not None
    assert child.pulse is not None
    while not child.pulse.is_silent() and child.pulse._limit_s > HUNG_S:
        time.sleep(0.05)
    told.send(child.process.pid)
    supervisor._watch()


def change(place: Place, signal_at: int, number: int, ends: bool, told: Connection) -> None:
    """Live as a tuner that tries, deploys and goes back.

    Tells ``None`` when it is about to begin, and at its end how many steps it took.

    Args:
        place: of the settings.
        signal_at, number: see ``Steps``.
        ends: after all deeds were done once; else it begins again.
        told: where it tells.
    """
    parts = _components(place)
    steps = Steps(signal_at, number)
    steps.watch(parts)
    told.send(None)
    try:
        for deed in itertools.islice(_deeds(parts), None if not ends else _ONCE):
            deed()
            if not parts.lease.renew():
                raise StaleEpochError("somebody raised the epoch")
    except AutopilotError as error:
        log.warning("%s", error)
        sys.exit(FAILED)
    told.send(steps.count)
    parts.close()


_ONCE = 8
_FIRST_OPEN_STEP, _OPEN_STEPS = 10, 24
"""Of the first trial: its changes are noted by then, and not undone before."""


def step_in_trial(number: int) -> int:
    """A step of ``change`` at which a candidate is on its way, there, or on its way back."""
    return _FIRST_OPEN_STEP + number % _OPEN_STEPS


def _deeds(parts: Components) -> Iterator[Callable[[], object]]:
    """What a tuner does all day, without the waiting in between."""
    deployment = parts.deployment
    batch = ""

    def enter() -> None:
        nonlocal batch
        batch = deployment.enter(CANDIDATE, None)

    def leave() -> None:
        deployment.leave(batch, "the catalogue of faults")

    def deploy() -> None:
        # Another one than any tuner before: what stands already is no change, and takes no steps.
        cost = round(1.1 + 0.001 * (parts.lease.epoch % 2000), 3)
        values = {"random_page_cost": cost, "work_mem": 16384}
        deployment.deploy(values, author="faults", index=1.0, note="a fault's")

    def go_back() -> None:
        version = deployment.version_to_return_to(None)
        deployment.return_to(version, author="faults", reason="a fault's")

    while True:
        # The second trial opens the rows of the first again; the third stands on a deployment.
        yield from (enter, leave, enter, leave, deploy, enter, leave, go_back)


def _components(place: Place) -> Components:
    settings = place.begin()
    return _when_the_lock_is_free(lambda: build_components(settings, SystemClock()))


def _when_the_lock_is_free(begin: Callable[[], T]) -> T:
    """A dead tuner's session ends when the server notices."""
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return begin()
        except LockNotAvailableError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def try_out(place: Place, port: int, told: Connection) -> None:
    """Live as the tuner does, with its jobs, trials and gate; only the agent is a script.

    On SIGUSR1 it stops itself between the next ALTER SYSTEM and its reload.

    Args:
        place: of the settings.
        port: where the server is found.
        told: told ``None`` when it has begun.
    """
    settings, stop = place.begin(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def target(_: Settings) -> PostgresTarget:
        url = embedded_server(settings).dsn().set(host="127.0.0.1", port=port)
        made = PostgresTarget(DatabaseConnector(url))
        _stop_before_reload(made)
        return made

    def begun() -> SystemOrchestrator:
        orchestrator = SystemOrchestrator(settings, target_factory=target)
        orchestrator.initialize_components()
        return orchestrator

    orchestrator = _when_the_lock_is_free(begun)
    draws = random.Random(os.getpid())
    parts = orchestrator._components
    parts.learner = Proposes(lambda present: present.replace(_drawn(draws)))  # type: ignore[assignment]
    told.send(None)
    orchestrator.start(stop=stop)
    sys.exit(orchestrator.exit_code)


def _drawn(draws: random.Random) -> Mapping[str, KnobValue]:
    """Another candidate each time: what was judged once is not tried again."""
    return {
        "work_mem": 1024 * draws.randint(2, 60),
        "random_page_cost": round(draws.uniform(1.1, 6.0), 2),
        "cpu_tuple_cost": round(draws.uniform(0.005, 0.05), 4),
    }


def _stop_before_reload(target: PostgresTarget) -> None:
    armed = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: armed.set())
    reload = target.reload

    def stopping() -> None:
        if armed.is_set():
            armed.clear()
            os.kill(os.getpid(), signal.SIGSTOP)
        reload()

    target.reload = stopping  # type: ignore[method-assign]


def offer_load(place: Place) -> None:
    """Live as the demo's clients."""
    settings = place.begin()
    workload(settings, RunOptions(), open_store(settings.store_url), threading.Event())


def begin_and_end(place: Place, told: Connection) -> None:
    """Live as a tuner that ends at once; tells the message of what kept it from beginning."""
    settings = place.begin()
    try:
        build_components(settings, SystemClock()).close()
    except AutopilotError as error:
        told.send(str(error))
    else:
        told.send("")


def apply_once(place: Place, values: Mapping[str, KnobValue], told: Connection) -> None:
    """Live as a tuner that makes one change, whatever the machine's size; tells what came of it.

    Args:
        place: of the settings.
        values: of knobs; the server may be restarted for them.
        told: told the error's message.
    """
    settings = place.begin()
    store = open_store(settings.store_url)
    target = postgres_target(settings)
    catalog = load_catalog(target.describe().version, HUGE)
    lease = TunerLease(store, LEASE_TTL_S, SystemClock())
    adjuster = ParameterAdjuster(target, store, catalog, SystemClock())
    try:
        adjuster.apply(values, actor="faults", epoch=lease.epoch, allow_restart=True)
    except AutopilotError as error:
        told.send(str(error))
    else:
        told.send("")
    lease.release()


def hold_store(path: Path, seconds: float, told: Connection) -> None:
    """Hold the store's write lock, as a backup program would, for so many seconds."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    told.send(None)
    time.sleep(seconds)
    connection.execute("ROLLBACK")
    connection.close()
