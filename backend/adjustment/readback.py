"""Looking whether a change is in effect: a change counts only once it was read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.catalog.entries import same_entry, same_value
from backend.domain.knobs import Knob, KnobValue
from backend.domain.server import KnobReading
from backend.protocols import Clock, TargetDatabase

FILE_SOURCE = "configuration file"
"""What the server names as the source of a value that comes from an entry."""
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.1
_UNKNOWN_VALUE_S = 0.25
"""How long to watch for a change where we cannot know the value to expect."""


@dataclass(frozen=True)
class Goal:
    """What a knob shall be: its entry (None: no entry) and, where known, the value in effect."""

    name: str
    entry: str | None
    value: KnobValue | None


class Readback:
    """Compares goals with what the server shows.

    Args:
        target: the server.
        knob_of: a knob's definition by its name, None where it is not catalogued (any more).
        clock: time.
        sleep: waits between two looks.
    """

    def __init__(
        self,
        target: TargetDatabase,
        knob_of: Callable[[str], Knob | None],
        clock: Clock,
        sleep: Callable[[float], None],
    ) -> None:
        self._target = target
        self._knob_of = knob_of
        self._clock = clock
        self._sleep = sleep

    def stands(self, goal: Goal, reading: KnobReading) -> bool:
        """Whether nothing has to be done for this goal.

        A value that the server's own files or defaults give already needs no entry of ours.
        """
        if reading.pending_restart or reading.override is not None:
            return False
        knob = self._knob_of(goal.name)
        if reading.entry is None and goal.entry is not None:
            if self._is_special(goal):
                default = None if knob is None else knob.default
                return reading.source == "default" and same_value(goal.value, default)
            return same_value(goal.value, reading.value)
        return same_entry(knob, goal.entry, reading.entry) and (
            goal.value is None or self._is_special(goal) or same_value(goal.value, reading.value)
        )

    def wait_for(self, goals: Sequence[Goal], timeout_s: float) -> Mapping[str, str]:
        """Look until all goals are met; return name → why not, for those that are not.

        Ends early where an entry is not (any more) what we wrote: waiting cannot mend that.
        """
        started_s = self._clock.monotonic_s()
        pause_s = _FIRST_PAUSE_S
        names = [goal.name for goal in goals]
        first: Mapping[str, KnobReading] | None = None
        while True:
            readings = self._target.read_knobs(names)
            first = first or readings
            waited_s = self._clock.monotonic_s() - started_s
            unmet, foreign, unsure = {}, False, False
            for goal in goals:
                reading = readings.get(goal.name)
                reason = self._why_unmet(goal, reading)
                if reason is not None:
                    unmet[goal.name] = reason
                    foreign = foreign or not self._entry_agrees(goal, reading)
                elif goal.value is None and reading is not None and waited_s < _UNKNOWN_VALUE_S:
                    unsure = unsure or reading == first.get(goal.name)
            if foreign or waited_s >= timeout_s or not (unmet or unsure):
                return unmet
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _why_unmet(self, goal: Goal, reading: KnobReading | None) -> str | None:
        if reading is None:
            return f"the server has no knob {goal.name}"
        if not self._entry_agrees(goal, reading):
            return f"the entry of {goal.name} is {reading.entry!r}, not {goal.entry!r}"
        if reading.override is not None and goal.entry is not None:
            return f"{goal.name} is set by {reading.override}, which wins over our entry"
        if goal.value is None or self._is_special(goal):
            return f"{goal.name} waits for a restart" if reading.pending_restart else None
        if not same_value(goal.value, reading.value):
            waits = ", and waits for a restart" if reading.pending_restart else ""
            return f"{goal.name} is {reading.value!r}, not {goal.value!r}{waits}"
        if goal.entry is not None and reading.source != FILE_SOURCE:
            return f"the value of {goal.name} comes from {reading.source}, not from our entry"
        return None

    def _entry_agrees(self, goal: Goal, reading: KnobReading | None) -> bool:
        return reading is not None and same_entry(
            self._knob_of(goal.name), goal.entry, reading.entry
        )

    def _is_special(self, goal: Goal) -> bool:
        """Whether the server shows another value than the one that was set (-1: it chooses)."""
        knob = self._knob_of(goal.name)
        return knob is not None and any(same_value(goal.value, s) for s in knob.special)
