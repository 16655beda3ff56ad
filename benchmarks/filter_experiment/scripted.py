"""The controlled experiment: the tuner with a scripted proposer, under the swinging load.

The protocol, set before the first run on its seeds. Everything but the filter is the same in both
arms: the product's loop (probe, promotion, probation), server, load, noise and the sequence of
candidates of a seed (script.py), without an agent. So what differs is what verdicts cost.

* Seeds 400 to 499, never run before; a run ends when 95 % of the reachable gain is deployed and
  has stood its probation, or after 150 trials (or 12 simulated hours), which then count.
* The one primary comparison: trials to 95 %, "filter on" less "filter off", mean of the
  differences by seed, two-sided 95 % percentile bootstrap interval (20,000 resamples).
  The claim is shown where the interval lies below 0.
* "face value" stands beside it, in no comparison of the primary kind: what a tuner does that is not
  sample-aware at all. Its trial is a window of what stands, then one of the candidate; the mean
  time of all statements decides, whatever ran, and what seems better by ``min_improvement`` stands
  at once. It has neither index nor gate nor probation, so its trials are not the product's.
* What is told besides: minutes, wrong promotions, and every verdict by kind of trial and by what
  the candidate truly does.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.config import Level1Section, load_settings
from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import TrialKind, Verdict
from backend.domain.records import TrialRecord
from backend.learning import Learner
from backend.targets.simulated import SimulatedDatabase
from benchmarks.filter_experiment.scenario import swinging_server
from benchmarks.filter_experiment.script import Effect, Script
from benchmarks.filter_experiment.tuning import GOAL, ExperimentalTuner, at_work

FACE_VALUE = "face value"
VARIANTS = ("filter on", "filter off", FACE_VALUE)


@dataclass(frozen=True)
class ScriptedResult:
    """One run of one variant.

    ``trials_to_goal`` is None where the goal was not reached within ``trials`` trials.
    ``final_share`` is the share of the reachable gain that is deployed at the end, by the model.
    ``verdicts`` counts them by kind of trial, true effect and verdict, joined by blanks.
    ``windows`` were measured in trials, ``void`` of them repeated.
    """

    seed: int
    variant: str
    trials_to_goal: int | None
    trials: int
    minutes: float
    final_share: float
    promotions: int
    wrong: int
    windows: int
    void: int
    verdicts: Mapping[str, int]


class ScriptedLearner(Learner):
    """The script in the agent's place: it learns nothing."""

    script: Script

    def load(self, present: KnobConfig) -> None:
        """Nothing to load."""
        self.proposer = "script"

    def ask(self, state: NDArray[np.float64] | None, present: KnobConfig) -> KnobConfig:
        """The script's next candidate."""
        return present.replace(self.script.ask(present))

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
        """What was measured does not matter, only the verdict does."""


class ScriptedTuner(ExperimentalTuner):
    """The product's tuner on the simulated server, with a script for an agent."""

    def __init__(self, variant: str, seed: int, target: SimulatedDatabase, folder: Path) -> None:
        super().__init__(variant, seed, target, folder)
        self.script = Script(target.model, seed)

    def initialize_components(self) -> None:
        """Wire the product's parts, the script among them."""
        super().initialize_components()
        parts = self._components
        learner = ScriptedLearner(
            self.settings, parts.space, parts.info.host, parts.budget, parts.store, self._clock
        )
        learner.script = self.script
        parts.learner = learner

    def measured(self) -> tuple[int, int]:
        """Windows of trials, and those of them that were void."""
        found = [w for w in self._components.store.windows(limit=1_000_000) if w.trial_id]
        least = self.settings.level1.min_quality
        return len(found), sum(window.quality < least for window in found)


def take(script: Script, trial: TrialRecord) -> None:
    """Tell the script what a trial means for its candidate."""
    if trial.verdict is Verdict.ACCEPT:
        if trial.kind is TrialKind.PROBATION:
            script.deployed()
    elif trial.verdict is Verdict.REJECT:
        script.rejected()
    elif trial.verdict is Verdict.INCONCLUSIVE:
        script.unclear()
    # One that was aborted is promoted again by the loop, or put back by the next question.


