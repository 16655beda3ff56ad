"""A server, a journal and an adjuster that are made up, for the tests of the adjuster."""

from __future__ import annotations

from backend.domain.knobs import KnobValue
from backend.domain.modes import ChangeState
from backend.parameter_adjuster import AppliedBatch, ParameterAdjuster
from tests.fake_server import CATALOG, FakeClock, FakeJournal, FakeServer, Steps


class World:
    """A server, a journal and an adjuster under one lease."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.clock = FakeClock()
        self.server = FakeServer(self.steps)
        self.journal = FakeJournal(self.steps, self.clock)
        self.new_tuner()

    def new_tuner(self) -> None:
        self.steps.clear()
        self.epoch = self.journal.acquire_lease("tuner", 10.0)
        self.adjuster = ParameterAdjuster(
            self.server,
            self.journal,
            CATALOG,
            self.clock,
            sleep=self.clock.sleep,
        )

    def apply(
        self,
        *,
        trial_id: int | None = None,
        allow_restart: bool = False,
        **after: KnobValue | None,
    ) -> AppliedBatch:
        return self.adjuster.apply(
            after, actor="test", epoch=self.epoch, trial_id=trial_id, allow_restart=allow_restart
        )

    def states(self) -> list[ChangeState]:
        return [row.state for row in self.journal.rows.values()]
