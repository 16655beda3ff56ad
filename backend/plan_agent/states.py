"""The state of a plan search as a vector: the plan, the toggles that are on, what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.agent.normalisation import RunningNormaliser
from backend.steering.plans.plan_features import FEATURE_NAMES

FloatArray = NDArray[np.float64]
ToggleSet = frozenset[int]
"""Toggles that are on, by their position in the catalogue; empty for the default plan."""

Hashes = frozenset[str]
"""Plan hashes."""

_COST = FEATURE_NAMES.index("cost")


@dataclass(frozen=True)
class Step:
    """A plan of one query, reached by some toggles.

    Args:
        plan_hash: of the plan; equal plans are one arm.
        features: the plan as numbers, not normalised.
    """

    plan_hash: str
    features: FloatArray

    @property
    def log_cost(self) -> float:
        """ln of the planner's estimate of its cost."""
        return float(self.features[_COST])


@dataclass(frozen=True)
class Outcome:
    """What a run of a plan showed.

    Args:
        gain: ln(default latency ÷ latency), clipped.
        censored: the run was timed out: the true gain is at most ``gain``.
    """

    gain: float
    censored: bool = False

    def with_later(self, later: Outcome) -> Outcome:
        """What both show: a run that ended more than a bound, and the lower bound the more.

        Of two that ended the later one counts: it saw fresher data.
        """
        if not later.censored:
            return later
        return min(self, later, key=lambda one: one.gain) if self.censored else self


@dataclass
class QueryRecord:
    """What is known of one statement with its parameters, told from others by its default plan.

    Args:
        default_hash: of the default plan, whose gain is 0 by definition.
        left_out: shape ``(members,)``, true for the networks that never see its class.
        steps: plans by the toggles that lead to them.
        outcomes: by plan hash.
    """

    default_hash: str
    left_out: NDArray[np.bool_]
    steps: dict[ToggleSet, Step] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def default(self) -> Step:
        """The default plan."""
        return self.steps[frozenset()]


class StateEncoder:
    """Makes states of equal width, normalising plans by all that were observed.

    A state holds the default plan's numbers, the present plan's as differences from them, which
    toggles are on, whether the present plan was measured (flag, gain, bound), and of all that was
    measured of the class before: how much, the best gain, and for each toggle the best gain and
    the lowest bound among the hint sets that it was part of.

    Args:
        toggles, features: how many the catalogue and a plan have.
    """

    def __init__(self, toggles: int, features: int) -> None:
        self.toggles = toggles
        self.width = 2 * features + 3 * toggles + 5
        self.plans = RunningNormaliser(2 * features)

    def observe(self, default: Step, step: Step) -> None:
        """Take one more plan into account for the normalisation."""
        self.plans.update(_compared(default, step))

    def known(self, told: Iterable[tuple[QueryRecord, Hashes]]) -> FloatArray:
        """What is known of a class, shape ``(2 * toggles + 2,)``.

        Args:
            told: the records of the class, each with the outcomes of it that are known.
        """
        gains, bounds = np.zeros(self.toggles), np.zeros(self.toggles)
        best, count = 0.0, 0
        for record, hashes in told:
            count += len(hashes)
            for on, step in record.steps.items():
                if step.plan_hash not in hashes:
                    continue
                outcome = record.outcomes[step.plan_hash]
                into, better = (bounds, min) if outcome.censored else (gains, max)
                for toggle in on:
                    into[toggle] = better(into[toggle] or outcome.gain, outcome.gain)
                best = best if outcome.censored else max(best, outcome.gain)
        return np.concatenate([gains, bounds, [best, np.log1p(count)]])

    def __call__(
        self,
        default: Step,
        step: Step,
        on: ToggleSet,
        outcomes: Mapping[str, Outcome],
        known: FloatArray,
    ) -> FloatArray:
        """The state, shape ``(width,)``.

        Args:
            default: the default plan.
            step: the present plan.
            on: the toggles that led to it.
            outcomes: what is known of the statement's own plans, by plan hash.
            known: what is known of its class, from :meth:`known`.
        """
        toggles = np.zeros(self.toggles)
        toggles[list(on)] = 1.0
        here = np.zeros(3)
        if step.plan_hash == default.plan_hash:
            here[0] = 1.0
        elif (outcome := outcomes.get(step.plan_hash)) is not None:
            here[0], here[2 if outcome.censored else 1] = 1.0, outcome.gain
        return np.concatenate([self.plans(_compared(default, step)), toggles, here, known])


def _compared(default: Step, step: Step) -> FloatArray:
    return np.concatenate([default.features, step.features - default.features])