def run_one(seed: int, variant: str, hours: float, max_trials: int) -> ScriptedResult:
    """One run of one variant; see the module's text."""
    target = swinging_server(seed, hours * 3600)
    if variant == FACE_VALUE:
        return _at_face_value(seed, target, hours, max_trials)
    with at_work(lambda folder: ScriptedTuner(variant, seed, target, folder)) as tuner:
        return _tune(tuner, seed, variant, int(hours * 3600), max_trials)


def _tune(
    tuner: ScriptedTuner, seed: int, variant: str, end_s: int, max_trials: int
) -> ScriptedResult:
    verdicts: Counter[str] = Counter()
    promotions = wrong = 0
    to_goal = None
    for trial in tuner.trials(end_s):
        if trial.kind is TrialKind.RECHECK:  # of what stands, no candidate of the script's
            continue
        candidate = tuner.script.trying
        verdict = trial.verdict or Verdict.ABORTED
        verdicts[f"{trial.kind.value} {candidate.effect.value} {verdict.value}"] += 1
        deployed = trial.kind is TrialKind.PROMOTION and verdict is Verdict.ACCEPT
        promotions += deployed
        wrong += deployed and candidate.effect is not Effect.GAIN
        take(tuner.script, trial)
        if not deployed and _share(tuner.simulated, tuner.true_index()) >= GOAL:
            to_goal = tuner.finished_trials  # a promotion counts once it has stood its probation
        if to_goal is not None or tuner.finished_trials >= max_trials:
            break
    windows, void = tuner.measured()
    return ScriptedResult(
        seed=seed,
        variant=variant,
        trials_to_goal=to_goal,
        trials=tuner.finished_trials,
        minutes=tuner.turned.monotonic_s() / 60,
        final_share=_share(tuner.simulated, tuner.true_index()),
        promotions=promotions,
        wrong=wrong,
        windows=windows,
        void=void,
        verdicts=dict(verdicts),
    )


def _share(target: SimulatedDatabase, index: float) -> float:
    """The share of the reachable gain at a true index."""
    return (1.0 - index) / (1.0 - target.index_of(target.best_config))


def _at_face_value(
    seed: int, target: SimulatedDatabase, hours: float, max_trials: int
) -> ScriptedResult:
    """One window of what stands, one of the candidate, and the lower mean time stands."""
    level1 = load_settings(Path(os.devnull), environ={}).level1
    clock, script = target.clock, Script(target.model, seed)
    assert isinstance(clock, ManualClock)
    verdicts: Counter[str] = Counter()
    trials = promotions = wrong = 0
    present = target.space.default_config()
    while (
        _share(target, target.index_of(present)) < GOAL
        and trials < max_trials
        and clock.monotonic_s() < hours * 3600
    ):
        trials += 1
        before_ms = _mean_ms(target, clock, level1)
        candidate = script.ask(present)
        _switch(target, candidate)
        better = _mean_ms(target, clock, level1) < before_ms * (1 - level1.min_improvement)
        effect = script.trying.effect
        verdicts[f"window {effect.value} {'accept' if better else 'reject'}"] += 1
        if better:
            promotions += 1
            wrong += effect is not Effect.GAIN
            present = candidate
            script.deployed()
        else:
            _switch(target, present)
            script.rejected()
    share = _share(target, target.index_of(present))
    return ScriptedResult(
        seed=seed,
        variant=FACE_VALUE,
        trials_to_goal=trials if share >= GOAL else None,
        trials=trials,
        minutes=clock.monotonic_s() / 60,
        final_share=share,
        promotions=promotions,
        wrong=wrong,
        windows=2 * trials,
        void=0,
        verdicts=dict(verdicts),
    )


def _switch(target: SimulatedDatabase, config: KnobConfig) -> None:
    target.write_entries(dict(config))
    target.reload()


def _mean_ms(target: SimulatedDatabase, clock: ManualClock, level1: Level1Section) -> float:
    """The mean time of all statements in one window, after settling."""
    clock.advance(level1.settle_s)
    first = target.snapshot()
    clock.advance(level1.window_s)
    window = window_between(first, target.snapshot())
    assert window is not None  # nothing happens to this server
    assert window.mean_ms is not None
    return window.mean_ms
