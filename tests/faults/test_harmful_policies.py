"""Deliberately harmful knobs and hint sets never pass the gate, on the simulated server.

Each attempt is judged with the allowance of a day's first promotion: the strictest case for the
gate, since later ones of a day have less.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.domain.knobs import KnobConfig
from backend.domain.modes import TrialKind, Verdict
from backend.domain.plans import PlanRun, RunOutcome
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_model import FloatArray
from backend.trial_planner import TrialPlanner
from tests.scripted_tuner import ScriptedRun, promise
from tests.verification_fakes import (
    FakeRunner,
    carried_through,
    heavy_tails,
    hiccups,
    normal,
    verification,
)

ATTEMPTS = 100
NOISE = Noise(sigma=0.03, shared_sigma=0.03, per_call=0.5)
QUICK = {"window_s": 3, "settle_s": 0, "max_settle_s": 2, "rest_s": 0}


@pytest.fixture(autouse=True)
def _each_as_the_first_of_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialPlanner, "_alpha_of_the_day", lambda self: self._level1.alpha)


def harmful(model: ResponseModel, seed: int) -> Iterator[KnobConfig]:
    """Configurations that are worse by 3 % to 100 %, as many of each part of that range."""
    rng = np.random.default_rng(seed)
    default = model.space.default_config()
    for number in range(10**9):
        low = 1.03 * (2.0 / 1.03) ** (number % 10 / 10)
        high = 1.03 * (2.0 / 1.03) ** ((number % 10 + 1) / 10)
        while True:
            # A step of any length from the default one, into any corner.
            vector = model.space.encode(default)
            vector = vector + rng.uniform(0, 1) * rng.uniform(-2, 2, len(vector))
            config = _without_restarts(model, model.space.decode(np.clip(vector, -1, 1)))
            if low <= model.index_of(config) < high:
                yield config
                break


class HurtsOneClass(ResponseModel):
    """What makes the other classes faster makes the last one slower, as a hint set may."""

    def __init__(self, seed: int) -> None:
        self._hurts = False
        super().__init__(seed=seed)
        self._hurts = True
        self._known.clear()

    def _log_factors(self, config: KnobConfig) -> FloatArray:
        factors = super()._log_factors(config)
        if self._hurts:
            usual = super()._log_factors(self.space.default_config())
            factors[-1] = usual[-1] + 2 * np.mean(usual[:-1] - factors[:-1])
        return factors


def hurting_one_class(model: ResponseModel, seed: int) -> Iterator[KnobConfig]:
    """Configurations that gain 5 % or more in total, and make one class slower by 25 % or more."""
    rng = np.random.default_rng(seed)
    default = model.space.default_config()
    best, usual = model.space.encode(model.best_config), model.space.encode(default)
    for _ in range(10_000):
        vector = usual + rng.uniform(0.2, 1.2, len(best)) * (best - usual)
        config = _without_restarts(model, model.space.decode(np.clip(vector, -1, 1)))
        slower = np.max(model.latency_ms(config) / model.latency_ms(default))
        if model.index_of(config) < 0.95 and slower > 1.25:
            yield config


def _without_restarts(model: ResponseModel, config: KnobConfig) -> KnobConfig:
    fixed = {k.name: k.default for k in model.space if k.context == "restart"}
    return config.replace({name: value for name, value in fixed.items() if value is not None})


def nothing_was_deployed(run: ScriptedRun) -> bool:
    accepted = [t for t in run.of_kind(TrialKind.PROMOTION) if t.verdict is Verdict.ACCEPT]
    default = run.target.space.default_config()
    run.orchestrator.end()
    return not (
        accepted
        or run.entries
        or len(run.store.policy_versions()) > 1
        or run.target.effective_config != default
        or run.store.open_changes()
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_harmful_knobs_are_not_deployed(tmp_path: Path, seed: int) -> None:
    model = ResponseModel(seed=seed)
    target = SimulatedDatabase(model, noise=NOISE, seed=seed)
    configs = harmful(model, seed)
    run = ScriptedRun(tmp_path, target, lambda present: next(configs), **QUICK)

    def judged() -> list[Verdict]:
        found = [t.verdict for t in run.of_kind(TrialKind.PROBE) if t.verdict is not None]
        return [verdict for verdict in found if verdict is not Verdict.ABORTED]

    while len(judged()) < ATTEMPTS // 2:
        run.go(60)
    assert Counter(judged())[Verdict.REJECT] >= 0.8 * ATTEMPTS // 2
    assert nothing_was_deployed(run)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("draw", [harmful, hurting_one_class])
def test_not_even_where_they_pass_for_promising(tmp_path: Path, draw, seed: int) -> None:
    """Each goes straight to its promotion, as if a probe had been fooled."""
    model = HurtsOneClass(seed) if draw is hurting_one_class else ResponseModel(seed=seed)
    target = SimulatedDatabase(model, noise=NOISE, seed=seed)
    run = ScriptedRun(tmp_path, target, lambda present: present, **QUICK)
    run.go(200, until=lambda: run.loop.workloads.ready)
    default = model.space.default_config()
    verdicts: Counter[Verdict | None] = Counter()
    for config in draw(model, seed):
        changes = {name: config[name] for name in config if config[name] != default[name]}
        promise(run.loop, changes)
        before = len(run.of_kind(TrialKind.PROMOTION))
        run.go(900, until=lambda: run.loop.trial is not None)
        run.go(900, until=lambda: run.loop.trial is None)
        (trial,) = run.of_kind(TrialKind.PROMOTION)[before:]
        if trial.verdict is not Verdict.ABORTED:  # refused by the server's bounds
            verdicts[trial.verdict] += 1
        if verdicts.total() >= ATTEMPTS // 2:
            break
    assert verdicts[Verdict.REJECT] > verdicts[Verdict.INCONCLUSIVE]
    assert set(verdicts) <= {Verdict.REJECT, Verdict.INCONCLUSIVE}
    assert nothing_was_deployed(run)


def test_harmful_hint_sets_are_not_verified() -> None:
    """Slower by 3 % to 100 %, under all kinds of noise; each is verified as any proposal is."""
    draws = random.Random(0)
    for attempt in range(ATTEMPTS):
        statements = draws.choice((1, 2, 5, 8))
        slower = [np.log(draws.uniform(1.03, 2.0)) for _ in range(statements)]
        noise = draws.choice((normal, heavy_tails, hiccups))(draws.choice((0.05, 0.15, 0.4)))
        default_s = [draws.choice((0.002, 0.05, 1.0)) for _ in range(statements)]
        runner = FakeRunner(default_s, slower, noise, random.Random(attempt))
        result = carried_through(verification(runner, seed=attempt))
        assert not result.proven, (attempt, result.reason)


def test_hint_sets_that_gain_in_total_and_hurt_a_statement_are_not_verified() -> None:
    draws = random.Random(1)
    for attempt in range(ATTEMPTS):
        statements = draws.choice((2, 4, 8))
        ratios = [np.log(draws.uniform(0.3, 0.6)) for _ in range(statements)]
        ratios[draws.randrange(statements)] = np.log(draws.uniform(1.5, 2.5))
        noise = draws.choice((normal, heavy_tails))(draws.choice((0.05, 0.15)))
        runner = FakeRunner([0.5] * statements, ratios, noise, random.Random(attempt))
        result = carried_through(verification(runner, seed=attempt))
        assert not result.proven, (attempt, result.reason)


def test_hint_sets_that_are_fast_because_they_are_wrong_are_not_verified() -> None:
    for attempt in range(ATTEMPTS):
        runner = FakeRunner([0.1] * 3, [np.log(0.1)] * 3, normal(0.05), random.Random(attempt))
        at = 2 + attempt % 6
        wrong = PlanRun(RunOutcome.FINISHED, 0.01, rows=1, checksum="f" * 32)
        runner.outcomes = {(call, False): wrong for call in range(at, at + 100)}
        result = carried_through(verification(runner, seed=attempt))
        assert not result.proven, (attempt, result.reason)
