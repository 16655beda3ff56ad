"""Whole trials on the simulated database with its own noise."""

from __future__ import annotations

import math

import pytest

from backend.data_collector import window_between
from backend.domain.clock import ManualClock
from backend.domain.modes import TrialKind, Verdict
from backend.sample_filter import Reference
from backend.targets.simulated import LoadScript, Noise, SimulatedDatabase
from backend.trials import Trial
from tests.trial_bench import ALLOW, plan
from tests.windows import START


def _simulated(values, seed: int, kind: TrialKind = TrialKind.PROMOTION, **load) -> Trial:
    """A promotion on the simulated database with its own noise."""
    clock = ManualClock(START)
    target = SimulatedDatabase(clock=clock, noise=Noise(), load=LoadScript(**load), seed=seed)
    first = target.snapshot()
    clock.advance(120)
    baseline = window_between(first, target.snapshot())

    class Switch:
        def enter(self, entries, trial_id):
            target.write_entries(entries)
            target.reload()
            return "batch"

        def leave(self, batch_id, reason):
            target.write_entries(dict.fromkeys(values))
            target.reload()

    made = plan(
        kind, after=values, other_values=values, before={},
        shares=Reference.from_windows([baseline]), seed=seed,
    )  # fmt: skip
    trial = Trial(
        made,
        collect=target.snapshot,
        switch=Switch(),
        clock=clock,
        on_window=lambda measured: None,
        judge_safety=lambda found, incumbent, ratio: ALLOW,
    )
    while not trial.finished:
        trial.tick()
        clock.advance(0.5)
    assert target.effective_config == target.space.default_config()
    return trial


@pytest.mark.parametrize("seed", range(5))
def test_a_real_gain_is_promoted_on_the_simulated_database(seed):
    target = SimulatedDatabase()
    best = {
        name: value
        for name, value in target.best_config.items()
        if target.space[name].context != "restart"
    }
    truth = target.index_of(target.space.default_config().replace(best))
    assert truth < 0.8
    trial = _simulated(best, seed)
    assert trial.verdict is Verdict.ACCEPT
    assert math.exp(trial.effect_log_ratio) == pytest.approx(truth, rel=0.1)


@pytest.mark.parametrize("swing", [0.0, 0.3])
def test_nothing_to_gain_is_not_promoted_on_the_simulated_database(swing):
    """A/A: the candidate is what stands already. Of 30 trials 1.5 may pass by chance."""
    same = {"work_mem": 4096}
    found = [_simulated(same, 100 + seed, swing=swing).verdict for seed in range(30)]
    assert found.count(Verdict.ACCEPT) <= 2
