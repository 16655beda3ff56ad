"""The demonstration's harmful change: put in force once, behind the gate's back."""

from __future__ import annotations

import logging
from collections.abc import Callable

from backend.demonstration import ACT, BAD_CHANGE, HARMFUL, INJECTED
from backend.domain.records import EventRecord
from backend.errors import AutopilotError
from backend.protocols import Clock, Store
from backend.run_options import RunOptions
from backend.tuning_loop import TuningLoop

log = logging.getLogger(__name__)

REASON = "put in force on purpose, to be found out: no trial has proven it"


class InjectedChange:
    """See the module's text.

    Args:
        options: of the run; one that is no demonstration has no such act.
        loop: deploys it between two trials.
        store: is told; it remembers what an earlier tuner of the run has done.
        clock: time.
        writable: whether a knob may be changed here.
    """

    def __init__(
        self,
        options: RunOptions,
        loop: TuningLoop,
        store: Store,
        clock: Clock,
        writable: Callable[[str], bool],
    ) -> None:
        self._loop, self._store, self._clock = loop, store, clock
        self._values = {name: value for name, value in HARMFUL.items() if writable(name)}
        act = next((act for act in options.acts if act.name == BAD_CHANGE), None)
        self._due_s: float | None = None
        if act is not None and self._values and not self._done_before(options):
            past_s = options.past_s(clock.now())
            at_s, _ = act.span_s(options.duration_s or 0.0)
            self._due_s = clock.monotonic_s() + at_s - past_s

    def tick(self) -> None:
        """Put it in force when it is time and no trial runs."""
        if self._due_s is None or self._clock.monotonic_s() < self._due_s:
            return
        try:
            if not self._loop.put_in_force(self._values, INJECTED, REASON):
                return
        except AutopilotError as error:
            log.warning("the demonstration's harmful change was not made: %s", error.message)
        else:
            told = ", ".join(f"{name} = {value}" for name, value in self._values.items())
            self._store.add_event(EventRecord(self._clock.now(), "info", ACT, f"{told}: {REASON}"))
        self._due_s = None

    def _done_before(self, options: RunOptions) -> bool:
        began = options.begun_at or self._clock.now().timestamp()
        return any(
            trial.proposer == INJECTED and trial.created_at.timestamp() >= began
            for trial in self._store.trials(limit=1000)
        )
