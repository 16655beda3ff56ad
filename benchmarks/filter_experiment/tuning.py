"""The tuner on the simulated server under a swinging load: how many trials until it is done?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobValue
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import TrialKind, Verdict
from backend.domain.records import TrialRecord
from backend.learning import Learner
from backend.orchestrator import SystemOrchestrator
from backend.protocols import AskTellAgent
from backend.state_features import STATE_WIDTH
from backend.targets.simulated import SimulatedDatabase
from benchmarks.filter_experiment.scenario import experiment_settings, swinging_server
from benchmarks.tuners import make_tuner

GOAL = 0.95
"""Share of the reachable gain that the deployed configuration must hold."""
VARIANTS = ("filter on", "filter off", "plain DDPG")
TUNE_EVERY_S, OBSERVE_EVERY_S = 7, 5


@dataclass(frozen=True)
class RunResult:
    """One run of one variant.

    ``trials_to_goal`` and ``minutes_to_goal`` are None where the goal was not reached within
    ``trials`` trials and ``minutes`` simulated minutes. ``final_share`` is the share of the
    reachable gain that the deployed configuration holds at the end, read from the model without
    noise. ``wrong`` counts the ``promotions`` to a configuration that is truly no better.
    ``worst`` is the true index of the worst candidate against what was deployed then.
    """

    seed: int
    variant: str
    trials_to_goal: int | None
    minutes_to_goal: float | None
    trials: int
    minutes: float
    final_share: float
    promotions: int
    wrong: int
    inconclusive: int
    worst: float


class PlainLearner(Learner):
    """Plain DDPG in the place of the knob agent: no rules, no checkpoint, the same loop."""

    _tuner: AskTellAgent

    def load(self, present: KnobConfig) -> None:
        """A fresh agent."""
        self._tuner = make_tuner("ddpg", self._space, self._seed, state_width=STATE_WIDTH)
        self.proposer = "plain DDPG"

    def ask(self, state: NDArray[np.float64] | None, present: KnobConfig) -> KnobConfig:
        """Its next configuration, with the knobs that it does not know as they are."""
        return present.replace(self._tuner.ask(state))

    def tell(
        self,
        config: KnobConfig,
        objective: float,
        state: NDArray[np.float64] | None,
        quality: float,
        window: MetricsWindow | None,
        *,
        censored: bool = False,
    ) -> None:
        """Every sample counts alike."""
        self._tuner.tell(config, objective, state, quality, censored)


class ExperimentalTuner(SystemOrchestrator):
    """The tuner of a variant on the simulated server, advanced in simulated seconds."""

    def __init__(self, variant: str, seed: int, target: SimulatedDatabase, folder: Path) -> None:
        assert isinstance(target.clock, ManualClock)
        settings = experiment_settings(folder, filtered=variant == "filter on", seed=seed)
        super().__init__(settings, target_factory=lambda _: target, clock=target.clock)
        self._plain = variant == "plain DDPG"
        self.simulated, self.turned = target, target.clock

    def initialize_components(self) -> None:
        """Wire the product's parts; plain DDPG takes the knob agent's place."""
        super().initialize_components()
        parts = self._components
        if self._plain:
            parts.learner = PlainLearner(
                self.settings, parts.space, parts.info.host, parts.budget, parts.store, self._clock
            )

    def second(self, number: int) -> None:
        """One simulated second: the jobs that are due, as the scheduler would call them."""
        self.turned.advance(1.0)
        if number % TUNE_EVERY_S == 0:
            self.tune()
        else:
            self.loop.tick()
        if number % OBSERVE_EVERY_S == 0:
            self.observe()

    @property
    def finished_trials(self) -> int:
        """Trials that came to a verdict."""
        return self.loop.verdicts.total()

    def trials(self, seconds: int) -> Iterator[TrialRecord]:
        """Tune for so many simulated seconds; each trial as it comes to its verdict."""
        done = 0
        for number in range(1, seconds + 1):
            self.second(number)
            if self.finished_trials != done:
                done = self.finished_trials
                yield self._components.store.trials(limit=1)[-1]

    def true_index(self, values: Mapping[str, KnobValue] | None = None) -> float:
        """The noise-free index of what is deployed, with ``values`` changed."""
        present = self._components.deployment.present
        return self.simulated.index_of(present.replace(values or {}))


TunerT = TypeVar("TunerT", bound=ExperimentalTuner)


def run_one(seed: int, variant: str, hours: float, max_trials: int) -> RunResult:
    """Tune until the goal is reached and has stood its probation, or time or trials are used up."""
    end_s = int(hours * 3600)
    target = swinging_server(seed, end_s)
    reachable = 1.0 - target.index_of(target.best_config)
    with at_work(lambda folder: ExperimentalTuner(variant, seed, target, folder)) as tuner:
        return _tune(tuner, seed, variant, reachable, end_s, max_trials)


@contextmanager
def at_work(make: Callable[[Path], TunerT]) -> Iterator[TunerT]:
    """A tuner that has begun, in a folder of its own; it is ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="filter-", dir=_memory_folder()) as folder:
        tuner = make(Path(folder))
        tuner.begin()
        try:
            yield tuner
        finally:
            tuner.end()


def _memory_folder() -> str | None:
    """A folder in memory, where there is one: the store syncs each write to disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _tune(
    tuner: ExperimentalTuner,
    seed: int,
    variant: str,
    reachable: float,
    end_s: int,
    max_trials: int,
) -> RunResult:
    promotions = wrong = inconclusive = 0
    standing, worst, to_goal = 1.0, 1.0, None
    for trial in tuner.trials(end_s):
        now = tuner.true_index()
        accepted = trial.verdict is Verdict.ACCEPT
        inconclusive += trial.verdict is Verdict.INCONCLUSIVE
        if trial.kind in (TrialKind.PROBE, TrialKind.PROMOTION):
            candidate = now if accepted and trial.kind is TrialKind.PROMOTION else (
                tuner.true_index(trial.after)
            )  # fmt: skip
            worst = max(worst, candidate / standing)
        deployed = trial.kind is TrialKind.PROMOTION and accepted
        promotions += deployed
        wrong += deployed and now >= standing
        standing = now
        if not deployed and 1.0 - standing >= GOAL * reachable:
            to_goal = tuner.finished_trials  # a promotion counts once it has stood its probation
        if to_goal is not None or tuner.finished_trials >= max_trials:
            break
    minutes = tuner.turned.monotonic_s() / 60
    return RunResult(
        seed=seed,
        variant=variant,
        trials_to_goal=to_goal,
        minutes_to_goal=None if to_goal is None else minutes,
        trials=tuner.finished_trials,
        minutes=minutes,
        final_share=(1.0 - standing) / reachable,
        promotions=promotions,
        wrong=wrong,
        inconclusive=inconclusive,
        worst=worst,
    )
