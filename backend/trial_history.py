"""What earlier tuners left in the store's record of trials."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from backend.domain.modes import TrialState, Verdict
from backend.protocols import Clock, Store

ORPHANED = "the tuner ended before it was done; what stood before stands again"
_NEWEST = 100_000


def verdicts_so_far(store: Store, clock: Clock) -> Counter[str]:
    """Count the trials by verdict; those that a killed tuner left unfinished are aborted first.

    Call it under the one-tuner lock and after the journal was reconciled: then a trial without
    a verdict is nobody's any more, and its candidate is off the server.
    """
    verdicts: Counter[str] = Counter()
    for trial in store.trials(limit=_NEWEST):
        if trial.verdict is None:
            trial = replace(
                trial,
                state=TrialState.FINISHED,
                verdict=Verdict.ABORTED,
                reasons=(*trial.reasons, ORPHANED),
                finished_at=clock.now(),
            )
            store.save_trial(trial)
        assert trial.verdict is not None  # set just now where it was missing
        verdicts[trial.verdict.value] += 1
    return verdicts
