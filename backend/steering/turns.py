"""Whose turn it is: the tuner's trials or the explorer's statements. One experiment at a time.

The explorer saves up a share of the time that passes. With enough saved it asks for its turn, and
gets it when the trial that runs is over; no trial begins before the turn is over. The autopilot's
own heavy work (learning policies, trying candidates in a sandbox) goes between the two likewise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from backend.protocols import Clock

MIN_TURN_S = 5.0
"""Savings with which a turn begins: shorter ones would mostly interrupt."""
MAX_TURN_S = 60.0
"""The tuner waits no longer than this, and the statement that runs then."""
MAX_SAVED_S = 120.0
"""What is saved beyond it, in a long trial or a pause, is gone."""
_ASKED_FOR_S = 5.0
"""So long the tuner waits for an explorer that asked for its turn and does not take it."""


class ExplorationTurns:
    """Shared by the threads of the tuner, the explorer and the learner.

    Args:
        share: of the time that statements may be tried, in (0, 1].
        clock: time.

    Attributes:
        saved_s: seconds that the explorer may use; below 0 it owes some.
    """

    def __init__(self, share: float, clock: Clock) -> None:
        self.share, self._clock = share, clock
        self._lock = threading.Lock()
        self.saved_s, self._seen_s = 0.0, clock.monotonic_s()
        self._turn_began_s: float | None = None
        self._asked_until_s = 0.0
        self._trial_runs = False
        self._working = False
        self._disturbed = False

    def advance_tuner(self, tick: Callable[[bool], bool]) -> None:
        """Let the tuner act. No turn begins meanwhile.

        Args:
            tick: is told whether a trial may begin, and answers whether one runs.
        """
        with self._lock:
            asked = self._clock.monotonic_s() < self._asked_until_s
            free = self._turn_began_s is None and not self._working
            self._trial_runs = tick(free and not asked)

    def claim(self) -> bool:
        """Whether the explorer may try a statement now; begins a turn, or goes on with it.

        After True the statement's time is told with :meth:`spend`. A turn lasts until :meth:`end`,
        so that what follows its last statement belongs to it.
        """
        with self._lock:
            now_s = self._clock.monotonic_s()
            earned_s = self.share * (now_s - self._seen_s)
            self.saved_s, self._seen_s = min(self.saved_s + earned_s, MAX_SAVED_S), now_s
            if self._working:
                return False
            if self._turn_began_s is None:
                if self.saved_s < MIN_TURN_S:
                    return False
                if self._trial_runs:
                    self._asked_until_s = now_s + _ASKED_FOR_S
                    return False
                self._turn_began_s, self._asked_until_s = now_s, 0.0
            elif self.saved_s <= 0.0 or now_s - self._turn_began_s >= MAX_TURN_S:
                return False
            self._disturbed = True
            return True

    def spend(self, seconds: float) -> None:
        """Tell how long a statement took; what goes beyond the savings is owed."""
        with self._lock:
            self.saved_s -= seconds

    def end(self) -> None:
        """The turn is over. Idempotent; a turn that was only asked for is still asked for."""
        with self._lock:
            self._turn_began_s = None

    def begin_work(self) -> bool:
        """Whether the autopilot may load the machine now, to learn: nothing is tried meanwhile.

        Where something is, it is asked for; after True, :meth:`end_work` ends it.
        """
        with self._lock:
            if self._trial_runs or self._turn_began_s is not None:
                self._asked_until_s = self._clock.monotonic_s() + _ASKED_FOR_S
                return False
            self._working = self._disturbed = True
            self._asked_until_s = 0.0
            return True

    def end_work(self) -> None:
        """Trials and statements may begin again. Idempotent."""
        with self._lock:
            self._working = False

    @property
    def exploring(self) -> bool:
        """Whether the explorer has its turn. Never waits, not even for a long tick of the tuner."""
        return self._turn_began_s is not None

    def disturbed_since_asked(self) -> bool:
        """Whether our own doings may have loaded the server since this was asked last."""
        with self._lock:
            disturbed = self._disturbed
            self._disturbed = self._turn_began_s is not None or self._working
            return disturbed
