"""The plan policy: a default plan in, the hint sets to try first out.

Advantage-weighted regression as for knobs, over a finite set of actions: the hint sets that were
run in several query classes, and the default plan. docs/policy-learning.md has every formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from backend.domain.plans import DEFAULT_HINT_SET, ExplainedPlan, Guess, HintSet
from backend.errors import CheckpointError, KnobError
from backend.gate import Interval
from backend.policy.knob_policy import HIDDEN, MAX_WEIGHT, TEMPERATURE, States
from backend.policy.networks import Stack, fit
from backend.policy.off_policy import BOOTSTRAPS, MIN_CLUSTERS, Estimate
from backend.policy.recorded_plans import RecordedPlans
from backend.policy.recorded_trials import FOLDS, FloatArray, IntArray
from backend.protocols import PlanGuesser
from backend.steering.plans.plan_features import FEATURE_NAMES

FORMAT = 1
STEPS = 500
FAVOURITES = 3
"""So many hint sets at most are put before the plan agent's."""


@dataclass(frozen=True, eq=False)
class PlanPolicy:
    """A deployable policy.

    Args:
        arms: hint sets; the first is the default plan.
        states: how plans are seen.
        network: one copy; a default plan in, a score for each arm out.
        usual: each arm's mean gain where it was measured, and its spread: ``(2, arms)``.
    """

    arms: tuple[HintSet, ...]
    states: States
    network: Stack
    usual: FloatArray

    def choices(self, features: FloatArray) -> IntArray:
        """The favourite arm for each default plan, shape ``(n,)``."""
        return np.asarray(self.network(self.states(features))[0].argmax(axis=1))

    def favourites(self, features: FloatArray) -> list[int]:
        """Arms that it likes better than the default plan, best first."""
        scores = self.network(self.states(features[None]))[0, 0]
        ranked = np.argsort(-scores, kind="stable")[:FAVOURITES]
        return [int(arm) for arm in ranked if scores[arm] > scores[0]]

    def file(self) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
        """All that :meth:`restored` needs, for a file of weights."""
        about = {
            "format": FORMAT,
            "policy": "plan",
            "features": list(FEATURE_NAMES),
            "arms": [[arm.name, dict(arm.settings)] for arm in self.arms],
        }
        return about, {**self.network.arrays(), **self.states.arrays(), "usual": self.usual}

    @classmethod
    def restored(
        cls, about: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]
    ) -> PlanPolicy:
        """From what :meth:`file` gave.

        Raises:
            CheckpointError: it is damaged, or of plans of another layout.
        """
        try:
            if (about["format"], about["policy"]) != (FORMAT, "plan"):
                raise ValueError("not a plan policy of this version")
            if about["features"] != list(FEATURE_NAMES):
                raise ValueError("of plans of another layout")
            arms = tuple(HintSet(str(name), settings) for name, settings in about["arms"])
            states = States.restored(arrays, len(FEATURE_NAMES))
            usual = np.asarray(arrays["usual"], np.float64)
            network = Stack.restored(arrays, squashed=True)
            if network.layers[0].shape[:2] != (1, len(FEATURE_NAMES)):
                raise ValueError(f"a network that takes {network.layers[0].shape}")
            if network.layers[-1].shape[2] != len(arms) or usual.shape != (2, len(arms)):
                raise ValueError(f"{network.layers[-1].shape[2]} answers for {len(arms)} hint sets")
        except (KeyError, TypeError, ValueError, KnobError) as error:
            raise CheckpointError(f"a plan policy cannot be used: {error}"[:500]) from error
        return cls(arms, states, network, usual)


class PolicyGuesser:
    """A `PlanGuesser` whose first guesses are the deployed plan policy's favourites.

    Where the plan agent's best guess was measured for the statement itself, that stands first: a
    measurement knows more. Telling goes to the agent alone.

    Args:
        agent: guesses the rest.
        policy: the deployed policy now; None where there is none.
    """

    def __init__(self, agent: PlanGuesser, policy: Callable[[], PlanPolicy | None]) -> None:
        self._agent, self._policy = agent, policy

    def first_guess(
        self, query_class: str, plan_of: Callable[[HintSet], ExplainedPlan | None]
    ) -> Sequence[Guess]:
        """The policy's favourites that lead to plans of their own, then the agent's guesses."""
        guesses = self._agent.first_guess(query_class, plan_of)
        policy, default = self._policy(), plan_of(DEFAULT_HINT_SET)
        best = guesses[0] if guesses else None
        if policy is None or default is None or default.features.names != FEATURE_NAMES:
            return guesses
        if best is not None and best.measured and not best.hint_set.is_default:
            return guesses
        known = {guess.plan_hash: guess for guess in guesses}
        known.setdefault(default.plan_hash, Guess(DEFAULT_HINT_SET, "", 0.0, 0.0, 0.0, True))
        favourites: dict[str, Guess] = {}
        for arm in policy.favourites(default.features.values):
            plan = plan_of(policy.arms[arm])
            if plan is None or plan.plan_hash in favourites:
                continue
            guess = known.get(plan.plan_hash)
            if guess is None:
                gain, spread = map(float, policy.usual[:, arm])
                guess = Guess(policy.arms[arm], plan.plan_hash, -gain, spread, gain, False)
            if not guess.measured:
                favourites[plan.plan_hash] = guess
        others = [guess for guess in guesses if guess.plan_hash not in favourites]
        return [*favourites.values(), *others]

    def tell(
        self,
        query_class: str,
        hint_set: HintSet,
        log_ratio: float,
        plan_of: Callable[[HintSet], ExplainedPlan | None],
        *,
        timed_out: bool = False,
    ) -> None:
        """Tell the agent."""
        self._agent.tell(query_class, hint_set, log_ratio, plan_of, timed_out=timed_out)


