"""How far guesses for classes that were never seen may be believed.

What the networks expect of a plan is checked on classes that they are kept from, against what
running it showed; so is what the planner says against it. The planner's costs are no latencies, but
a plan that it finds far dearer than its own is seldom fast: whoever claims that one is must have
been right about such claims.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from backend.plan_agent.replay import IntArray
from backend.plan_agent.states import FloatArray

PRIOR = np.array([0.75, 1.0])
"""Trust in the networks and in the planner before anything was checked."""
PRIOR_CLASSES = np.array([0.5, 2.0])
"""What that counts for: as many classes as if each had plans of gain, and of dearness, 1."""
UNPROVEN_SHORTFALL = 0.5
"""By how much guesses fall short before any was checked, in units of gain."""
UNPROVEN_CLASSES = 4.0
"""How many checked classes that counts for."""
ROUNDS = 8
"""Of fitting again with the bounds that are passed now."""


@dataclass(frozen=True)
class CheckedPlans:
    """Measured plans of some statements, and what was expected of them; all of shape ``(n,)``.

    Args:
        classes, statements: numbers of the class and of the statement.
        expected: gain by the networks that never saw the class.
        dearer: ln of the planner's cost over that of the default plan, 0 where it is less.
        gains: what running them showed.
        censored: the gain is only an upper bound.
    """

    classes: IntArray
    statements: IntArray
    expected: FloatArray
    dearer: FloatArray
    gains: FloatArray
    censored: NDArray[np.bool_]

    def came(self, believed: FloatArray) -> FloatArray:
        """What came of what was believed; below a bound it may all have come."""
        return np.where(self.censored, np.minimum(self.gains, believed), self.gains)


@dataclass(frozen=True)
class Belief:
    """What is left of an expected gain.

    Args:
        trust: share of the gain expected by the networks that comes true, in [0, 1].
        planner_trust: share of what the planner finds a plan dearer that is taken off, in [0, 1].
        shortfall: by how much a statement's best plan by these falls short, as a gain.
    """

    trust: float = float(PRIOR[0])
    planner_trust: float = float(PRIOR[1])
    shortfall: float = UNPROVEN_SHORTFALL

    def gain(self, expected: FloatArray, dearer: FloatArray | float) -> FloatArray:
        """The gain to believe in."""
        return self.trust * expected - self.planner_trust * dearer

    @classmethod
    def checked(cls, plans: CheckedPlans) -> Belief:
        """What held on these plans: least squares with a prior, each class of the same weight.

        Only plans that promised a gain are looked at. Statements of one class resemble each other,
        so that hundreds of plans may say no more than a few.
        """
        hopeful = np.flatnonzero(plans.expected > 0.0)
        _, member, count = np.unique(
            plans.classes[hopeful], return_inverse=True, return_counts=True
        )
        root_weights = np.sqrt(1.0 / count[member])
        said = np.stack([plans.expected, -plans.dearer], axis=1)
        rows = np.concatenate(
            [root_weights[:, None] * said[hopeful], np.diag(np.sqrt(PRIOR_CLASSES))]
        )
        shares = PRIOR
        for _ in range(ROUNDS):
            came = plans.came(said @ shares)[hopeful]
            wanted = np.concatenate([root_weights * came, np.sqrt(PRIOR_CLASSES) * PRIOR])
            shares = lsq_linear(rows, wanted, bounds=(0.0, 1.0)).x
        belief = cls(float(shares[0]), float(shares[1]))
        return replace(belief, shortfall=belief._shortfall_on(plans))

    def _shortfall_on(self, plans: CheckedPlans) -> float:
        """By how much the plan that this belief chooses for a statement falls short."""
        believed = self.gain(plans.expected, plans.dearer)
        missing = np.maximum(believed - plans.came(believed), 0.0) ** 2
        of_class: dict[int, list[float]] = {}
        for statement in np.unique(plans.statements):
            own = np.flatnonzero(plans.statements == statement)
            best = own[np.argmax(believed[own])]
            if believed[best] > 0.0:
                of_class.setdefault(int(plans.classes[best]), []).append(float(missing[best]))
        squares = sum(float(np.mean(found)) for found in of_class.values())
        doubt = UNPROVEN_CLASSES * UNPROVEN_SHORTFALL**2
        return math.sqrt((doubt + squares) / (UNPROVEN_CLASSES + len(of_class)))
