"""First guesses for classes that the plan agent has never seen, on the real server.

The agent is told what the search for the optimum measured of one half of the classes, drawn by
lot, and guesses for statements of the other half. Nothing is tried before the guess; what it gives
is measured then, beside the default plan and the class's measured optimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.domain.plans import DEFAULT_HINT_SET, ExplainedPlan, HintSet
from backend.query_optimizer import PlanAgent
from backend.steering.statements.read_only import ReadOnlyVerdict
from benchmarks.live_steering.bench import Bench, repeats_for, typical_s
from benchmarks.live_steering.comparison import TIMEOUT_FACTOR, TIMEOUT_SLACK_S
from benchmarks.live_steering.search import ClassOptimum

STATEMENTS_GUESSED = 3
ROUNDS = 3
UPDATES = 1000
WORSE = 1.1
"""A guess that takes longer than this many times the default plan is counted."""


def guess_half(bench: Bench, half: int, optima: Mapping[str, ClassOptimum]) -> dict[str, Any]:
    """Train on a random half of the classes and guess for the other one.

    Returns:
        ``trained_on``, and ``guesses``: for each statement its class, the hint set guessed, and the
        seconds of the default plan, of the guess and of the optimum.
    """
    rng = np.random.default_rng([bench.seed, half])
    order = [sorted(optima)[i] for i in rng.permutation(len(optima))]
    seen, unseen = order[: len(order) // 2], order[len(order) // 2 :]
    agent = PlanAgent(bench.catalog, seed=bench.seed + half)
    for name in seen:
        _tell(agent, bench, name, optima[name])
    agent.learn(UPDATES)
    guesses = []
    for name in unseen:
        for number in range(STATEMENTS_GUESSED):
            verdict = bench.verdict(name, "unseen", number)
            guess = agent.first_guess(name, _plans_of(bench, verdict))[0].hint_set
            guesses.append(_measured(bench, name, verdict, guess, optima[name].optimum, rng))
    return {"trained_on": sorted(seen), "guesses": guesses}


def _tell(agent: PlanAgent, bench: Bench, name: str, optimum: ClassOptimum) -> None:
    """Tell the agent every run of a class's search."""
    default = optimum.arms[0]
    for number, default_s in enumerate(default.latency_s):
        plan_of = _plans_of(bench, bench.verdict(name, "search", number))
        for arm in optimum.arms[1:]:
            log_ratio = math.log(arm.latency_s[number] / default_s)
            hint_set = bench.hint_set(arm.hint_sets[0])
            agent.tell(name, hint_set, log_ratio, plan_of, timed_out=arm.timed_out[number])


def _plans_of(bench: Bench, verdict: ReadOnlyVerdict) -> Callable[[HintSet], ExplainedPlan | None]:
    known: dict[HintSet, ExplainedPlan | None] = {}

    def plan_of(hint_set: HintSet) -> ExplainedPlan | None:
        if hint_set not in known:
            known[hint_set] = bench.plans(verdict, [hint_set])[0]
        return known[hint_set]

    return plan_of


def _measured(
    bench: Bench,
    name: str,
    verdict: ReadOnlyVerdict,
    guess: HintSet,
    optimum: str,
    rng: np.random.Generator,
) -> dict[str, Any]:
    default_s = bench.default_s(verdict)
    wanted = {"default": DEFAULT_HINT_SET, "guess": guess, "optimum": bench.hint_set(optimum)}
    distinct = list({hint_set.name: hint_set for hint_set in wanted.values()}.values())
    runs = bench.measured(
        verdict,
        distinct,
        TIMEOUT_FACTOR * default_s + TIMEOUT_SLACK_S,
        max(ROUNDS, repeats_for(default_s)),
        rng,
    )
    seconds = {
        hint_set.name: typical_s(of_one)[0] for hint_set, of_one in zip(distinct, runs, strict=True)
    }
    found = {f"{what}_s": seconds[hint_set.name] for what, hint_set in wanted.items()}
    return {"class": name, "guess": guess.name, **found}


@dataclass(frozen=True)
class GuessScore:
    """How good guesses were; seconds over all statements.

    Args:
        reached: share of what the optimum saves; None where that is nothing.
        worse: share of statements over ``WORSE`` times the default plan.
        moved: share of statements for which another plan than the default was guessed.
    """

    statements: int
    default_s: float
    guess_s: float
    optimum_s: float
    reached: float | None
    worse: float
    moved: float


def score(guesses: Sequence[Mapping[str, Any]]) -> GuessScore:
    """Add guesses up."""
    default_s, guess_s, optimum_s = (
        sum(guess[f"{what}_s"] for guess in guesses) for what in ("default", "guess", "optimum")
    )
    reachable_s = default_s - optimum_s
    return GuessScore(
        statements=len(guesses),
        default_s=default_s,
        guess_s=guess_s,
        optimum_s=optimum_s,
        reached=(default_s - guess_s) / reachable_s if reachable_s > 0.0 else None,
        worse=sum(g["guess_s"] > WORSE * g["default_s"] for g in guesses) / len(guesses),
        moved=sum(g["guess"] != DEFAULT_HINT_SET.name for g in guesses) / len(guesses),
    )
