"""The whole demonstration in simulated time: the product's own tuner, and the acts played to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backend.config import Settings
from backend.demonstration import ACT, GROWN_SHARE, GROWTH, SHIFT
from backend.domain.clock import ManualClock
from backend.domain.modes import Phase
from backend.domain.policies import GenomeRecord
from backend.domain.records import EventRecord
from backend.orchestrator import LEARN_S, SystemOrchestrator
from backend.run_options import RunOptions
from backend.targets.simulated import Noise
from backend.telemetry import open_store
from benchmarks.harness.server import settings_in
from benchmarks.levels.server import NOISE, OTHER, SWING, USUAL, DemonstrationServer

OBSERVE_S = 5
OVERTIME_S = 1800
"""A run ends by itself; one that lasts so much longer than it should has failed."""


class Demonstration(SystemOrchestrator):
    """The tuner in a demonstration of its own, advanced second by second.

    Windows, trials, probation, rechecks, the journal and the final comparison are the product's;
    its jobs are called as its scheduler calls them. There is no watchdog and no client process:
    ``DemonstrationServer`` plays the clients, their acts are played here.

    Args:
        folder: of the run; the store, checkpoints and the final report lie in it.
        seed: of the server and of everything that is drawn by lot.
        days: simulated ones; from two on there are acts.
        learns: whether Level 1 learns policies.
        genome: record of a genome of Level 2 to work with; None: the settings' own.
        swing, noise: see ``DemonstrationServer``.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        days: float,
        *,
        learns: bool = True,
        genome: GenomeRecord | None = None,
        swing: float = SWING,
        noise: Noise = NOISE,
    ) -> None:
        options = RunOptions(duration_days=days, fast_mode=True, from_defaults=True)
        assert options.duration_s is not None
        self.duration_s, self.acts = options.duration_s, {act.name: act for act in options.acts}
        self.server = DemonstrationServer(
            seed, self.acts, self.duration_s, swing=swing, noise=noise
        )
        assert isinstance(self.server.clock, ManualClock)
        self.turned, self._learns = self.server.clock, learns
        settings = demonstration_settings(folder, seed)
        self.store = open_store(settings.store_url)
        if genome is not None:
            self.store.add_genome(genome)
        super().__init__(
            settings, options=options, target_factory=lambda _: self.server, clock=self.turned
        )
        self.begin(days, fast_mode=True)
        self._timeline = self._acts_of_the_clients()
        self._seconds = 0

    def run(self, each_second: Callable[[], None] = lambda: None) -> None:
        """Live through it to its final report.

        Raises:
            TimeoutError: it does not come to its end.
        """
        while not self._stop.is_set():
            if self._seconds > self.duration_s + OVERTIME_S:
                raise TimeoutError(f"the run goes on after {self._seconds} simulated seconds")
            self.second()
            each_second()

    def second(self) -> None:
        """One simulated second: the jobs that are due, as the scheduler would call them."""
        self.turned.advance(1.0)
        self._seconds += 1
        while self._timeline and self._timeline[0][0] <= self._seconds:
            self._timeline.pop(0)[1]()
        self.tune()
        if self._seconds % OBSERVE_S == 0:
            self.observe()
            self.save_status()
        if self._learns and self._seconds % LEARN_S == 0:
            self._running.policies.learn()

    def end(self) -> None:
        """End the tuner, and close the store's second reader."""
        super().end()
        self.store.close()

    @property
    def standing(self) -> dict[str, object]:
        """The configuration that is deployed now."""
        return dict(self._components.deployment.present)

    @property
    def comparing(self) -> bool:
        """Whether the final comparison is made, or over."""
        return self.loop.phase in (Phase.FINAL_COMPARISON, Phase.FINISHED)

    def _acts_of_the_clients(self) -> list[tuple[float, Callable[[], None]]]:
        """What clients do and when; the harmful change is the tuner's own act."""
        acts: list[tuple[float, Callable[[], None]]] = []
        if SHIFT in self.acts:
            from_s, until_s = self.acts[SHIFT].span_s(self.duration_s)
            acts.append((from_s, lambda: self._tell(f"clients turn from {USUAL} to {OTHER} work")))
            acts.append((until_s, lambda: self._tell(f"clients are back at {USUAL} work")))
        if GROWTH in self.acts:
            acts.append((self.acts[GROWTH].span_s(self.duration_s)[1], self._grow))
        return acts

    def _grow(self) -> None:
        self.server.grow(GROWN_SHARE)
        self._tell(f"the data has grown by {GROWN_SHARE:.0%}")

    def _tell(self, message: str) -> None:
        self.store.add_event(EventRecord(self.turned.now(), "info", ACT, message))


def demonstration_settings(folder: Path, seed: int) -> Settings:
    """The product's defaults, with an agent that starts cold: optima are drawn by lot."""
    return settings_in(
        folder,
        {
            "mode": "auto",
            "level0": {"knob": {"pretrained": False}},
            "workload": {"seed": seed},
        },
    )