def learn_plan_policies(
    data: RecordedPlans, *, seed: int, stopped: Callable[[], bool] = lambda: False
) -> list[PlanPolicy]:
    """A policy for each fold, learnt on the classes that it does not hold, and one on all."""
    folds = data.folds()
    statement, arm = np.nonzero(data.spoken_for)
    gains = data.gains[statement, arm]
    counts = data.spoken_for.sum(axis=1)
    means = np.bincount(statement, gains, minlength=len(data)) / np.maximum(counts, 1)
    advantages = gains - means[statement]
    spread = float(advantages.std())
    scaled = advantages / (TEMPERATURE * spread) if spread > 0.0 else advantages
    weights = np.minimum(np.exp(np.minimum(scaled, 50.0)), MAX_WEIGHT)
    # A bound vouches for nothing, and each statement counts once.
    weights = np.where(data.bounds[statement, arm], 0.0, weights)
    total = np.bincount(statement, weights, minlength=len(data))
    weights = weights / np.where(total > 0.0, total, 1.0)[statement]
    seen = np.array([folds != fold for fold in range(FOLDS)] + [np.ones(len(data), np.bool_)])
    states = States.of(data.features)
    network = fit(
        states(data.features)[statement],
        np.where(np.eye(len(data.arms), dtype=np.bool_)[arm], 1.0, -1.0)[None],
        seen[:, statement] * weights,
        bounds=np.zeros(len(statement), dtype=np.bool_),
        hidden=HIDDEN,
        steps=STEPS,
        seed=seed,
        squashed=True,
        stopped=stopped,
    )
    usual = _usual(data)
    return [
        PlanPolicy(data.arms, states, network.copies(slice(copy, copy + 1)), usual)
        for copy in range(len(seen))
    ]


def _usual(data: RecordedPlans) -> FloatArray:
    """Mean and spread of each arm's gains; 1 for the spread of a single one."""
    pairs = []
    for column in data.gains.T:
        known = column[~np.isnan(column)]
        mean = float(known.mean()) if len(known) else 0.0
        pairs.append((mean, float(known.std(ddof=1)) if len(known) > 1 else 1.0))
    return np.array(pairs).T


def estimate_plans(
    data: RecordedPlans, candidate: IntArray, incumbent: IntArray | None, *, alpha: float, seed: int
) -> Estimate:
    """What the candidate's first choices gain over the incumbent's, where both were measured.

    Args:
        data: what was recorded.
        candidate, incumbent: an arm for each statement; None: what was done without a policy.
        alpha: chance that a side of the interval misses.
        seed: of the bootstrap over query classes.
    """
    new = data.outcome(candidate, pessimistic=True)
    stood = data.without_policy() if incumbent is None else incumbent
    old = data.outcome(stood, pessimistic=False)
    known = ~np.isnan(new) & ~np.isnan(old)
    if not known.any():
        return Estimate(None, 0.0, 0.0, len(data))
    _, classes = np.unique(data.classes[known], return_inverse=True)
    statements = np.bincount(classes.ravel())
    gains = np.bincount(classes.ravel(), (new - old)[known]) / statements
    count, coverage = len(gains), float(known.mean())
    if count < MIN_CLUSTERS:
        return Estimate(None, coverage, float(count), len(data))
    drawn = np.random.default_rng(seed).integers(count, size=(BOOTSTRAPS, count))
    margin = float(stats.t.ppf(1.0 - alpha, count - 1)) * float(gains[drawn].mean(axis=1).std())
    interval = Interval.of_log(-float(gains.mean()), margin * (count / (count - 1)) ** 0.5)
    return Estimate(interval, coverage, float(count), len(data))
