"""How much the autopilot may still do today; what a human changes does not count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from backend.config import SafetySection
from backend.domain.modes import TrialKind
from backend.policy_versions import ALL_VERSIONS, AUTOPILOT
from backend.protocols import Clock, Store

CHANGES, TRIALS = "max_changes_per_day", "max_trials_per_day"
"""The settings that bound a day, in section ``safety``."""
_NEWEST = 100_000


class DailyLimits:
    """Counts promotions and trials of the day, in UTC, those of earlier tuners included.

    Args:
        safety: the limits.
        store: what was done today already.
        clock: time.
    """

    def __init__(self, safety: SafetySection, store: Store, clock: Clock) -> None:
        self._safety, self._clock = safety, clock
        self._day = today = clock.now().date()
        self._promotions = sum(
            version.author == AUTOPILOT
            and version.trial_id is not None
            and version.created_at.date() == today
            for version in store.policy_versions(limit=ALL_VERSIONS)
        )
        self._trials = sum(
            trial.kind.is_experiment and trial.created_at.date() == today
            for trial in store.trials(limit=_NEWEST)
        )

    @property
    def left(self) -> Mapping[str, int]:
        """What is left of each limit today, by its setting."""
        self._turn()
        return {
            CHANGES: max(0, self._safety.max_changes_per_day - self._promotions),
            TRIALS: max(0, self._safety.max_trials_per_day - self._trials),
        }

    @property
    def may_promote(self) -> bool:
        """Whether one more promotion may be made."""
        return self.left[CHANGES] > 0

    @property
    def hindrance(self) -> str:
        """Why nothing new may be tried any more today; "" where something may."""
        if self.left[TRIALS] > 0:
            return ""
        return f"today's {self._safety.max_trials_per_day} trials are used up (safety.{TRIALS})"

    def began(self, kind: TrialKind) -> None:
        """A trial begins."""
        self._turn()
        self._trials += kind.is_experiment

    def promoted(self) -> None:
        """Something was promoted."""
        self._turn()
        self._promotions += 1

    def _turn(self) -> None:
        today: date = self._clock.now().date()
        if today != self._day:
            self._day, self._promotions, self._trials = today, 0, 0
