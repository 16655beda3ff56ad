"""Real trials on a real server: clients at a fixed rate, and a tuner that is turned by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import psycopg2
from sqlalchemy.engine import URL

from backend.config import Settings
from backend.domain.knobs import KnobValue
from backend.orchestrator import SystemOrchestrator
from backend.protocols import Clock
from benchmarks.harness.scripted import Proposes

TICK_S = 0.05
OBSERVE_S = 1.0


class Clients:
    """An application that sends one statement at a fixed rate, however long it takes.

    The load must not depend on the arm of a trial.

    Args:
        dsn: of the server's owner.
        statement: with one parameter.
        parameter: its value; may be changed while it runs.
        every_s: between two statements.
    """

    def __init__(self, dsn: URL, statement: str, parameter: object, every_s: float) -> None:
        self._dsn, self._statement, self.parameter = dsn, statement, parameter
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        address = self._dsn.translate_connect_args(username="user")
        connection = psycopg2.connect(**address, application_name="shop")
        try:
            connection.autocommit = True
            cursor = connection.cursor()
            due_s = time.monotonic()
            while not self._stop.wait(max(due_s - time.monotonic(), 0)):
                cursor.execute(self._statement, (self.parameter,))
                due_s += self._every_s
        finally:
            connection.close()


def begun(
    settings: Settings, proposals: Mapping[str, KnobValue] | None = None, clock: Clock | None = None
) -> SystemOrchestrator:
    """A tuner that is ready for its jobs.

    Args:
        settings: of the tuner.
        proposals: what it proposes, and may be changed while it runs; None for nothing.
        clock: time; None for the machine's.
    """
    orchestrator = SystemOrchestrator(settings, clock=clock)
    orchestrator.initialize_components()
    agent = Proposes(lambda present: present.replace(proposals or {}))
    orchestrator._components.learner = agent  # type: ignore[assignment]
    orchestrator.begin()
    return orchestrator


def turn(orchestrator: SystemOrchestrator, until: Callable[[], bool], most_s: float) -> None:
    """Let the jobs run as the scheduler runs them."""
    end_s, observed_s = time.monotonic() + most_s, 0.0
    while not until():
        assert time.monotonic() < end_s, (
            f"not within {most_s:g} s: {orchestrator._components.store.trials(limit=5)}"
        )
        orchestrator.tune()
        if time.monotonic() - observed_s > OBSERVE_S:
            observed_s = time.monotonic()
            orchestrator.observe()
        time.sleep(TICK_S)
