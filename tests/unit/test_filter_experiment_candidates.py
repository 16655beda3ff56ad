"""The filter's experiment with known candidates in the agent's place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend.domain.modes import TrialKind, TrialState, Verdict
from backend.domain.records import TrialRecord
from backend.targets.simulated_model import ResponseModel
from benchmarks.filter_experiment.scenario import GAIN, response
from benchmarks.filter_experiment.script import Effect, Script, away, towards_best
from benchmarks.filter_experiment.scripted import VARIANTS, take
from benchmarks.filter_experiment.scripted import run_one as run_scripted
from tests.windows import START


def _script(seed: int) -> tuple[Script, ResponseModel]:
    model = response(seed)
    return Script(model, seed), model


@pytest.mark.parametrize("seed", range(3))
def test_the_steps_make_up_the_whole_way_and_both_arms_see_the_same(seed: int) -> None:
    script, model = _script(seed)
    steps = [c.log_effect for c in script.to_come if c.effect is Effect.GAIN]
    assert sum(steps) == pytest.approx(math.log(1 - GAIN), abs=1e-5)
    assert len(script.to_come) == 18
    assert script.to_come == Script(model, seed).to_come
    assert script.to_come != Script(model, seed + 1).to_come


@pytest.mark.parametrize("seed", range(3))
def test_a_candidate_does_what_the_script_says_wherever_it_is_tried(seed: int) -> None:
    script, model = _script(seed)
    best = model.best_config
    default = model.space.default_config()
    rng = np.random.default_rng(seed)
    for start in (default, towards_best(model, default, -0.3), best):
        for wanted in (0.0005, 0.1):
            there = math.log(model.index_of(away(model, start, wanted, rng)))
            assert there - math.log(model.index_of(start)) == pytest.approx(wanted, abs=1e-4)
    step = towards_best(model, default, -0.2)
    assert math.log(model.index_of(step)) == pytest.approx(-0.2, abs=1e-4)
    assert (model.latency_ms(step) <= model.latency_ms(default)).all()
    assert towards_best(model, step, -5.0) == best
    assert script.ask(default) != default


def test_what_was_missed_comes_again_and_what_was_found_does_not() -> None:
    script, model = _script(0)
    default, asked = model.space.default_config(), len(script.to_come)
    for _ in range(asked):
        script.ask(default)
        script.rejected()
    left = script.to_come
    assert {candidate.effect for candidate in left} == {Effect.GAIN}
    script.ask(default)
    script.unclear()
    assert script.to_come == (*left[1:], left[0])
    script.ask(default)
    script.deployed()
    assert script.to_come == (*left[2:], left[0])


def test_an_accepted_candidate_stays_on_trial_until_its_probation() -> None:
    script, model = _script(0)
    script.ask(model.space.default_config())
    tried = script.trying
    for kind, verdict in (
        (TrialKind.PROBE, Verdict.ACCEPT),
        (TrialKind.PROMOTION, Verdict.ACCEPT),
    ):
        take(script, _ended(kind, verdict))
        assert script.trying is tried
    take(script, _ended(TrialKind.PROBATION, Verdict.INCONCLUSIVE))
    assert script.to_come[-1] is tried
    with pytest.raises(ValueError, match="no candidate"):
        _ = script.trying


def test_a_harmful_candidate_that_stands_makes_the_way_longer() -> None:
    script, model = _script(0)
    while True:
        script.ask(model.space.default_config())
        tried = script.trying
        if tried.effect is Effect.HARM:
            break
        script.rejected()
    script.deployed()
    assert script.to_come[-1].effect is Effect.GAIN
    assert script.to_come[-1].log_effect == -tried.log_effect


def _ended(kind: TrialKind, verdict: Verdict) -> TrialRecord:
    return TrialRecord(
        kind=kind,
        state=TrialState.FINISHED,
        proposer="",
        created_at=START,
        before={},
        after={},
        verdict=verdict,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_on_known_candidates_counts_every_verdict(variant: str) -> None:
    result = run_scripted(0, variant, 0.5, 4)
    assert result.trials == 4
    assert sum(result.verdicts.values()) == 4
    assert result.windows >= 8
    assert result.void == 0 or variant == "filter on"
    assert result.trials_to_goal is None
    assert result.final_share < 0.95
