"""When an evolution begins by itself: at ``level2.evaluation_interval``, where it disturbs nobody.

The first one begins as soon as enough was recorded. The supervisor asks. Nothing here loads a
network or an evolution.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta

from backend.config import Settings
from backend.domain.clock import SystemClock
from backend.domain.modes import Phase
from backend.errors import AutopilotError
from backend.evolution.course import goes_on, measures_alone
from backend.host_metrics import HostSampler, cgroup_limits
from backend.protocols import Clock, Store

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""How often the store is asked; nobody is kept waiting by it."""
BEGINS_IN = (Phase.LEARNING, Phase.OPTIMISED)
MOST_SHARE = 0.5
"""Of the interval that an evolution may take, where that is shorter than what is set."""
LEAST_NEW = 8
"""Transitions of the same knobs recorded since the last evolution began: as many as a problem is
fitted to."""
SILENT = timedelta(seconds=60)
"""One without a sign of life for so long was killed."""
NEEDED_BYTES = 1 << 30
"""Memory that an evolution takes, at most."""


def longest_s(settings: Settings, time_scale: float) -> float:
    """Seconds at work of an evolution that begins by itself."""
    level2 = settings.level2
    interval_s = level2.evaluation_interval / time_scale
    return min(60.0 * level2.evaluation_minutes, MOST_SHARE * interval_s)


class EvolutionSchedule:
    """See the module's text.

    Args:
        settings: sections level2 and safety.
        store: holds the last evolution, the tuner's state, and what was recorded.
        time_scale: so many times as fast passes the time of ``level2.evaluation_interval``.
        clock: time.
        host: measures the machine's memory.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        time_scale: float = 1.0,
        clock: Clock | None = None,
        host: HostSampler | None = None,
    ) -> None:
        self._settings, self._store = settings, store
        self._clock, self._host = clock or SystemClock(), host or HostSampler()
        self._interval = timedelta(seconds=settings.level2.evaluation_interval / time_scale)
        self._look_at_s = 0.0

    def due(self) -> bool:
        """Whether one is to be started now; asked often, it mostly answers without looking.

        Never raises: what cannot be known now is looked at again later.
        """
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return False
        self._look_at_s = now_s + LOOK_S
        try:
            hindrance = self.hindrance()
        except AutopilotError as error:
            hindrance = error.message
        if hindrance:
            log.debug("no evolution begins: %s", hindrance)
        return not hindrance

    def hindrance(self) -> str:
        """Why none begins now, for people; "" where one is due.

        Raises:
            StoreError: the store cannot be read.
        """
        now, last, status = self._clock.now(), self._store.evolution(), self._store.status()
        if status is None or status.phase not in BEGINS_IN or measures_alone(status, now):
            return "the tuner is not learning, or measures what nothing should disturb"
        if last is not None and last.ended_at is None and now - last.at < SILENT:
            return "one is at work"
        if last is None or not goes_on(last):
            if last is not None and now - last.began_at < self._interval:
                return "the interval has not passed"
            newest = self._store.transitions(limit=LEAST_NEW)
            if len(newest) < LEAST_NEW or (last is not None and newest[0].at <= last.began_at):
                return "too little was recorded since the last one"
            if any(one.knob_space != newest[-1].knob_space for one in newest):
                return "too little was recorded of the knobs that are tuned now"
        return self._no_room()

    def _no_room(self) -> str:
        """Why the machine has none for it; "" where it has."""
        if cgroup_limits().cpu_count is not None:
            return "processor time is metered here: whatever gives way would still use it up"
        return no_memory(self._host.sample().gauges, self._settings.safety.memory_limit_percent)


def no_memory(gauges: Mapping[str, float], limit_percent: float) -> str:
    """Why an evolution does not fit into the machine's memory; "" where it does."""
    needed_percent = 100.0 * NEEDED_BYTES / gauges["host_memory_bytes"]
    if gauges["host_memory_percent"] + needed_percent > limit_percent:
        return "memory is short"
    return ""
