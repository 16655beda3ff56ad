"""What earlier trials on this server say of a knob: measured effects with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backend.advice.quoting import exact_text
from backend.catalog.entries import same_value
from backend.catalog.knobs import KnobCatalog
from backend.domain.knobs import KnobValue
from backend.domain.modes import TrialKind, TrialState, Verdict
from backend.domain.records import TrialRecord
from backend.telemetry.wording import interval, percent

_PROOFS = (TrialKind.PROMOTION, TrialKind.PROBATION, TrialKind.RECHECK)


class TrackRecord:
    """The recorded trials of one server.

    Args:
        trials: of this server, oldest first; empty where none is recorded.
        catalog: its knobs.
    """

    def __init__(self, trials: Iterable[TrialRecord], catalog: KnobCatalog) -> None:
        self._catalog = catalog
        self._trials = [
            trial
            for trial in trials
            if trial.state is TrialState.FINISHED
            and trial.kind in _PROOFS
            and trial.verdict in (Verdict.ACCEPT, Verdict.REJECT)
            and trial.effect is not None
        ]

    def newest(self, knob: str, value: KnobValue) -> TrialRecord | None:
        """The newest trial that gave a knob this value."""
        return next(
            (
                trial
                for trial in reversed(self._trials)
                if knob in _moved(trial) and same_value(trial.after[knob], value)
            ),
            None,
        )

    def proven(self) -> Mapping[str, TrialRecord]:
        """For each knob the newest trial that moved it, where it was accepted."""
        newest = {name: trial for trial in self._trials for name in _moved(trial)}
        return {name: t for name, t in newest.items() if t.verdict is Verdict.ACCEPT}

    def told(self, trial: TrialRecord, knob: str) -> str:
        """A trial in words: its effect on the latency index, and what else it moved."""
        bounds = interval(trial.ci_low, trial.ci_high, signed=True)
        at = f"{trial.finished_at or trial.created_at:%Y-%m-%d}"
        text = (
            f"measured here on {at}: {percent(trial.effect, signed=True)} of the latency index"
            f"{f' ({bounds} at {trial.confidence:.1%})' if bounds else ''}, "
            f"{trial.kind.value} {'accepted' if trial.verdict is Verdict.ACCEPT else 'rejected'}"
        )
        others = [
            f"{name} = {self._shown(name, trial.after[name])}"
            for name in sorted(_moved(trial) - {knob})
        ]
        return f"{text}, together with {', '.join(others)}" if others else text

    def _shown(self, name: str, value: KnobValue) -> str:
        if name not in self._catalog:
            return str(value)
        return exact_text(self._catalog.knob(name).knob, value)


def _moved(trial: TrialRecord) -> set[str]:
    return {
        name for name, value in trial.after.items() if not same_value(trial.before.get(name), value)
    }
