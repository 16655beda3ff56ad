"""The server, the store and the processes that the catalogue's faults hurt, and what must hold."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import psycopg2.extensions

from backend.catalog import KnobCatalog, load_catalog
from backend.catalog.entries import entry_value, same_value
from backend.domain.policies import PolicyVersionRecord
from backend.servers import demo_store
from tests.faults.catalogue import lives
from tests.faults.catalogue.lives import Place
from tests.faults.catalogue.proxy import Proxy
from tests.running_product import Candidate, RunningProduct, ServerState
from tests.waiting import eventually

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([lives.__name__])

WAIT_S = 60.0
"""For what comes sooner or later on a busy machine; what is promised is measured, not awaited."""
_LOOK_EVERY_S = 0.02
_TIRELESS = {"max_consecutive_failures": 1_000_000}
"""A tuner rests after some broken trials in a row, and breaking them is what the faults do."""
_ALL = 100_000


class Life:
    """A process of the catalogue, and what it tells us."""

    def __init__(self, live: Callable[..., None], *arguments: object, tells: bool) -> None:
        self.told, telling = _CONTEXT.Pipe(duplex=False)
        given = (*arguments, telling) if tells else arguments
        self.process = _CONTEXT.Process(target=live, args=given, daemon=True)
        self.process.start()
        telling.close()

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.process.is_alive()

    def hear(self, within_s: float = WAIT_S) -> Any:
        """The next thing that it tells.

        Raises:
            AssertionError: it ended, or was silent for longer.
        """
        assert self.told.poll(within_s), "it does not tell what it should"
        try:
            return self.told.recv()
        except EOFError:
            self.process.join(WAIT_S)
            raise AssertionError(f"it ended with {self.process.exitcode}") from None

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        self.process.join(WAIT_S)
        assert self.process.exitcode is not None, "it does not end"
        return self.process.exitcode

    def kill(self) -> float:
        """``kill -9``; returns when it was dead."""
        self.process.kill()
        self.ended()
        return time.monotonic()

    def died(self) -> float:
        """Wait until it has killed itself; returns when."""
        code = self.ended()
        assert code == -signal.SIGKILL, f"it ended with {code} instead of dying"
        return time.monotonic()

    def stopped(self) -> float:
        """Wait until it has stopped itself; returns when."""

        def look() -> bool:
            assert self.lives, f"it ended with {self.process.exitcode} instead of stopping"
            return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

        eventually(look, "it stops", WAIT_S, poll_s=0.005)
        return time.monotonic()

    def resume(self) -> None:
        """Let it go on, where it lives."""
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, where it lives."""
        if self.lives:
            assert self.process.pid is not None
            os.kill(self.process.pid, number)


