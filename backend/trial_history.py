"""What the store keeps of trials: how each ended, and how many ended so."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from backend.domain.modes import TrialState, Verdict
from backend.domain.records import EventRecord, TrialRecord
from backend.protocols import Clock, Store
from backend.trials import Trial

ORPHANED = "the tuner ended before it was done; what stood before stands again"
_NEWEST = 100_000


class TrialHistory:
    """Writes down trials and counts their verdicts, those of earlier tuners included.

    Make it under the one-tuner lock and after the journal was reconciled: then a trial without a
    verdict is nobody's any more, its candidate is off the server, and it counts as aborted.

    Attributes:
        verdicts: trials by the value of their verdict.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self.verdicts: Counter[str] = Counter()
        for trial in store.trials(limit=_NEWEST):
            if trial.verdict is None:
                trial = self._aborted(trial, *trial.reasons, ORPHANED)
            assert trial.verdict is not None  # set just now where it was missing
            self.verdicts[trial.verdict.value] += 1

    def save(self, trial: Trial) -> None:
        """Write down where it stands; a new one gets its id."""
        trial.record_id = self._store.save_trial(trial.record())

    def ended(self, trial: Trial) -> None:
        """Write down how it ended."""
        record = trial.record()
        self._store.save_trial(record)
        self.verdicts[(record.verdict or Verdict.ABORTED).value] += 1
        verdict = record.verdict.value if record.verdict else "?"
        told = f"{record.kind.value} {record.id}: {verdict}, {'; '.join(record.reasons)}"
        self._store.add_event(EventRecord(self._clock.now(), "info", "trial", told))

    def lost(self, trial: Trial, reason: str) -> None:
        """Its server is gone: it is over, and the journal is reconciled elsewhere."""
        self._aborted(trial.record(), reason)
        self.verdicts[Verdict.ABORTED.value] += 1

    def _aborted(self, record: TrialRecord, *reasons: str) -> TrialRecord:
        aborted = replace(
            record,
            state=TrialState.FINISHED,
            verdict=Verdict.ABORTED,
            reasons=reasons,
            finished_at=self._clock.now(),
        )
        self._store.save_trial(aborted)
        return aborted
