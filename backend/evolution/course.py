"""The course of an evolution as others see it: a sign of life in the store, and when it rests.

Its time is the time at work. While the tuner measures a baseline or the final comparison it rests,
and that does not count; nor does the time between a kill and the next start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from backend.domain.policies import EvolutionRecord
from backend.domain.records import EventRecord, StatusRecord
from backend.protocols import Store

LOOK_S = 1.0
"""How often it is looked whether to rest."""
TELL_S = 5.0
"""How often the store is told how far it is."""
STATUS_IS_OLD = timedelta(seconds=60)
"""A tuner that has not written its state for so long measures nothing."""
MOST_STARTS = 5
"""One that was killed so often is given up: something on this machine does not want it."""
LEFT_AFTER_A_KILL = 0.5
"""Share of its time that an evolution has again after a kill, so that it can still judge."""
RESTING = "resting while the tuner measures what nothing should disturb"
KIND = "evolution"
"""Of the events that tell of evolutions."""


class StoppedError(Exception):
    """Raised between two trials of a learning run: end now. Not an error of anybody's."""


@dataclass(frozen=True)
class Progress:
    """How far an evolution is, for people: the share of its time that is over, and what it does."""

    share: float
    text: str


def measures_alone(status: StatusRecord | None, now: datetime) -> bool:
    """Whether the tuner measures something that nothing should disturb."""
    return status is not None and status.measures_alone and now - status.at < STATUS_IS_OLD


def goes_on(last: EvolutionRecord) -> bool:
    """Whether an evolution is to be started again, where it is not at work."""
    return last.by_itself and last.ended_at is None and last.starts < MOST_STARTS


class Rest:
    """Lets an evolution rest while the tuner measures something that nothing should disturb.

    Args:
        store: the tuner's state is read from it.
        stop: ends the evolution.
        on_rest: called once a second of a rest.

    Attributes:
        rested_s: seconds so far.
    """

    def __init__(
        self,
        store: Store,
        stop: threading.Event | None = None,
        on_rest: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._stop, self._on_rest = store, stop or threading.Event(), on_rest
        self._look_at_s = 0.0
        self.rested_s = 0.0

    def attend(self) -> None:
        """Between two trials of a learning run: rest where that is due.

        Raises:
            StoppedError: the evolution is to end; finished genomes are kept.
        """
        if self._stop.is_set():
            raise StoppedError
        since_s = time.monotonic()
        if since_s < self._look_at_s:
            return
        while measures_alone(self._store.status(), datetime.now(timezone.utc)):
            self._on_rest()
            if self._stop.wait(LOOK_S):
                raise StoppedError
            now_s = time.monotonic()
            self.rested_s, since_s = self.rested_s + now_s - since_s, now_s
        self._look_at_s = since_s + LOOK_S


class Course:
    """See the module's text.

    Args:
        store: holds the record; the tuner's state is read from it.
        seconds: that the evolution may be at work, over all its starts.
        by_itself: the supervisor began it. Then one that was killed goes on; without it, another
            begins.
        stop: ends it.
        on_progress: told how far it is.

    Attributes:
        record: as the store has it.
        seconds: as given.
        attend: see :meth:`Rest.attend`.
    """

    def __init__(
        self,
        store: Store,
        seconds: float,
        *,
        by_itself: bool = False,
        stop: threading.Event | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._store, self.seconds, self._on_progress = store, seconds, on_progress
        self._rest = Rest(store, stop, lambda: self.tell(RESTING))
        self.attend = self._rest.attend
        self._began_s, self._tell_at_s = time.monotonic(), 0.0
        last, now = store.evolution(), datetime.now(timezone.utc)
        if by_itself and last is not None and goes_on(last):
            used_s = min(last.used_s, (1.0 - LEFT_AFTER_A_KILL) * seconds)
            self.record = replace(last, at=now, starts=last.starts + 1, used_s=used_s)
        else:
            self.record = EvolutionRecord(began_at=now, at=now, by_itself=by_itself)
        self._used_before_s = self.record.used_s
        store.save_evolution(self.record)
        if by_itself:
            begins = "goes on" if self.record.starts > 1 else "begins"
            self._event("info", f"an evolution {begins}: {self.left_s / 60:.1f} minutes at most")

    @property
    def used_s(self) -> float:
        """Seconds at work so far, those of earlier starts included."""
        return self._used_before_s + time.monotonic() - self._began_s - self._rest.rested_s

    @property
    def left_s(self) -> float:
        """Seconds that it may still be at work; below 0 where it takes longer."""
        return self.seconds - self.used_s

    def tell(self, text: str) -> None:
        """Tell how far it is, the store only now and then."""
        share = min(max(self.used_s / self.seconds, 0.0), 1.0)
        self._on_progress(Progress(share, text))
        if time.monotonic() < self._tell_at_s:
            return
        self._tell_at_s = time.monotonic() + TELL_S
        now = datetime.now(timezone.utc)
        self.record = replace(self.record, at=now, share=share, activity=text, used_s=self.used_s)
        self._store.save_evolution(self.record)

    def end(self, reason: str, *, deployed: bool = False, level: str = "info") -> None:
        """Record what came of it. In a transaction of the store with a deployment: both or none.

        Args:
            reason: for people.
            deployed: whether another genome stands since.
            level: of the event that tells it; "" for none, where nothing came of it.
        """
        now = datetime.now(timezone.utc)
        ended = replace(
            self.record, at=now, ended_at=now, share=1.0, activity="", used_s=self.used_s,
            reason=reason, deployed=deployed,
        )  # fmt: skip
        with self._store.transaction():
            self._store.save_evolution(ended)
            if level:
                self._event(level, reason)
        self.record = ended

    def _event(self, level: str, message: str) -> None:
        self._store.add_event(EventRecord(datetime.now(timezone.utc), level, KIND, message))
