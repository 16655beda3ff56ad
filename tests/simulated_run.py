"""The whole tuner on the simulated database, with a clock that is turned by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from backend.config import PathSettings, Settings, load_settings
from backend.domain.clock import ManualClock
from backend.domain.modes import CommandKind, TrialKind, Verdict
from backend.domain.records import CommandRecord
from backend.orchestrator import SystemOrchestrator
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.telemetry import open_store


def settings_in(folder: Path, **level1: object) -> Settings:
    return load_settings(
        overrides={
            "mode": "auto",
            "paths": PathSettings.under(folder),
            "level1": {"max_settle_s": 600, "settle_s": 2, "window_s": 10, **level1},
        },
        environ={},
    )


class Run:
    """An orchestrator on a simulated database, advanced in simulated seconds."""

    def __init__(self, folder: Path, target: SimulatedDatabase, **level1: object) -> None:
        self.settings = settings_in(folder, **level1)
        self.target, self.clock = target, target.clock
        assert isinstance(self.clock, ManualClock)
        self.orchestrator = SystemOrchestrator(
            self.settings, target_factory=lambda _: target, clock=self.clock
        )
        self.orchestrator.begin()
        self.loop = self.orchestrator.loop
        self.store = open_store(self.settings.store_url)

    @classmethod
    def of(
        cls, orchestrator: SystemOrchestrator, target: SimulatedDatabase, settings: Settings
    ) -> Run:
        """A run that was begun elsewhere."""
        run = cls.__new__(cls)
        run.settings, run.target, run.clock = settings, target, target.clock
        run.orchestrator, run.loop = orchestrator, orchestrator.loop
        run.store = open_store(settings.store_url)
        return run

    def go(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        observed_s = 0.0
        end_s = self.clock.monotonic_s() + seconds
        while self.clock.monotonic_s() < end_s and not until():
            self.clock.advance(1.0)
            observed_s += 1.0
            self.orchestrator.tune()
            if observed_s >= 5.0:
                observed_s = 0.0
                self.orchestrator.observe()

    def command(self, kind: CommandKind, **payload: object) -> CommandRecord:
        number = self.store.submit(
            CommandRecord(kind, payload, "tester", datetime.now(timezone.utc))
        )
        self.go(1.0)
        done = self.store.command(number)
        assert done is not None
        return done

    def verdicts(self, kind: TrialKind) -> list[Verdict | None]:
        return [t.verdict for t in self.store.trials() if t.kind is kind]


def make_target(gain: float = 0.35, seed: int = 0, **more: object) -> SimulatedDatabase:
    noise = Noise(sigma=0.02, shared_sigma=0.02)
    return SimulatedDatabase(ResponseModel(gain=gain, seed=seed), noise=noise, seed=seed, **more)
