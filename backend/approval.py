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

    @property
    def trial_id(self) -> int | None:
        """The id of the trial that waits, None where none does."""
        return self._trial.record_id if self._trial is not None else None

    def ask_for(self, trial: Trial) -> None:
        """Let the trial wait."""
        record = replace(trial.record(), reasons=(WAITING,))
        trial.record_id = self._store.save_trial(record)
        self._trial = trial

    def granted(self, trial_id: int) -> Trial | None:
        """The trial that was waiting under that id, which waits no more; None for none."""
        if trial_id != self.trial_id:
            return None
        trial, self._trial = self._trial, None
        return trial

    def drop(self, reason: str) -> None:
        """Abort the trial that waits, if any."""
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.abort(reason)
            self._store.save_trial(trial.record())
            self._verdicts[Verdict.ABORTED.value] += 1
