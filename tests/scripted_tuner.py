"""A whole tuner on a simulated server that is asked to try what the test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.modes import Mode, TrialKind, Verdict
from backend.domain.records import TrialRecord
from backend.orchestrator import SystemOrchestrator
from backend.targets.simulated import SimulatedDatabase
from backend.telemetry import open_store
from backend.tuning_loop import TuningLoop
from benchmarks.harness.scripted import Proposes
from tests.simulated_run import Run, settings_in

SHORT: Mapping[str, object] = {"window_s": 5, "settle_s": 1, "baseline_s": 30, "rest_s": 60}


def promise(loop: TuningLoop, changes: Mapping[str, KnobValue]) -> None:
    """Let the loop take these changes for what a probe has found promising."""
    present = loop.workloads.in_force
    plan = loop._planner.plan(
        TrialKind.PROBE, changes, "the test", present.chain.reference, present.noise
    )
    loop._candidates.keep(plan)


class ScriptedRun(Run):
    """A run whose proposals the test makes; short windows, every knob may be tried.

    Args:
        folder: of its store.
        target: the server.
        propose: see ``Proposes``; a mapping is proposed again and again.
        mode: of the tuner.
        level1: settings of that section.
    """

    def __init__(
        self,
        folder: Path,
        target: SimulatedDatabase,
        propose: Callable[[KnobConfig], KnobConfig] | Mapping[str, KnobValue],
        *,
        mode: Mode = Mode.AUTO,
        **level1: object,
    ) -> None:
        self.target, self.clock = target, target.clock
        self.settings = settings_in(folder, **{**SHORT, **level1})
        self.orchestrator = SystemOrchestrator(
            self.settings, target_factory=lambda _: target, clock=self.clock
        )
        self.orchestrator.initialize_components()
        parts = self.orchestrator._components
        parts.deployment.mode = mode
        parts.space = target.space
        if isinstance(propose, Mapping):
            wanted = dict(propose)
            self.agent = Proposes(lambda present: present.replace(wanted))
        else:
            self.agent = Proposes(propose)
        parts.learner = self.agent  # type: ignore[assignment]
        self.orchestrator.begin()
        self.loop = self.orchestrator.loop
        self.store = open_store(self.settings.store_url)

    def of_kind(self, kind: TrialKind) -> list[TrialRecord]:
        """The trials of a kind, oldest first."""
        return [trial for trial in self.store.trials(limit=10_000) if trial.kind is kind]

    def passed(self, kind: TrialKind) -> bool:
        """Whether one of that kind was accepted."""
        return Verdict.ACCEPT in self.verdicts(kind)

    def events(self, kind: str) -> list[str]:
        """The messages of the events of a kind, oldest first."""
        return [event.message for event in self.store.events(limit=10_000) if event.kind == kind]

    @property
    def entries(self) -> dict[str, KnobValue]:
        """What the autopilot has set on the server."""
        return self.orchestrator._components.deployment.deviating
