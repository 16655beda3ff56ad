"""A whole tuner on a simulated server that is asked to try what a benchmark or a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig
from backend.orchestrator import SystemOrchestrator
from backend.targets.simulated import SimulatedDatabase
from benchmarks.harness.server import settings_in

OBSERVE_S = 5.0


class Proposes:
    """In the place of the knob agent: proposes what it is given, and learns nothing.

    Args:
        next_one: the next configuration, in terms of the present one; the same for nothing new.
    """

    proposer = "a script"

    def __init__(self, next_one: Callable[[KnobConfig], KnobConfig]) -> None:
        self._next_one, self.workload = next_one, "shop"

    def load(self, present: KnobConfig) -> None:
        """There is nothing to load."""

    def ask(self, state: object, present: KnobConfig) -> KnobConfig:
        """The next configuration."""
        return self._next_one(present)

    advise = ask

    def fit(self, config: KnobConfig) -> KnobConfig:
        """Any configuration fits."""
        return config

    def tell(self, *_: object, **__: object) -> None:
        """What came of it changes nothing."""


def scripted_tuner(
    folder: Path,
    target: SimulatedDatabase,
    next_one: Callable[[KnobConfig], KnobConfig],
    level1: Mapping[str, Any],
) -> SystemOrchestrator:
    """A tuner in mode ``auto`` that may turn every knob of the target, ready for its jobs."""
    settings = settings_in(folder, {"mode": "auto", "level1": {"max_settle_s": 600, **level1}})
    orchestrator = SystemOrchestrator(settings, target_factory=lambda _: target, clock=target.clock)
    orchestrator.initialize_components()
    parts = orchestrator._components
    parts.space = target.space
    parts.learner = Proposes(next_one)  # type: ignore[assignment]
    orchestrator.begin()
    return orchestrator


def go(
    orchestrator: SystemOrchestrator,
    clock: ManualClock,
    seconds: float,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Let simulated seconds pass, with the jobs called as the scheduler calls them."""
    observed_s = clock.monotonic_s()
    end_s = observed_s + seconds
    while clock.monotonic_s() < end_s and not until():
        clock.advance(1.0)
        orchestrator.tune()
        if clock.monotonic_s() - observed_s >= OBSERVE_S:
            observed_s = clock.monotonic_s()
            orchestrator.observe()
