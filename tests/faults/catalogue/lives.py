"""What the processes of the catalogue do: a tuner by a script, a watchdog, a tuner with trials.

Journal, lease, adjuster, deployment and watchdog are the product's own; only what is tried comes
from a script instead of an agent. Started by ``World`` through a fork server that has imported
this module, so that a life begins within milliseconds.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from backend.components import Components, build_components
from backend.config import PathSettings, Settings, load_settings
from backend.domain.clock import SystemClock
from backend.domain.knobs import KnobValue
from backend.errors import LockNotAvailableError, StaleEpochError
from backend.processes.watchdog import watchdog
from backend.telemetry import open_store

LOST_RIGHT = 3
"""Exit code of a tuner that may not act any more."""
CANDIDATE: Mapping[str, KnobValue] = {
    "work_mem": 8192,
    "random_page_cost": 1.5,
    "jit": False,
    "effective_io_concurrency": 64,
    "cpu_tuple_cost": 0.02,
}
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

    def settings(self) -> Settings:
        """The settings, whatever the environment says."""
        paths = dict(PathSettings.under(self.data_dir))
        if self.store is not None:
            paths["telemetry_db"] = str(self.store)
        return load_settings(self.config_path, overrides={"paths": paths}, environ={})


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
    settings = place.settings()
    watchdog(settings, open_store(settings.store_url), threading.Event())


def change(place: Place, signal_at: int, number: int, ends: bool, told: Connection) -> None:
    """Live as a tuner that tries, deploys and goes back.

    Tells ``None`` when it is about to begin, and at its end how many steps it took.

    Args:
        place: of the settings.
        signal_at, number: see ``Steps``.
        ends: after all deeds were done once; else it begins again.
        told: where it tells.
    """
    parts = _as_soon_as_the_lock_is_free(place)
    steps = Steps(signal_at, number)
    steps.watch(parts)
    told.send(None)
    try:
        for deed in itertools.islice(_deeds(parts), None if not ends else _ONCE):
            deed()
            if not parts.lease.renew():
                raise StaleEpochError("somebody raised the epoch")
    except StaleEpochError:
        sys.exit(LOST_RIGHT)
    told.send(steps.count)
    parts.close()


_ONCE = 8


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
        # Not always the same: what stands already is no change.
        values = {"random_page_cost": 1.1 + 0.1 * (parts.lease.epoch % 5), "work_mem": 16384}
        deployment.deploy(values, author="faults", index=1.0, note="a fault's")

    def go_back() -> None:
        version = deployment.version_to_return_to(None)
        deployment.return_to(version, author="faults", reason="a fault's")

    while True:
        # The second trial opens the rows of the first again; the third stands on a deployment.
        yield from (enter, leave, enter, leave, deploy, enter, leave, go_back)


def _as_soon_as_the_lock_is_free(place: Place) -> Components:
    """A dead tuner's session ends when the server notices."""
    deadline_s = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return build_components(place.settings(), SystemClock())
        except LockNotAvailableError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


def second(place: Place, told: Connection) -> None:
    """Live as a second tuner, with a store of its own; tells the error that it met."""
    settings = place.settings()
    try:
        build_components(settings, SystemClock()).close()
    except LockNotAvailableError as error:
        told.send(error.message)
    else:
        told.send("")


def hold_store(path: Path, told: Connection, until: float) -> None:
    """Hold the store's write lock, as a backup program would, for so many seconds."""
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    told.send(None)
    time.sleep(until)
    connection.execute("ROLLBACK")
    connection.close()
