"""When a query class is explored, and when it is looked at again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.domain.steering import ClassKey, SteeredClassRecord, SteeringMode, SteeringState
from backend.protocols import Clock
from backend.steering.statements.read_only import ReadOnlyVerdict

LOOK_AGAIN = timedelta(days=1)
"""What was found out about a class, and each run, counts for so long."""
WITHDRAWN_FOR = timedelta(minutes=10)
"""The first pause of a class whose hint set was withdrawn; each further one is twice as long."""
LOOK_AT_PLAN = timedelta(minutes=10)
"""How often an EXPLAIN tells whether a class's default plan is still the same."""


@dataclass
class _DefaultPlan:
    """A class's default plan when its search ended, and when it is looked at next."""

    verdict: ReadOnlyVerdict
    plan_hash: str
    next_look: datetime


class Agenda:
    """Remembers, for each class, what it waits for.

    Args:
        clock: time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[ClassKey, tuple[SteeringState, datetime]] = {}
        self._withdrawals: dict[ClassKey, int] = {}
        self._not_before: dict[ClassKey, datetime] = {}
        self._default_plans: dict[ClassKey, _DefaultPlan] = {}
        self._other_plan: set[ClassKey] = set()

    def is_due(self, record: SteeredClassRecord) -> bool:
        """Whether a class that nothing is done for should be explored now.

        A class that was switched off is not, nor a pinned one: what is served there a human chose.
        """
        if record.mode is not SteeringMode.AUTO:
            return False
        state, since = self._seen.get(record.key, (None, None))
        if state is not record.state or since is None:
            since = record.updated_at
            self._seen[record.key] = record.state, since
        if record.state in (SteeringState.WAITING, SteeringState.EXPLORING):
            return True
        if record.state is SteeringState.WITHDRAWN:
            pause: timedelta = WITHDRAWN_FOR * 2 ** min(self._withdrawals.get(record.key, 0), 10)
            return self._clock.now() >= since + min(pause, LOOK_AGAIN)
        return record.key in self._other_plan or self._clock.now() >= since + LOOK_AGAIN

    def begin(self, record: SteeredClassRecord) -> None:
        """A class is explored from now on; anew, unless it was interrupted."""
        if record.state is SteeringState.WITHDRAWN:
            self._withdrawals[record.key] = self._withdrawals.get(record.key, 0) + 1
        if record.state not in (SteeringState.WAITING, SteeringState.EXPLORING):
            self._not_before[record.key] = self._clock.now()
        self._seen.pop(record.key, None)
        self._default_plans.pop(record.key, None)
        self._other_plan.discard(record.key)

    def end(self, key: ClassKey, verdict: ReadOnlyVerdict, default_hash: str) -> None:
        """A class's search is over; its default plan is watched from now on."""
        self._seen.pop(key, None)
        self.watch(key, verdict, default_hash)

    def watch(self, key: ClassKey, verdict: ReadOnlyVerdict, default_hash: str) -> None:
        """Have a class explored again when the default plan of this statement is another one."""
        next_look = self._clock.now() + LOOK_AT_PLAN
        self._default_plans[key] = _DefaultPlan(verdict, default_hash, next_look)

    def watches(self, key: ClassKey) -> bool:
        """Whether the class's default plan is watched."""
        return key in self._default_plans

    def measured_since(self, record: SteeredClassRecord) -> datetime:
        """Runs before this moment count no more: old ones, and those before the class changed."""
        oldest = self._clock.now() - LOOK_AGAIN
        if record.state not in (SteeringState.WAITING, SteeringState.EXPLORING):
            oldest = max(oldest, record.updated_at)
        return max(oldest, self._not_before.get(record.key, oldest))

    def plan_to_look_at(self, records: Mapping[ClassKey, SteeredClassRecord]) -> ClassKey | None:
        """A class whose default plan should be explained again; None where there is none."""
        now = self._clock.now()
        for key, plan in self._default_plans.items():
            record = records.get(key)
            if record is not None and record.mode is SteeringMode.AUTO and now >= plan.next_look:
                return key
        return None

    def verdict_of(self, key: ClassKey) -> ReadOnlyVerdict:
        """The statement whose default plan is watched."""
        return self._default_plans[key].verdict

    def looked_at(self, key: ClassKey, plan_hash: str | None) -> None:
        """An EXPLAIN told the default plan; None where it told nothing."""
        plan = self._default_plans[key]
        plan.next_look = self._clock.now() + LOOK_AT_PLAN
        if plan_hash is not None and plan_hash != plan.plan_hash:
            self._other_plan.add(key)
            del self._default_plans[key]
