"""How soon a drift is undone, and how often for nothing: ``python -m benchmarks.drift``.

First the detector alone, on log indexes of windows drawn with autocorrelation: how often a day it
asks for a recheck where nothing has changed, and how many minutes it needs for a rise. Then the
whole tuner on simulated servers: a good configuration is promoted and stands its probation, then
its gain turns into a loss, or fades, or nothing happens. Definitions and figures: docs/drift.md.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig
from backend.domain.modes import TrialKind, Verdict
from backend.domain.records import TrialRecord
from backend.drift import LOOK_S, RiseTest
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_drift import TurnedModel
from backend.telemetry import open_store
from benchmarks.harness.scripted import go, scripted_tuner

WINDOW_S = 5.0
"""Between two observations of what stands."""
TRIAL_WINDOW_S = 10.0
WINDOW_SD = 0.085
"""Of one window's log index: 6 % of a trial's window, as on the embedded server."""
LEVEL_WINDOWS = 16
"""Trial windows that the level was measured by: a promotion of four blocks has eight of an arm."""
CORRELATIONS = (0.0, 0.4, 0.7)
RISES = (0.05, 0.10, 0.20)
SMALLEST = 0.02
DAY_LOOKS = round(86_400 / LOOK_S)

GOOD = {"random_page_cost": 1.2, "jit": False, "work_mem": 98304}
NOISE = Noise(sigma=0.03, shared_sigma=0.03, correlation=0.7, per_call=0.3)
LEVEL1 = {"window_s": 10, "settle_s": 2, "baseline_s": 60}
SEGMENT_S = 12.0
"""A window and its settling time."""
PROMOTED_WITHIN_S = 1800.0
PATIENCE_S = 3600.0
DRIFTS: Mapping[str, float | None] = {
    "none": None, "the gain is lost": 0.0, "a third of it is a loss": 0.33, "all of it": 1.0,
}  # fmt: skip
"""What happens, as strength of a ``TurnedModel``."""

Floats = NDArray[np.float64]


# -- the detector alone -------------------------------------------------------------------------


def looks(rng: np.random.Generator, count: int, correlation: float) -> Floats:
    """Means over the windows of each look, of standard normal windows of this autocorrelation."""
    each = round(LOOK_S / WINDOW_S)
    fresh = math.sqrt(1 - correlation**2) * rng.standard_normal(count * each)
    windows = np.empty_like(fresh)
    last = float(rng.standard_normal())
    for number, value in enumerate(fresh):
        windows[number] = last = correlation * last + float(value)
    return np.asarray(windows.reshape(count, each).mean(axis=1))


def looks_to_alarm(correlation: float, rise: float, most: int, seed: int) -> int | None:
    """Looks until the detector asks for a recheck; None: not within so many.

    The level has the error that its own windows gave it, and the noise is what a baseline would
    have measured: that of neighbouring windows.
    """
    rng = np.random.default_rng([seed, round(100 * correlation)])
    neighbours = WINDOW_SD * math.sqrt(1 - correlation)
    test = RiseTest(neighbours * math.sqrt(WINDOW_S / LOOK_S), -math.log1p(-SMALLEST))
    lasting = math.sqrt((1 + correlation) / (1 - correlation))
    windows = LEVEL_WINDOWS * TRIAL_WINDOW_S / WINDOW_S
    level = WINDOW_SD * lasting / math.sqrt(windows) * float(rng.standard_normal())
    for number, value in enumerate(WINDOW_SD * looks(rng, most, correlation) + math.log1p(rise)):
        test.add(float(value) - level)
        if test.risen:
            return number + 1
    return None


def false_alarms_a_day(correlation: float, days: int, runs: int) -> float:
    """How often a day a recheck is asked for where nothing changes."""
    most = days * DAY_LOOKS
    found = [looks_to_alarm(correlation, 0.0, most, seed) for seed in range(runs)]
    watched = sum(most if looks is None else looks for looks in found)
    return sum(looks is not None for looks in found) / (watched / DAY_LOOKS)


def detector_table(runs: int, days: int) -> Table:
    """A row a correlation."""
    table = Table("correlation", "asked for in vain", *(f"+{rise:.0%}" for rise in RISES))
    for correlation in CORRELATIONS:
        minutes = []
        for rise in RISES:
            found = [looks_to_alarm(correlation, rise, 2 * DAY_LOOKS, s) for s in range(runs)]
            seen = [looks * LOOK_S / 60 for looks in found if looks is not None]
            minutes.append(f"{median(seen):.0f} min" if seen else "never")
        vain = false_alarms_a_day(correlation, days, runs)
        table.add_row(f"{correlation:g}", f"{vain:.2f} a day", *minutes)
    return table


# -- the whole tuner ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What became of one deployment.

    Args:
        true_index: of what was promoted, in terms of what it replaced, after the drift.
        rechecks: that were made.
        undone: whether it was undone.
        windows: from the drift until then, in segments of a trial (settle and window); None where
            it was not undone.
    """

    true_index: float
    rechecks: int
    undone: bool
    windows: float | None


