"""One query class's search: the plans that its hint sets lead to, and what running them showed.

A statement of the class stands for it. Nothing here talks to a server; who runs what, and when, is
:mod:`backend.steering.search.exploration`'s to decide.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from backend.domain.plans import (
    ExplainedPlan,
    HintSet,
    PlanRun,
    RunOutcome,
    distinct_arms,
)
from backend.domain.steering import ClassKey
from backend.steering.statements.read_only import ReadOnlyVerdict

_LEAST_DEFAULT_RUNS, _MOST_DEFAULT_RUNS = 2, 5
_ENOUGH_DEFAULT_S = 0.2
"""The default plan is measured twice, and up to five times until that took so long in all."""
_LEAST_S = 1e-6
_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 3600.0
_MOST_FAILURES = 3
TRANSIENT = (RunOutcome.LOCKED, RunOutcome.CANCELLED)
"""Outcomes that say nothing of the plan: it is run again later."""
OTHER_ANSWER = "its answer is not the default plan's"


def digest(statement: str) -> str:
    """What a statement with its literals is known by in the store."""
    return hashlib.sha256(statement.encode()).hexdigest()[:32]


@dataclass
class Arm:
    """A plan other than the default one, and what running it showed.

    Args:
        hint_set: leads to it.
        plan_hash: names it.
        latencies_s: of its runs that finished, seconds.
        compared_s: its latency from runs beside the default plan's, at the pace at which the
            default plan was measured first; None before. Its answer was found to be right then.
        bound_s: the longest time-out that it passed; 0 without one.
        closed: why it is not run any more; empty while it may be.
    """

    hint_set: HintSet
    plan_hash: str
    latencies_s: list[float] = field(default_factory=list)
    compared_s: float | None = None
    bound_s: float = 0.0
    closed: str = ""

    @property
    def latency_s(self) -> float | None:
        """Its latency as far as known, seconds; None before a run has finished."""
        if self.compared_s is not None:
            return self.compared_s
        return statistics.median(self.latencies_s) if self.latencies_s else None

    @property
    def is_tried(self) -> bool:
        """Whether it was run, or closed without."""
        return bool(self.latency_s or self.bound_s or self.closed)

    def note(self, run: PlanRun) -> None:
        """Learn from a run."""
        if run.outcome is RunOutcome.FINISHED:
            self.latencies_s.append(run.latency_s)
        elif run.outcome is RunOutcome.TIMED_OUT:
            self.bound_s = max(self.bound_s, run.latency_s)
        elif run.outcome in (RunOutcome.FAILED, RunOutcome.TOO_LARGE):
            self.closed = run.outcome.value


class ClassSearch:
    """What is known of a class's plans.

    Args:
        key: the class.
        verdict: of the read-only statement that stands for it.
        hint_sets: what is explained, the default first.
        first: a hint set to be tried before all others, if any: the one that was proven before.

    Attributes:
        plans: of the hint sets explained so far, in their order; None where planning took too long.
        extra: the plan of a hint set that is tried first, which need not be among ``hint_sets``.
        arms: plan hash → arm, of all plans but the default one.
        guessed: whether it was asked what to try first; ``first_arm`` is to be tried so.
        warm: whether the default plan has run once, for caches.
        answer: the default plan's last finished run.
        proven: hash of the plan that was verified; empty before.
        to_compare: the arm that runs beside the default plan next, in one snapshot, since its
            answer or its speed is in doubt; ``doubtful``: the run that raised the doubt.
        since_better: probes, of whatever class, since the fastest plan was found.
        failures: hint sets that were faster on trial and were not proven; ``failure`` says why.
        probes, spent_s: not in the register yet.
    """

    def __init__(
        self,
        key: ClassKey,
        verdict: ReadOnlyVerdict,
        hint_sets: Sequence[HintSet],
        first: HintSet | None = None,
    ) -> None:
        self.key, self.verdict = key, verdict
        self.statement = digest(verdict.statement)
        self.hint_sets = tuple(hint_sets)
        self.first = first
        self.plans: list[ExplainedPlan | None] = []
        self.extra: ExplainedPlan | None = None
        self.arms: dict[str, Arm] = {}
        self.warm = self.guessed = False
        self.answer: PlanRun | None = None
        self.proven = ""
        self.to_compare: Arm | None = None
        self.doubtful: PlanRun | None = None
        self.first_arm: Arm | None = None
        self.since_better = self.failures = 0
        self.failure = ""
        self.probes, self.spent_s = 0, 0.0
        self._explained: dict[frozenset[tuple[str, str]], ExplainedPlan | None] = {}
        self._default_s: list[float] = []
        self._pauses, self.rests_until_s = 0, 0.0

    # -- plans --------------------------------------------------------------------------------

    @property
    def unexplained(self) -> tuple[HintSet, ...]:
        """Hint sets whose plans are not known yet."""
        return self.hint_sets[len(self.plans) :]

    def add_plans(self, plans: Sequence[ExplainedPlan | None]) -> None:
        """Take the plans of the next hint sets; with the last ones come the arms.

        Raises:
            ValueError: the default plan is not known.
        """
        for hint_set, plan in zip(self.unexplained, plans, strict=False):
            self.remember(hint_set, plan)
        self.plans += plans
        if self.plans[0] is None:
            raise ValueError("without a default plan there is nothing to compare with")
        if self.unexplained:
            return
        for group in distinct_arms([plan.plan_hash if plan else None for plan in self.plans])[1:]:
            simplest = min(group, key=lambda index: len(self.hint_sets[index].settings))
            plan = self.plans[simplest]
            if plan is not None:
                self.arms[plan.plan_hash] = Arm(self.hint_sets[simplest], plan.plan_hash)

    def add_first(self, hint_set: HintSet, plan: ExplainedPlan | None) -> Arm | None:
        """Take a hint set that is to be tried first.

        Returns:
            Its arm; None where it leads to the default plan, to none, or to one that was tried.
        """
        if plan is None or plan.plan_hash == self.default_hash:
            return None
        self.extra = plan
        arm = self.arms.setdefault(plan.plan_hash, Arm(hint_set, plan.plan_hash))
        self.first_arm = None if arm.is_tried else arm
        return self.first_arm

    @property
    def default_hash(self) -> str:
        """Hash of the default plan; empty before it is known."""
        return self.plans[0].plan_hash if self.plans and self.plans[0] else ""

    def remember(self, hint_set: HintSet, plan: ExplainedPlan | None) -> None:
        """Keep what EXPLAIN told; None where planning took too long."""
        self._explained[frozenset(hint_set.settings.items())] = plan

    def is_explained(self, hint_set: HintSet) -> bool:
        """Whether EXPLAIN was asked for it."""
        return frozenset(hint_set.settings.items()) in self._explained

    def plan_under(self, hint_set: HintSet) -> ExplainedPlan | None:
        """The plan under a hint set, as far as known."""
        return self._explained.get(frozenset(hint_set.settings.items()))

    # -- the default plan -----------------------------------------------------------------------

    @property
    def default_s(self) -> float | None:
        """The default plan's latency: the median of its runs, without the one that warms up."""
        return statistics.median(self._default_s) if self._default_s else None

    @property
    def is_default_measured(self) -> bool:
        """Whether the default plan has run often enough."""
        runs = len(self._default_s)
        return runs >= _MOST_DEFAULT_RUNS or (
            runs >= _LEAST_DEFAULT_RUNS and sum(self._default_s) >= _ENOUGH_DEFAULT_S
        )

    @property
    def is_ready(self) -> bool:
        """Whether plans can be tried."""
        return not self.unexplained and self.is_default_measured and self.guessed

    def note_default(self, run: PlanRun) -> None:
        """Learn from a finished run of the default plan; the first one only warms up."""
        self.answer = run
        if self.warm:
            self._default_s.append(run.latency_s)
        self.warm = True

    def restore_default(self, latencies_s: Sequence[float]) -> None:
        """Take over what was measured before a restart."""
        self._default_s = list(latencies_s)
        self.warm = bool(latencies_s)

    # -- what was found ---------------------------------------------------------------------------

    @property
    def best_s(self) -> float:
        """The fastest plan's latency, that of the default one included.

        Raises:
            ValueError: the default plan was not measured yet.
        """
        if self.default_s is None:
            raise ValueError("the default plan was not measured yet")
        found = [a.latency_s for a in self.arms.values() if a.latency_s and not a.closed]
        return min(self.default_s, *found) if found else self.default_s

    def needs_comparison(self, run: PlanRun) -> bool:
        """Whether a run is faster than all before, but its answer is not known to be right."""
        same = self.answer is not None and run.same_answer(self.answer)
        return run.outcome is RunOutcome.FINISHED and not same and run.latency_s < self.best_s

    def note(self, arm: Arm, run: PlanRun) -> None:
        """Learn from a run of an arm, its answer found to be right where that matters."""
        best_s = self.best_s
        arm.note(run)
        if self.best_s < best_s:
            self.since_better = 0

    def note_comparison(
        self, arm: Arm, default: Sequence[PlanRun], runs: Sequence[PlanRun]
    ) -> None:
        """Learn from runs of both plans in one snapshot, all finished, with one answer.

        The machine may be faster or slower than when the default plan was measured; the ratio
        tells.
        """
        default_s = statistics.median(run.latency_s for run in default)
        ratio = statistics.median(run.latency_s for run in runs) / max(default_s, _LEAST_S)
        best_s = self.best_s
        self.answer = default[-1]
        arm.compared_s = ratio * (self.default_s or default_s)
        if self.best_s < best_s:
            self.since_better = 0

    def candidate(self, min_gain: float) -> Arm | None:
        """The fastest plan, where it promises ``min_gain`` over what is known to be good."""
        proven = self.arms.get(self.proven)
        reference_s = (proven.latency_s if proven else None) or self.default_s or 0.0
        open_arms = [arm for arm in self.arms.values() if arm.latency_s and not arm.closed]
        best = min(open_arms, key=lambda arm: arm.latency_s or 0.0, default=None)
        if best is None or best is proven or best.latency_s is None:
            return None
        return best if best.latency_s <= (1.0 - min_gain) * reference_s else None

    def is_exhausted(self, min_gain: float) -> bool:
        """Whether no plan is left that could still be faster than the best by ``min_gain``."""
        wanted_s = (1.0 - min_gain) * self.best_s
        return self.has_failed or all(
            arm.closed or arm.latency_s or arm.bound_s >= wanted_s for arm in self.arms.values()
        )

    @property
    def has_failed(self) -> bool:
        """Whether so many plans were not proven that the default one is left alone."""
        return self.failures >= _MOST_FAILURES

    def refuted(self, arm: Arm, reason: str) -> None:
        """An arm was not proven; it is not tried again."""
        arm.closed = self.failure = reason
        self.failures += 1

    @property
    def tried(self) -> int:
        """Arms that were run, or closed without."""
        return sum(arm.is_tried for arm in self.arms.values())

    # -- rest ------------------------------------------------------------------------------------

    def pause(self, now_s: float) -> None:
        """Somebody's lock is in the way, or the server is: rest, each time twice as long.

        Args:
            now_s: the clock's ``monotonic_s``.
        """
        self.rests_until_s = now_s + min(_PAUSE_S * 2.0**self._pauses, _LONGEST_PAUSE_S)
        self._pauses = min(self._pauses + 1, 10)

    def went_well(self) -> None:
        """A run came to an end of its own: the next pause is short again."""
        self._pauses = 0
