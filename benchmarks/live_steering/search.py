"""The measured optimum: every different plan of every class, timed on statements of its own.

Hint sets that lead to the same plans for all of a class's statements are one arm. All arms are run
on the same statements with a time-out a few times the default plan's latency; the fastest few are
then timed anew, several times, on other statements, and only that decides: the fastest of many
noisy measurements flatters itself. What the winner gives is measured once more, with everybody
else, in the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from backend.domain.plans import DEFAULT_HINT_SET, distinct_arms
from benchmarks.live_steering.bench import Bench, repeats_for, typical_s

STATEMENTS_SEARCHED = 3
STATEMENTS_AGAIN = 4
ROUNDS_AGAIN = 3
FINALISTS = 3
TIMEOUT_FACTOR, TIMEOUT_SLACK_S = 2.0, 0.05
AGAIN_TIMEOUT_FACTOR = 5.0
SINGLE_CANDIDATES = 4
SINGLE_TIMEOUT_FACTOR = 20.0
CLEAR_GAIN = 0.02
"""The default plan is the optimum of a class unless another is faster by this share."""


@dataclass(frozen=True)
class ArmTimes:
    """An arm: the hint sets that lead to it, the simplest first, and its latency by statement."""

    hint_sets: Sequence[str]
    latency_s: Sequence[float]
    timed_out: Sequence[bool]

    @property
    def total_s(self) -> float:
        """Over the statements; a lower bound where one was stopped."""
        return sum(self.latency_s)


@dataclass(frozen=True)
class ClassOptimum:
    """What searching a class showed; the first arm is the default plan."""

    arms: Sequence[ArmTimes]
    again_s: Mapping[str, float]
    optimum: str

    def as_json(self) -> dict[str, Any]:
        """As a results file holds it."""
        return asdict(self)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> ClassOptimum:
        """What a results file holds."""
        arms = [ArmTimes(**arm) for arm in found["arms"]]
        return cls(arms, found["again_s"], found["optimum"])

    def total_under(self, hint_set: str) -> float:
        """The class's time under a hint set, at least; infinite where it has no plan."""
        for arm in self.arms:
            if hint_set in arm.hint_sets:
                return arm.total_s
        return float("inf")


def search_class(bench: Bench, name: str) -> ClassOptimum:
    """Measure every arm of a class."""
    rng = np.random.default_rng(bench.seed)
    verdicts = [bench.verdict(name, "search", k) for k in range(STATEMENTS_SEARCHED)]
    hint_sets = bench.catalog.hint_sets
    plans = [bench.plans(verdict, hint_sets) for verdict in verdicts]
    together: list[str | None] = []
    for of_hint_set in zip(*plans, strict=True):
        hashes = [plan.plan_hash for plan in of_hint_set if plan is not None]
        together.append("+".join(hashes) if len(hashes) == len(verdicts) else None)
    groups = [
        sorted((hint_sets[i] for i in group), key=lambda h: len(h.settings))
        for group in distinct_arms(together)
    ]
    times: list[list[tuple[float, bool]]] = [[] for _ in groups]
    for verdict in verdicts:
        default_s = bench.default_s(verdict)
        runs = bench.measured(
            verdict,
            [group[0] for group in groups],
            TIMEOUT_FACTOR * default_s + TIMEOUT_SLACK_S,
            repeats_for(default_s),
            rng,
        )
        for found, of_arm in zip(times, runs, strict=True):
            found.append(typical_s(of_arm))
    arms = [
        ArmTimes([h.name for h in group], [s for s, _ in found], [late for _, late in found])
        for group, found in zip(groups, times, strict=True)
    ]
    finished = sorted(
        (arm for arm in arms[1:] if not any(arm.timed_out)), key=lambda arm: arm.total_s
    )
    finalists = [arm.hint_sets[0] for arm in finished[:FINALISTS]]
    again_s = _again(bench, name, finalists, rng)
    best = min(again_s, key=lambda hint_set: again_s[hint_set])
    clear = again_s[best] < (1.0 - CLEAR_GAIN) * again_s[DEFAULT_HINT_SET.name]
    return ClassOptimum(arms, again_s, best if clear else DEFAULT_HINT_SET.name)


def _again(
    bench: Bench, name: str, finalists: Sequence[str], rng: np.random.Generator
) -> dict[str, float]:
    """Time finalists and the default plan on statements that the search has not seen."""
    names = [DEFAULT_HINT_SET.name, *finalists]
    total_s = dict.fromkeys(names, 0.0)
    for number in range(STATEMENTS_AGAIN):
        verdict = bench.verdict(name, "again", number)
        default_s = bench.default_s(verdict)
        runs = bench.measured(
            verdict,
            [bench.hint_set(hint_set) for hint_set in names],
            AGAIN_TIMEOUT_FACTOR * default_s + TIMEOUT_SLACK_S,
            max(ROUNDS_AGAIN, repeats_for(default_s)),
            rng,
        )
        for hint_set, of_one in zip(names, runs, strict=True):
            total_s[hint_set] += typical_s(of_one)[0]
    return total_s


def best_single(bench: Bench, optima: Mapping[str, ClassOptimum]) -> dict[str, Any]:
    """The hint set that is best for all classes together, each run as often as the others.

    The search says which may be (its time-outs hide how bad a plan is); those are timed with long
    time-outs.
    """
    names = [hint_set.name for hint_set in bench.catalog.hint_sets]
    least_s = {
        hint_set: sum(optimum.total_under(hint_set) for optimum in optima.values())
        for hint_set in names
    }
    candidates = sorted(names, key=lambda hint_set: least_s[hint_set])[:SINGLE_CANDIDATES]
    total_s = dict.fromkeys(candidates, 0.0)
    rng = np.random.default_rng(bench.seed)
    for name in optima:
        verdict = bench.verdict(name, "single", 0)
        default_s = bench.default_s(verdict)
        runs = bench.measured(
            verdict,
            [bench.hint_set(hint_set) for hint_set in candidates],
            SINGLE_TIMEOUT_FACTOR * default_s + TIMEOUT_SLACK_S,
            max(ROUNDS_AGAIN, repeats_for(default_s)),
            rng,
        )
        for hint_set, of_one in zip(candidates, runs, strict=True):
            total_s[hint_set] += (
                typical_s(of_one)[0] if of_one[0].timed_out else
                median(run.latency_s for run in of_one)
            )  # fmt: skip
    best = min(total_s, key=lambda hint_set: total_s[hint_set])
    return {"hint_set": best, "total_s": total_s}