def one_run(folder: Path, seed: int, strength: float | None) -> Run | None:
    """Promote, wait for the probation, drift (``strength``; None: not at all), see what happens.

    None where what is good was not promoted, or did not stand its probation: the gate's part.
    """
    target = SimulatedDatabase(ResponseModel(seed=seed), noise=NOISE, seed=seed)
    clock = target.clock
    assert isinstance(clock, ManualClock)

    def once(present: KnobConfig) -> KnobConfig:
        """The good one, until it has stood its probation."""
        return present if stood() else present.replace(GOOD)

    def trials(kind: TrialKind) -> list[TrialRecord]:
        return [trial for trial in store.trials(limit=10_000) if trial.kind is kind]

    def stood() -> bool:
        return any(trial.verdict is Verdict.ACCEPT for trial in trials(TrialKind.PROBATION))

    store = open_store(f"sqlite:///{folder}/telemetry.db")
    tuner = scripted_tuner(folder, target, once, LEVEL1)
    try:
        go(tuner, clock, PROMOTED_WITHIN_S, stood)
        if not stood():
            return None
        go(tuner, clock, 120.0)
        stands = target.effective_config
        if strength is not None:
            target.drift(TurnedModel(target.model, strength))
        begun_s = clock.monotonic_s()

        def undone() -> bool:
            return target.read_knobs(["jit"])["jit"].entry is None and tuner.loop.trial is None

        go(tuner, clock, PATIENCE_S, undone)
        took = (clock.monotonic_s() - begun_s) / SEGMENT_S
        gone = undone()
        true_index = target.index_of(stands)
        return Run(true_index, len(trials(TrialKind.RECHECK)), gone, took if gone else None)
    finally:
        tuner.end()
        store.close()


def tuner_table(seeds: Sequence[int]) -> Table:
    """A row a drift."""
    table = Table("drift", "deployed", "true index", "rechecks", "undone", "after windows")
    for name, strength in DRIFTS.items():
        runs = []
        for seed in seeds:
            with tempfile.TemporaryDirectory(prefix="drift-") as folder:
                run = one_run(Path(folder), seed, strength)
            runs += [] if run is None else [run]
        took = sorted(run.windows for run in runs if run.windows is not None)
        table.add_row(
            name,
            str(len(runs)),
            f"{median(run.true_index for run in runs):.2f}" if runs else "",
            str(sum(run.rechecks for run in runs)),
            str(sum(run.undone for run in runs)),
            f"{median(took):.0f} ({took[0]:.0f} to {took[-1]:.0f})" if took else "",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="simulated servers")
    parser.add_argument("--runs", type=int, default=100, help="courses of the detector alone")
    parser.add_argument("--days", type=int, default=4, help="length of such a course")
    given = parser.parse_args(arguments)
    console = Console(width=110)
    if given.runs:
        console.print(detector_table(given.runs, given.days))
    if given.seeds:
        console.print(tuner_table(range(given.seeds)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
