"""What the clients of a demonstration do besides their daily work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import psycopg2
from sqlalchemy.engine import URL

from backend.demonstration import ACT, GROWN_SHARE, GROWTH, SHIFT, SHIFTED_MIX
from backend.domain.records import EventRecord
from backend.errors import AutopilotError
from backend.protocols import Clock, Store
from backend.run_options import RunOptions
from backend.workload.growth import grow, shrink
from backend.workload.runner import Shift
from backend.workload.shape import StoreShape

log = logging.getLogger(__name__)


class ClientActs:
    """The acts of a demonstration that clients play: a shift of workload, growth of the data.

    Args:
        options: of the run; one that is no demonstration has no acts.
        url: the database that holds the demo store.
        mix, scale: of the workload.
        store: is told of each act.
        clock: time.
        stop: ends what is under way.

    Attributes:
        shift: what the workload has to offer in between; None where there is no shift.
    """

    def __init__(
        self,
        options: RunOptions,
        url: URL,
        mix: str,
        scale: float,
        store: Store,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._url, self._shape = url, StoreShape.at_scale(scale)
        self._store, self._clock, self._stop = store, clock, stop
        # Of a process that was started again a part of the run is over.
        self._begun_s = clock.monotonic_s() - options.past_s(clock.now())
        self.shift: Shift | None = None
        self._timeline: list[tuple[float, Callable[[], None]]] = []
        acts = {act.name: act for act in options.acts}
        past_s = clock.monotonic_s() - self._begun_s
        if SHIFT in acts:
            from_s, until_s = acts[SHIFT].span_s(options.duration_s or 0.0)
            self.shift = Shift(SHIFTED_MIX[mix], from_s - past_s, until_s - past_s)
            other = self.shift.mix
            self._timeline += [
                (from_s, lambda: self._tell(f"clients turn from {mix} to {other} work")),
                (until_s, lambda: self._tell(f"clients are back at {mix} work")),
            ]
        if GROWTH in acts:
            from_s, until_s = acts[GROWTH].span_s(options.duration_s or 0.0)
            self._timeline.append((from_s, lambda: self._grow(until_s - from_s)))
            self._shrinks = past_s < from_s
        else:
            self._shrinks = False

    def start(self) -> None:
        """Take away what an earlier run has grown; then play in a thread of its own."""
        if not self._timeline:
            return
        if self._shrinks:
            self._tried(lambda: shrink(self._url))
        threading.Thread(target=self._play, name="acts", daemon=True).start()

    def _play(self) -> None:
        for at_s, act in self._timeline:
            wait_s = at_s - (self._clock.monotonic_s() - self._begun_s)
            if wait_s < 0:
                continue  # played before this process was started again
            if self._stop.wait(wait_s):
                return
            self._tried(act)

    def _grow(self, within_s: float) -> None:
        self._tell(f"the data begins to grow by {GROWN_SHARE:.0%}")
        grow(self._url, self._shape, GROWN_SHARE, within_s, self._stop)
        self._tell("the data has grown")

    def _tried(self, act: Callable[[], None]) -> None:
        """The load goes on whatever becomes of an act."""
        try:
            act()
        except (AutopilotError, psycopg2.Error) as error:
            log.warning("an act of the demonstration failed: %s", str(error).strip())

    def _tell(self, message: str) -> None:
        self._store.add_event(EventRecord(self._clock.now(), "info", ACT, message))
