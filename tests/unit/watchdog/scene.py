"""A tuner with an open change, a watchdog beside it, and all that both see."""

from __future__ import annotations

import socket

from backend.errors import ServerConnectionError
from backend.parameter_adjuster import ParameterAdjuster
from backend.watchdog import Watchdog
from tests.fake_server import CATALOG, FakeClock, FakeJournal, FakeServer, Steps

TTL_S = 8.0


class Scene:
    """A tuner with an open change, and a watchdog beside it."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.clock = FakeClock()
        self.server = FakeServer(self.steps)
        self.journal = FakeJournal(self.steps, self.clock)
        self.connections = 0
        self.watchdog = Watchdog(self.journal, self.connect, self.clock, sleep=self.clock.sleep)
        self.tuner = ParameterAdjuster(
            self.server, self.journal, CATALOG, self.clock, sleep=self.clock.sleep
        )
        self.server.end_tuner_sessions = self.end_sessions  # type: ignore[method-assign]
        self.sessions = 1

    def connect(self) -> FakeServer:
        self.connections += 1
        if not self.server.up:
            raise ServerConnectionError("connection refused")
        return self.server

    def end_sessions(self) -> int:
        self.server.ended += 1
        there, self.sessions = self.sessions, 0
        return there

    def begin(self, holder: str) -> int:
        return self.journal.acquire_lease(holder, TTL_S)

    def open_change(self, epoch: int) -> None:
        self.tuner.apply({"work_mem": 65536, "jit": False}, actor="test", epoch=epoch)

    def pass_time(self, seconds: float) -> None:
        self.clock.seconds += seconds

    def ticks(self, number: int) -> None:
        for _ in range(number):
            self.watchdog.tick()
            self.pass_time(1.0)


def elsewhere() -> str:
    return f"another-machine-than-{socket.gethostname()}:1:1.00"
