"""Mode ``approve``: the one trial that waits for an operator's word."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from backend.domain.modes import Verdict
from backend.protocols import Store
from backend.trials import Trial

WAITING = "waiting for approval"


class Approval:
    """Holds the trial that waits.

    Args:
        store: shows it to the operator.
        verdicts: a trial that is dropped counts there as aborted.
    """

    def __init__(self, store: Store, verdicts: Counter[str]) -> None:
        self._store, self._verdicts = store, verdicts
        self._trial: Trial | None = None
        self._granted = False

    @property
    def trial_id(self) -> int | None:
        """The id of the trial that waits, None where none does."""
        return self._trial.record_id if self._trial is not None else None

    def ask_for(self, trial: Trial) -> None:
        """Let the trial wait."""
        record = replace(trial.record(), reasons=(WAITING,))
        trial.record_id = self._store.save_trial(record)
        self._trial = trial

    def grant(self, trial_id: int) -> bool:
        """Let the trial that waits begin as soon as it may; False when it is not that one."""
        self._granted = trial_id == self.trial_id
        return self._granted

    def decline(self, trial_id: int) -> bool:
        """Drop the trial that waits; False when it is not that one."""
        waits = trial_id == self.trial_id
        if waits:
            self.drop("declined by the operator")
        return waits

    def take(self) -> Trial | None:
        """The trial that was granted, which waits no more; None where there is none."""
        if not self._granted:
            return None
        trial, self._trial, self._granted = self._trial, None, False
        return trial

    def drop(self, reason: str) -> None:
        """Abort the trial that waits, if any."""
        trial, self._trial, self._granted = self._trial, None, False
        if trial is not None:
            trial.abort(reason)
            self._store.save_trial(trial.record())
            self._verdicts[Verdict.ABORTED.value] += 1
