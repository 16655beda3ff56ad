"""The end of a bounded run: what stands against what stood at its start, if it can be made."""

from __future__ import annotations

from backend.config import Level1Section
from backend.deployment import AUTOPILOT, Deployment
from backend.domain.modes import Mode, TrialKind
from backend.domain.records import EventRecord
from backend.protocols import Clock, Store
from backend.trial_planner import RunSchedule, TrialPlanner
from backend.trials import TrialPlan
from backend.workloads import Workloads

MAX_COMPARISONS = 3
"""So often it is begun; where each was aborted or lost its load, the run ends without one."""
GRACE_S = 60.0
"""So long a trial may run on when it is due; then that is aborted."""


class FinalComparison:
    """Plans the comparison when it is due, and says when it is given up.

    It is made on the workload that is offered then: no other one can be measured. It changes the
    server, so only mode ``auto`` makes it.
    """

    def __init__(
        self,
        schedule: RunSchedule,
        planner: TrialPlanner,
        deployment: Deployment,
        store: Store,
        clock: Clock,
        level1: Level1Section,
    ) -> None:
        self._store, self._clock = store, clock
        self._schedule, self._planner = schedule, planner
        self._deployment, self._level1 = deployment, level1
        self._begun = 0

    def due(self, now_s: float) -> bool:
        """Whether its moment has come."""
        return self._schedule.compare_at_s is not None and now_s >= self._schedule.compare_at_s

    def overdue(self, now_s: float) -> bool:
        """Whether a trial that still runs has to make room for it."""
        return self.due(now_s - GRACE_S)

    def gives_up(self, now_s: float, hindrance: str) -> bool:
        """Whether the run ends without it, which is told as an event.

        ``hindrance`` is what stands in its way just now, "" for nothing; it may last for as long
        as the comparison would have taken.
        """
        why = self._given_up(now_s, hindrance)
        if why:
            told = f"the final comparison could not be made ({why})"
            self._tell("warning", "not_compared", told)
        return bool(why)

    def _given_up(self, now_s: float, hindrance: str) -> str:
        mode = self._deployment.mode
        if mode is not Mode.AUTO or self._begun >= MAX_COMPARISONS:
            return f"tried {self._begun} times, mode {mode.value}"
        level1, blocks = self._level1, self._schedule.compare_blocks
        longest_s = 2 * blocks * 4 * (level1.window_s + level1.settle_s)
        return hindrance if hindrance and self.due(now_s - longest_s) else ""

    def plan(self, workloads: Workloads) -> TrialPlan:
        """The comparison on the workload in force; counts as one attempt."""
        self._begun += 1
        workload = workloads.in_force
        number, known = workload.number, len(workloads.known)
        told = f"the final comparison is made on workload {number} of {known}"
        self._tell("info", "final_comparison", told)
        former = self._deployment.root_entries()
        plan = self._planner.plan(
            TrialKind.FINAL,
            self._deployment.changed_since(former),
            AUTOPILOT,
            workload.chain.reference,
            workload.noise,
        )
        return self._planner.turned_around(plan, former, self._schedule.compare_blocks)

    def _tell(self, level: str, kind: str, message: str) -> None:
        self._store.add_event(EventRecord(self._clock.now(), level, kind, message))
