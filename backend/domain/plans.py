"""Hint sets, plans as numbers, and what running a plan showed.

A hint set is one arm of the search for better plans: a few planner settings for one statement.
Hint sets that lead to the same plan are one arm, so plans carry a hash of what they would do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from backend.errors import KnobError

_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,62}")
_SETTING = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,32}")


def _must_match(pattern: re.Pattern[str], text: object, what: str) -> None:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise KnobError(
            f"{what} is {text!r:.80}, and not of the form {pattern.pattern}",
            remedy="use letters, digits, dots, hyphens and underscores",
        )


@dataclass(frozen=True)
class HintSet:
    """A few planner settings of a session, applied to one statement at a time.

    Names and values are of letters, digits and ``_.+-`` only: they travel through the store, into
    SQL and into comments, and mean nothing else anywhere on that way.

    Args:
        name: what pages and reports call it.
        settings: setting → value as SQL text (``{"enable_nestloop": "off"}``); none of them is
            the plan that the server makes by itself. Kept sorted, cannot be changed.

    Raises:
        KnobError: a name or a value that is not of this alphabet.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _must_match(_NAME, self.name, "a hint set's name")
        for setting, value in self.settings.items():
            _must_match(_SETTING, setting, "a setting's name")
            _must_match(_VALUE, value, f"{setting}'s value")
        frozen = MappingProxyType(dict(sorted(self.settings.items())))
        object.__setattr__(self, "settings", frozen)

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.settings.items())))

    def __reduce__(self) -> tuple[type[HintSet], tuple[str, dict[str, str]]]:
        return HintSet, (self.name, dict(self.settings))

    @property
    def is_default(self) -> bool:
        """Whether it leaves the plan to the server."""
        return not self.settings


DEFAULT_HINT_SET = HintSet("default")


@dataclass(frozen=True, eq=False)
class PlanFeatures:
    """A plan as numbers.

    Args:
        names: what each number is, in order; the same for every plan of one layout.
        values: shape ``(len(names),)``, finite, not normalised; cannot be written to.

    Raises:
        ValueError: as many names as values are needed, each name once, each value finite.
    """

    names: tuple[str, ...]
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.shape != (len(self.names),) or len(set(self.names)) != len(self.names):
            raise ValueError(f"{len(self.names)} distinct names for values of {values.shape}")
        if not np.all(np.isfinite(values)):
            raise ValueError("the numbers of a plan are finite")
        values.setflags(write=False)
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "values", values)

    def __getitem__(self, name: str) -> float:
        return float(self.values[self.names.index(name)])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlanFeatures):
            return NotImplemented
        return self.names == other.names and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.names, self.values.tobytes()))

    @property
    def layout(self) -> str:
        """Digest of the names in their order; learned weights are bound to it."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ExplainedPlan:
    """What the planner would do for a statement under a hint set. Nothing has run.

    Args:
        plan_hash: 32 hexadecimal digits of all that decides how the plan runs: its structure and
            the settings that act while it runs, never costs. Equal: the same arm.
        features: the plan as numbers.
        cost: the planner's estimate of its total cost, in the planner's units.
        rows: the planner's estimate of the rows that it returns.
    """

    plan_hash: str
    features: PlanFeatures
    cost: float
    rows: float


@dataclass(frozen=True)
class Guess:
    """A hint set with what is expected of it.

    Args:
        hint_set: what to try.
        plan_hash: the plan that it leads to.
        expected_log_ratio: of ln(latency ÷ default latency); below 0 is faster. A measured plan's
            is that of its run; what is known to be slower than a bound is not expected below it.
        uncertainty: standard deviation of that, in the same unit; 0 where measured.
        promise: the gain that is left after caution; guesses are ranked by it.
        measured: whether a run of this plan was told (a time-out is none).
    """

    hint_set: HintSet
    plan_hash: str
    expected_log_ratio: float
    uncertainty: float
    promise: float
    measured: bool


class RunOutcome(Enum):
    """How a run ended; only FINISHED and TIMED_OUT say anything about the plan."""

    FINISHED = "finished"
    TIMED_OUT = "timed out"
    TOO_LARGE = "its answer is too large to compare"
    LOCKED = "waited for a lock"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class PlanRun:
    """One run of a statement under a hint set.

    Args:
        outcome: how it ended.
        latency_s: seconds from sending the statement to its end; of one that timed out the
            time-out, which the true latency passes (a censored observation).
        rows: how many rows it returned; None unless it finished.
        checksum: 32 hexadecimal digits that do not depend on the rows' order; None unless it
            finished.
        detail: what the server said where the run did not finish.
    """

    outcome: RunOutcome
    latency_s: float
    rows: int | None = None
    checksum: str | None = None
    detail: str = ""

    @property
    def timed_out(self) -> bool:
        """Whether ``latency_s`` is only a lower bound."""
        return self.outcome is RunOutcome.TIMED_OUT

    def same_answer(self, other: PlanRun) -> bool:
        """Whether both runs are known to have returned the same rows, in whatever order."""
        return (
            self.checksum is not None
            and self.checksum == other.checksum
            and self.rows == other.rows
        )


def distinct_arms(plan_hashes: Sequence[str | None]) -> tuple[tuple[int, ...], ...]:
    """Group hint sets that lead to the same plan.

    Args:
        plan_hashes: one for each hint set, None where there is no plan (it was refused).

    Returns:
        The indices of each group, ascending, in the order of the groups' first members.
    """
    groups: dict[str, list[int]] = {}
    for index, plan_hash in enumerate(plan_hashes):
        if plan_hash is not None:
            groups.setdefault(plan_hash, []).append(index)
    return tuple(tuple(group) for group in groups.values())
