"""Mode ``approve``: promotions that were proven, and wait for an operator's word.

The store is asked each time, since an operator may decide while no tuner runs.
"""

from __future__ import annotations

from dataclasses import replace

from backend.domain.experiment_plans import PromotionRecord, PromotionState
from backend.protocols import Clock, Store

OPEN = (PromotionState.WAITING, PromotionState.APPROVED)


class Approval:
    """Keeps the one promotion that waits.

    Args:
        store: keeps it, and shows it to operators.
        clock: time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    @property
    def promotion(self) -> PromotionRecord | None:
        """The one that waits for an operator, or was approved and is not deployed yet."""
        newest = self._store.promotions(limit=1)
        return newest[-1] if newest and newest[-1].state in OPEN else None

    @property
    def told(self) -> str:
        """What is waited for, for people; "" for nothing."""
        promotion = self.promotion
        if promotion is None:
            return ""
        if promotion.state is PromotionState.WAITING:
            return f"the promotion of trial {promotion.trial_id} waits for approval"
        return (
            f"the promotion of trial {promotion.trial_id} is approved, and deployed as soon as the "
            f"load is that of workload {promotion.workload} and nothing else stands against it"
        )

    def ask_for(self, trial_id: int, version_id: int, workload: int) -> None:
        """Let a promotion wait that was proven against that version, under that workload."""
        self._store.save_promotion(
            PromotionRecord(trial_id, version_id, workload, self._clock.now())
        )

    def grant(self, trial_id: int, actor: str) -> bool:
        """Let it be deployed; False when that trial's promotion does not wait."""
        return self._decide(trial_id, PromotionState.APPROVED, actor)

    def decline(self, trial_id: int, actor: str) -> bool:
        """Never deploy it; False when that trial's promotion neither waits nor is approved."""
        return self._decide(trial_id, PromotionState.DECLINED, actor)

    def settle(self, promotion: PromotionRecord, state: PromotionState, reason: str) -> None:
        """Record what became of it."""
        self._store.save_promotion(replace(promotion, state=state, reason=reason))

    def drop(self, reason: str) -> None:
        """What it was proven against does not stand any more, or nobody asks for it."""
        promotion = self.promotion
        if promotion is not None:
            self.settle(promotion, PromotionState.VOID, reason)

    def _decide(self, trial_id: int, state: PromotionState, actor: str) -> bool:
        promotion = self.promotion
        if promotion is None or promotion.trial_id != trial_id:
            return False
        if state is PromotionState.APPROVED and promotion.state is state:
            return False
        now = self._clock.now()
        self._store.save_promotion(
            replace(promotion, state=state, decided_at=now, decided_by=actor)
        )
        return True
