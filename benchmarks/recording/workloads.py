"""Workloads to train on: random mixes of the demo's statements, unlike those that are judged on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.workload.mixes import MIXES, Mix
from backend.workload.statements import STATEMENTS

SCALES = (0.08, 0.35, 0.15)
"""Sizes of the demo store, on both sides of the one that is judged on."""
LEAST_DISTANCE = 0.25
"""Total variation distance of a mix's call shares from those of each held-out mix, at least."""
BUSY = (0.15, 0.5)
"""Share of the machine's cores that the statements take at the defaults."""
TYPICAL_MS = {
    "simple": 0.2,
    "two-table join": 3.0,
    "multi-join": 60.0,
    "aggregation": 60.0,
    "analytical": 100.0,
    "write": 1.0,
}
"""What a statement takes, roughly, by kind: for the first guess of the rate."""
CLASSES_PER_SHARE = 300
"""Classes of a group that has all calls, at most; one with a hundredth of them has 3."""
NO_REPORTS_EVERY = 4
"""One workload of so many asks for no report at all. Where there are any, however few, they take
most of the time, and what serves them best is not what serves short statements best."""
GROUPS = (("simple", "two-table join"), ("write",), ("multi-join", "aggregation", "analytical"))
"""Pages, writes and reports."""


@dataclass(frozen=True)
class TrainingWorkload:
    """A mix, a size of the store and how busy it keeps the machine.

    ``weights`` are relative call rates by statement class; ``busy`` the share of the cores, in
    [0, 1], that the statements take at the defaults.
    """

    name: str
    scale: float
    weights: Mapping[str, float]
    busy: float

    def mix(self, rate_per_s: float) -> Mix:
        """The mix at a rate, without a swing over the day."""
        return Mix(
            name=self.name,
            description="random",
            day=self.weights,
            default_rate_per_s=rate_per_s,
            night_factor={},
            swing=0.0,
        )

    def guessed_ms(self) -> float:
        """What one statement takes on average, roughly, before anything was measured."""
        total = sum(self.weights.values())
        typical = sum(w * TYPICAL_MS[STATEMENTS[name].kind] for name, w in self.weights.items())
        return typical / total


def training_workload(seed: int, number: int) -> TrainingWorkload:
    """The workload of that number; the same for the same seed.

    Pages, writes and reports get random shares of the calls, and so do the classes in each of
    them, of which some are left out. The last of every four has no reports.
    """
    rng = np.random.default_rng([seed, number])
    with_reports = number % NO_REPORTS_EVERY != NO_REPORTS_EVERY - 1
    while True:
        weights = _draw(rng, with_reports)
        if min(distance(weights, mix) for mix in MIXES.values()) >= LEAST_DISTANCE:
            return TrainingWorkload(
                name=f"random {seed}.{number}",
                scale=SCALES[number % len(SCALES)],
                weights=weights,
                busy=float(rng.uniform(*BUSY)),
            )


def _draw(rng: np.random.Generator, with_reports: bool) -> dict[str, float]:
    """Call shares: reports from a hundredth to nearly all, pages and writes share the rest."""
    reports = 10.0 ** rng.uniform(-2.0, 0.0) if with_reports else 0.0
    pages, writes = (1.0 - reports) * rng.dirichlet([0.7, 0.7])
    weights: dict[str, float] = {}
    for kinds, share in zip(GROUPS, (pages, writes, reports), strict=True):
        if share == 0.0:
            continue
        names = [name for name, s in STATEMENTS.items() if s.kind in kinds]
        chosen = [name for name in names if rng.random() < 0.5] or [str(rng.choice(names))]
        # Classes that each run too rarely for a window would not be compared at all.
        most = max(1, round(CLASSES_PER_SHARE * share))
        chosen = [str(name) for name in rng.permutation(chosen)[:most]]
        spread = rng.lognormal(0.0, 0.8, len(chosen))
        weights.update(zip(chosen, map(float, share * spread / spread.sum()), strict=True))
    return weights


def distance(weights: Mapping[str, float], mix: Mix) -> float:
    """Total variation distance of the call shares from those of a mix in the morning."""
    shares, total = mix.shares(0.5), sum(weights.values())
    names = set(weights) | set(shares)
    return 0.5 * sum(abs(weights.get(n, 0.0) / total - shares.get(n, 0.0)) for n in names)