class World(RunningProduct):
    """A server with a store, a watchdog and tuners, each a process of its own.

    Args:
        folder: everything is there; the server's account must be able to pass through.
        sections: settings that replace the quick ones, by section.

    Attributes:
        place: tells a process where all is.
        base: what stood before the first tuner.
        steps: of a tuner's script.
        at_the_end: what has to be cleaned up with it.
        others: worlds of single faults, kept for their next repeats.
    """

    def __init__(self, folder: Path, **sections: Any) -> None:
        super().__init__(folder, **{"mode": "auto", "safety": _TIRELESS, **sections})
        self.place = Place(self.config_path, folder)
        self.base: ServerState | None = None
        self.steps = 0
        self.proxy: Proxy | None = None
        self.at_the_end = contextlib.ExitStack()
        self.others: dict[str, World] = {}
        self._watchdog: Life | None = None
        self._trying: Life | None = None
        self._load: Life | None = None
        self._lives: list[Life] = []

    # -- life -----------------------------------------------------------------------------------

    def open(self) -> World:
        """Start server and watchdog, and let a tuner live once undisturbed."""
        self.server.ensure_started()
        self.base = self.server_state()
        tuner = self.tuner(ends=True)
        assert tuner.hear() is None
        self.steps = tuner.hear()
        assert tuner.ended() == 0
        self.be_whole()
        self.start_watchdog()
        return self

    def close(self) -> None:
        """Leave nothing behind."""
        self.at_the_end.close()
        for life in self._lives:
            life.kill()
        if self.proxy is not None:
            self.proxy.close()
        self.end()
        self.server.destroy()

    def start(self, *arguments: str) -> World:
        raise AssertionError("the catalogue starts its processes one by one")

    def begin(self, live: Callable[..., None], *arguments: object, tells: bool = True) -> Life:
        """Start a process that lives so."""
        life = Life(live, *arguments, tells=tells)
        self._lives = [old for old in self._lives if old.lives] + [life]
        return life

    def start_watchdog(self) -> Life:
        """Start the watchdog, where none lives."""
        if self._watchdog is None or not self._watchdog.lives:
            self._watchdog = self.begin(lives.watch, self.place, tells=False)
        return self._watchdog

    @contextlib.contextmanager
    def without_watchdog(self) -> Iterator[None]:
        """Kill the watchdog; start another at the end."""
        self.start_watchdog().kill()
        try:
            yield
        finally:
            self.start_watchdog()

    def tuner(
        self, *, signal_at: int = 0, number: signal.Signals = signal.SIGKILL, ends: bool = False
    ) -> Life:
        """Start a tuner by the script of ``lives.change``."""
        self.end_trials()
        return self.begin(lives.change, self.place, signal_at, int(number), ends)

    # -- trials -----------------------------------------------------------------------------------

    def trials(self) -> Life:
        """A tuner that tries and proves under the demo's load, found or started anew."""
        if self.proxy is None:
            demo = demo_store(self.place.begin(), self.server)
            demo.load()
            self.proxy = Proxy(lambda: self.server.port)
        if self._load is None or not self._load.lives:
            self._load = self.begin(lives.offer_load, self.place, tells=False)
        if self._trying is None or not self._trying.lives:
            self._trying = self.begin(lives.try_out, self.place, self.proxy.port)
            self._trying.hear()
        return self._trying

    def resume_trials(self) -> None:
        """Let that tuner go on, where it still lives."""
        if self._trying is not None:
            self._trying.resume()

    def end_trials(self) -> None:
        """End that tuner in good order, and the load."""
        if self._trying is not None:
            self._trying.send(signal.SIGTERM)
            self._trying.resume()  # a stopped one does not hear
            self._trying.ended()
        if self._load is not None:
            self._load.kill()
        self._trying = self._load = None

    def stop_load(self) -> None:
        """End the load alone; :meth:`trials` starts it again."""
        assert self._load is not None
        self._load.kill()

    def in_mid_trial(self) -> Candidate:
        """Wait until a candidate stands; the tuner is stopped there."""
        self.trials()
        return self.wait_for_candidate()

    def child(self, name: str) -> psutil.Process | None:
        """The tuner with trials, for who waits for its candidate; None: it ended just now."""
        assert name == "tuner"
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.trials().process.pid)
        return None

    def beside(self, name: str) -> Place:
        """The same server and settings with another store."""
        folder = self.data_dir / name
        folder.mkdir(exist_ok=True)
        return Place(self.config_path, self.data_dir, folder / "telemetry.db")

    def step_of(self, number: int) -> int:
        """The step at which to hurt in this repeat: well spread, and each of them in the end."""
        stride = round(self.steps * 0.618)
        while _common(stride, self.steps) != 1:
            stride += 1
        return 1 + (number + 1) * stride % self.steps

    # -- what must hold ---------------------------------------------------------------------------

    @property
    def active(self) -> PolicyVersionRecord:
        """The version that is deployed: the last good configuration."""
        (active,) = [v for v in self.store.policy_versions(limit=_ALL) if v.active]
        return active

    def complaints(self, but: Collection[str] = ()) -> list[str]:
        """What is not as it should be.

        The deployed version stands in pg_settings and in postgresql.auto.conf, and all else is as
        it was before the first tuner; the journal holds nothing open.

        Args:
            but: knobs that are left out, since somebody else has set them.
        """
        assert self.base is not None
        found = [f"{row.knob} is open in the journal" for row in self.store.open_changes()]
        state = self.try_server_state()
        if state is None:
            return [*found, "the server does not answer"]
        config = self.active.config
        catalog = self.catalog
        for name, setting in state.settings.items():
            if name in but:
                continue
            if name in config:
                stands = same_value(entry_value(catalog.knob(name).knob, setting), config[name])
            else:
                stands = setting == self.base.settings.get(name)
            if not stands:
                found.append(f"{name} is {setting}, not {config.get(name, 'as it was')}")
        foreign = {name: e for name, e in self.base.entries.items() if name not in catalog}
        for name in {*state.entries, *config, *foreign} - set(but):
            entry = state.entries.get(name)
            if name in config:
                knob = catalog.knob(name).knob
                stands = entry is not None and same_value(
                    entry_value(knob, entry.strip("'")), config[name]
                )
            else:
                stands = entry == foreign.get(name)
            if not stands:
                found.append(f"{name} in postgresql.auto.conf is {entry}")
        return found

    @property
    def catalog(self) -> KnobCatalog:
        """The writable knobs, whatever the machine's size."""
        return load_catalog(170000, lives.HUGE)

    def restored_after_return(self) -> float | None:
        """The same, of a server that is away: nobody could restore anything before it answers."""
        eventually(lambda: self.try_server_state() is not None, "the server answers", WAIT_S)
        return self.restored(time.monotonic())

    def be_whole(self) -> None:
        """Raise AssertionError where the invariant does not hold."""
        assert self.complaints() == []
        self.store_is_whole()

    def connect(self, **more: Any) -> psycopg2.extensions.connection:
        """A session of somebody else, in autocommit."""
        url = self.server.dsn()
        connection = psycopg2.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            dbname=url.database,
            application_name="somebody",
            connect_timeout=10,
            **more,
        )
        connection.autocommit = True
        return connection

    def execute(self, statement: str) -> None:
        """Run a statement as somebody else."""
        with closing(self.connect()) as connection:
            connection.cursor().execute(statement)

    @property
    def epoch(self) -> int:
        """The newest one."""
        lease = self.store.lease()
        return 0 if lease is None else lease.epoch

    def store_is_whole(self) -> None:
        """Raise AssertionError where the store is damaged, or its versions do not fit together."""
        with closing(sqlite3.connect(self.data_dir / "telemetry.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        versions = self.store.policy_versions(limit=_ALL)
        assert sum(version.active for version in versions) == 1
        known = {version.id for version in versions}
        assert {v.parent_id for v in versions} - {None} <= known
        assert [v.id for v in versions] == sorted(known)

    def restored(self, since_s: float, but: Collection[str] = ()) -> float | None:
        """Wait until the invariant holds; the seconds since then, None where it held at once.

        Args:
            since_s: the fault's moment, ``time.monotonic()``.
            but: see :meth:`complaints`.
        """
        found = self.complaints(but)
        if not found:
            self.store_is_whole()
            return None
        deadline_s = time.monotonic() + WAIT_S
        while found := self.complaints(but):
            if time.monotonic() > deadline_s:
                raise AssertionError(f"not restored in {WAIT_S:g} s: {'; '.join(found)}")
            time.sleep(_LOOK_EVERY_S)
        took_s = time.monotonic() - since_s
        self.store_is_whole()
        return took_s


def _common(one: int, other: int) -> int:
    while other:
        one, other = other, one % other
    return one
