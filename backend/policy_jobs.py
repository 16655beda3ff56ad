"""What the tuner's job does for Level 1: learns policies when it is time, between trials."""

from __future__ import annotations

from collections.abc import Callable

from backend.domain.modes import Phase
from backend.domain.policies import PolicyUpdateRecord
from backend.domain.records import EventRecord
from backend.policy_learner import PolicyLearner
from backend.protocols import Clock, Store
from backend.steering.turns import ExplorationTurns

_LEARNS_IN = (Phase.LEARNING, Phase.OPTIMISED)


class PolicyJobs:
    """See the module's text.

    Args:
        learner: of Level 1.
        turns: while it learns nothing is tried: it takes a core for some seconds.
        store: is told of each update.
        clock: time.
        phase: of the tuning loop; nothing is learnt while a baseline or the end is measured.
    """

    def __init__(
        self,
        learner: PolicyLearner,
        turns: ExplorationTurns,
        store: Store,
        clock: Clock,
        phase: Callable[[], Phase],
    ) -> None:
        self._learner, self._turns = learner, turns
        self._store, self._clock, self._phase = store, clock, phase

    def learn(self) -> None:
        """Update the policies where it is time and nothing is on trial."""
        if self._phase() not in _LEARNS_IN or not self._learner.due():
            return
        if not self._turns.begin_work():
            return
        try:
            updates = self._learner.update()
        finally:
            self._turns.end_work()
        for update in updates:
            self._store.add_event(
                EventRecord(self._clock.now(), "info", "policy_update", _told(update))
            )


def _told(update: PolicyUpdateRecord) -> str:
    became = "deployed" if update.deployed else "not deployed"
    return f"a new {update.policy} policy was learnt and {became}: {update.reason}"
