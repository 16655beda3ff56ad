"""The tuner on the simulated server under a swinging load: how many trials until it is done?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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

    def newest_trial(self) -> TrialRecord:
        """The newest trial in the store."""
        return self._components.store.trials(limit=1)[-1]

    def true_index(self, values: Mapping[str, KnobValue] | None = None) -> float:
        """The noise-free index of what is deployed, with ``values`` changed."""
        present = self._components.deployment.present
        return self.simulated.index_of(present.replace(values or {}))


def run_one(seed: int, variant: str, hours: float, max_trials: int) -> RunResult:
    """Tune until the goal is reached and has stood its probation, or time or trials are used up."""
    end_s = int(hours * 3600)
    target = swinging_server(seed, end_s)
    reachable = 1.0 - target.index_of(target.best_config)
    with tempfile.TemporaryDirectory(prefix="filter-", dir=_memory_folder()) as folder:
        tuner = ExperimentalTuner(variant, seed, target, Path(folder))
        tuner.begin()
        try:
            return _tune(tuner, seed, variant, reachable, end_s, max_trials)
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
    promotions = wrong = inconclusive = done = second = 0
    standing, worst, to_goal = 1.0, 1.0, None
    while second < end_s and done < max_trials and to_goal is None:
        second += 1
        tuner.second(second)
        if tuner.finished_trials == done:
            continue
        done = tuner.finished_trials
        trial, now = tuner.newest_trial(), tuner.true_index()
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
            to_goal = done  # a promotion counts once it has stood its probation
    return RunResult(
        seed=seed,
        variant=variant,
        trials_to_goal=to_goal,
        minutes_to_goal=None if to_goal is None else second / 60,
        trials=done,
        minutes=second / 60,
        final_share=(1.0 - standing) / reachable,
        promotions=promotions,
        wrong=wrong,
        inconclusive=inconclusive,
        worst=worst,
    )


def run_all(
    seeds: Sequence[int],
    hours: float,
    max_trials: int,
    variants: Sequence[str],
    out: Path | None,
    tell: Callable[[RunResult], None],
) -> list[RunResult]:
    """Every variant on every seed; results that ``out`` (JSON lines) holds are not made again."""
    results = read_results(out) if out is not None else []
    made = {(result.seed, result.variant) for result in results}
    for seed in seeds:
        for variant in variants:
            if (seed, variant) in made:
                continue
            result = run_one(seed, variant, hours, max_trials)
            results.append(result)
            tell(result)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
    return [r for r in results if r.seed in seeds and r.variant in variants]


def read_results(path: Path) -> list[RunResult]:
    """The results of an earlier, interrupted run."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [RunResult(**json.loads(line)) for line in lines if line.strip()]
