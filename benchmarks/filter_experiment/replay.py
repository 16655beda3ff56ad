"""A/A promotions on noise resampled from recorded windows of a live server.

A store's windows of one configuration are cut into runs of neighbours; runs drawn by lot and laid
end to end (the moving block bootstrap of Kuensch, 1989, doi:10.1214/aos/1176347265) give a new
course of the same noise, autocorrelation within a run included. The product's own trial measures
it with both arms alike: whatever it promotes is false.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.config import Settings
from backend.domain.clock import ManualClock
from backend.domain.metrics import (
    MetricsSnapshot,
    MetricsWindow,
    QueryCounters,
    QueryKey,
    QueryWindow,
)
from backend.domain.modes import Arm, TrialKind, Verdict
from backend.domain.records import WindowRecord
from backend.errors import ConfigError
from backend.sample_filter import Reference
from backend.telemetry import open_store
from benchmarks.filter_experiment.single_trials import (
    NoSwitch,
    promotion_plan,
    run_trial,
    safety_judge,
)

MAX_GAP_S = 60.0
"""Windows further apart belong to different runs: what lay between is not known."""
RUN_S = 90.0
"""Length of the pieces that are drawn; several windows, far longer than their correlation."""
MIN_SECONDS = 300.0
"""Configurations that were measured for a shorter time are left out."""
EPOCH = datetime(2024, 1, 1, tzinfo=timezone.utc)
CUMULATIVE = ("xact_commit", "xact_rollback", "checkpoints_timed", "checkpoints_requested")
LEVELS = (
    "connections_active",
    "connections_idle",
    "connections_idle_in_transaction",
    "host_cpu_percent",
    "host_memory_percent",
    "host_steal_percent",
    "maintenance_running",
)


@dataclass(frozen=True)
class Recording:
    """Windows of one configuration of one store, in the order of time."""

    source: str
    windows: tuple[MetricsWindow, ...]

    @property
    def seconds(self) -> float:
        """Seconds measured."""
        return sum(window.duration_s for window in self.windows)

    @cached_property
    def starts(self) -> list[int]:
        """Indices of the windows that a run of :data:`RUN_S` can begin with."""
        return [start for start in range(len(self.windows)) if self._run(start)]

    def _run(self, start: int) -> tuple[MetricsWindow, ...]:
        """Neighbours from ``start`` on that last for a piece; () where they do not."""
        found = [self.windows[start]]
        for before, after in pairwise(self.windows[start:]):
            if sum(window.duration_s for window in found) >= RUN_S:
                return tuple(found)
            if (after.started_at - before.ended_at).total_seconds() > MAX_GAP_S:
                return ()
            found.append(after)
        return tuple(found) if sum(window.duration_s for window in found) >= RUN_S else ()

    def course(self, seconds: float, rng: np.random.Generator) -> list[MetricsWindow]:
        """Runs drawn by lot, laid end to end for at least so many seconds."""
        course: list[MetricsWindow] = []
        lasted_s = 0.0
        while lasted_s < seconds:
            piece = self._run(self.starts[int(rng.integers(len(self.starts)))])
            course.extend(piece)
            lasted_s += sum(window.duration_s for window in piece)
        return course


def recordings(paths: Sequence[Path]) -> list[Recording]:
    """What the stores hold, by configuration.

    Raises:
        ConfigError: nowhere is there enough of one configuration.
        StoreError: a store cannot be read.
    """
    found = [recording for path in paths for recording in _of_store(path)]
    if not found:
        raise ConfigError(
            f"no store holds {MIN_SECONDS:g} s of windows of one configuration",
            remedy="give stores of longer runs",
        )
    return found


def _of_store(path: Path) -> Iterator[Recording]:
    store = open_store(f"sqlite:///{path}", read_only=True)
    try:
        records = store.query_windows(limit=1_000_000)
        kinds = {trial.id: trial.kind for trial in store.trials(limit=100_000)}
    finally:
        store.close()
    by_config: dict[tuple[tuple[str, str], ...], list[MetricsWindow]] = {}
    for record in records:
        # These switch to a former configuration, which the window's record does not name.
        turned = kinds.get(record.trial_id) in (TrialKind.PROBATION, TrialKind.FINAL)
        if record.queries and not (turned and record.arm is Arm.INCUMBENT):
            config = tuple(sorted((name, str(value)) for name, value in record.config.items()))
            by_config.setdefault(config, []).append(_window(record))
    for number, windows in enumerate(by_config.values(), start=1):
        ordered = tuple(sorted(windows, key=lambda window: window.started_at))
        recording = Recording(f"{path}, configuration {number}", ordered)
        if recording.seconds >= MIN_SECONDS and recording.starts:
            yield recording


def _window(record: WindowRecord) -> MetricsWindow:
    queries = {}
    for query in record.queries:
        key = QueryKey.parse(query.key)
        queries[key] = QueryWindow(key, query.calls, query.calls * query.mean_ms, rows=query.rows)
    return MetricsWindow(
        started_at=record.started_at,
        ended_at=record.ended_at,
        duration_s=record.duration_s,
        rates=dict(record.rates),
        gauges=dict(record.gauges),
        queries=queries,
    )


class ReplayedServer:
    """A server that does again what was recorded; between two ends of a window it works evenly.

    Args:
        course: windows to lay end to end; the last state holds after the end.
        clock: time.
    """

    def __init__(self, course: Sequence[MetricsWindow], clock: ManualClock) -> None:
        self._clock, self._course = clock, course
        self._began_s = clock.monotonic_s()
        self._keys: list[QueryKey] = sorted({key for window in course for key in window.queries})
        columns = {key: number for number, key in enumerate(self._keys)}
        growth = np.zeros((len(course), 2 * len(self._keys) + len(CUMULATIVE)))
        for row, window in enumerate(course):
            for key, query in window.queries.items():
                growth[row, columns[key]] = query.calls
                growth[row, len(self._keys) + columns[key]] = query.exec_time_ms
            for number, name in enumerate(CUMULATIVE):
                amount = window.rates.get(name, 0.0) * window.duration_s
                growth[row, 2 * len(self._keys) + number] = max(amount, 0.0)
        zero: NDArray[np.float64] = np.zeros((1, growth.shape[1]))
        self._totals = np.concatenate([zero, growth.cumsum(axis=0)])
        self._ends_s = np.cumsum([0.0, *(window.duration_s for window in course)])

    @property
    def seconds(self) -> float:
        """How long the course lasts."""
        return float(self._ends_s[-1])

    def collect(self) -> MetricsSnapshot:
        """The cumulative counters now."""
        at_s = min(self._clock.monotonic_s() - self._began_s, self.seconds)
        row = int(
            np.clip(np.searchsorted(self._ends_s, at_s, "right") - 1, 0, len(self._course) - 1)
        )
        share = (at_s - self._ends_s[row]) / (self._ends_s[row + 1] - self._ends_s[row])
        totals = self._totals[row] + share * (self._totals[row + 1] - self._totals[row])
        count = len(self._keys)
        window = self._course[row]
        return MetricsSnapshot(
            taken_at=EPOCH + timedelta(seconds=self._clock.monotonic_s()),
            server_started_at=EPOCH,
            config_loaded_at=EPOCH,
            statistics_reset_at=None,
            counters={name: float(totals[2 * count + n]) for n, name in enumerate(CUMULATIVE)},
            gauges={name: window.gauges[name] for name in LEVELS if name in window.gauges},
            queries={
                key: QueryCounters(round(float(totals[n])), float(totals[count + n]))
                for n, key in enumerate(self._keys)
            },
        )


@dataclass(frozen=True)
class Resampled:
    """What A/A trials came to; ``spread`` is the mean standard deviation of their blocks."""

    verdicts: Counter[Verdict]
    spread: float
    windows: float

    @property
    def trials(self) -> int:
        """How many there were."""
        return self.verdicts.total()

    @property
    def false_promotions(self) -> int:
        """Promotions of what is the same."""
        return self.verdicts[Verdict.ACCEPT]


def resampled_trials(
    settings: Settings, sources: Sequence[Recording], trials: int, seed: int
) -> Resampled:
    """A/A promotions; a trial draws its recording by how long that was measured."""
    weights = np.array([source.seconds for source in sources])
    references = [Reference.from_windows(source.windows) for source in sources]
    judge = safety_judge(settings)
    verdicts: Counter[Verdict] = Counter()
    spreads: list[float] = []
    windows = 0
    for number in range(trials):
        rng = np.random.default_rng([seed, number])
        which = int(rng.choice(len(sources), p=weights / weights.sum()))
        plan = promotion_plan(settings, {}, references[which], seed=number)
        longest_s = _longest_s(plan.max_blocks * 4, plan.window_s + plan.settle_s)
        clock = ManualClock(EPOCH)
        server = ReplayedServer(sources[which].course(longest_s, rng), clock)
        trial = run_trial(plan, server.collect, NoSwitch(), clock, judge)
        assert trial.verdict is not None  # it has finished
        verdicts[trial.verdict] += 1
        windows += sum(len(trial.windows(arm)) for arm in Arm)
        if trial.block_spread is not None:
            spreads.append(trial.block_spread)
    spread = float(np.mean(spreads)) if spreads else math.nan
    return Resampled(verdicts, spread, windows / trials)


def _longest_s(windows: int, window_s: float) -> float:
    """A trial may lose as many windows as it measures at the most."""
    return (2 * windows + 4) * (window_s + 1.0)
