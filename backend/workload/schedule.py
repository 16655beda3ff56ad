"""The arrival schedule: what is asked when, frozen by its seed before anything is tuned.

Arrivals are Poisson with a rate that swings over the simulated day, conditioned on their number in
each slot (half a second): inside a slot they fall uniformly at random, so bursts and gaps are
those of a Poisson process, while ten-second windows hold nearly equal numbers. Statement classes
come in decks: each deck holds every class in proportion to its share, spread over the deck at
random but evenly, and a class's parameters follow a low-discrepancy sequence (the additive
recurrence of the generalised golden ratio, M. Roberts 2018). Windows thus differ by what the
server does, hardly by what they were asked.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from backend.errors import WorkloadError
from backend.workload.mixes import Mix
from backend.workload.scope import Scope
from backend.workload.shape import DEMO_SCALE, StoreShape
from backend.workload.statements import PARAMETER_DIMENSIONS, STATEMENTS, Parameters

DAY_HOURS = 24.0
PEAK_HOUR = 14.0
START_HOUR = 8.0
"""The simulated time of day at which a schedule begins: the mean rate, rising."""

SLOT_S = 0.5
"""The mean length of a slot, in real seconds: the count of arrivals in it is fixed."""

DECK_S = 10.0
"""The mean length of a deck, in real seconds: it holds all classes in proportion."""

FINGERPRINT_ARRIVALS = 2000


@dataclass(frozen=True)
class Arrival:
    """One statement: when it arrives (real seconds from the start), its class and parameters."""

    offset_s: float
    class_name: str
    parameters: Parameters


class ArrivalSchedule:
    """An endless, reproducible stream of arrivals; iterating it twice gives the same twice.

    Args:
        mix: which classes, in which shares.
        queries_per_hour: mean statements per *simulated* hour; None takes the mix's default rate.
        seed: freezes arrivals, order and parameters.
        time_scale: simulated seconds per real second (100 in fast mode).
        shape: the store that the parameters point into.
        parameter_ranges: see :data:`backend.workload.scope.PARAMETER_RANGES`.

    Raises:
        WorkloadError: when the rate or the time scale is not above 0, or a range is wrong.
    """

    def __init__(
        self,
        mix: Mix,
        queries_per_hour: float | None = None,
        seed: int = 0,
        time_scale: float = 1.0,
        *,
        shape: StoreShape | None = None,
        parameter_ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        if time_scale <= 0:
            raise WorkloadError(f"the time scale {time_scale} must be above 0")
        if queries_per_hour is not None and queries_per_hour <= 0:
            raise WorkloadError(f"queries per hour {queries_per_hour} must be above 0")
        self.mix = mix
        self.seed = seed
        self.time_scale = time_scale
        self.scope = Scope(
            shape or StoreShape.at_scale(DEMO_SCALE), dict(sorted((parameter_ranges or {}).items()))
        )
        self.rate_per_s = (
            mix.default_rate_per_s
            if queries_per_hour is None
            else queries_per_hour * time_scale / 3600.0
        )
        self.day_length_s = DAY_HOURS * 3600.0 / time_scale

    @property
    def queries_per_hour(self) -> float:
        """The mean number of statements per simulated hour."""
        return self.rate_per_s * 3600.0 / self.time_scale

    def hour_at(self, offset_s: float) -> float:
        """Return the simulated hour of the day, in [0, 24), at a real offset."""
        return (START_HOUR + offset_s * DAY_HOURS / self.day_length_s) % DAY_HOURS

    def daylight_at(self, offset_s: float) -> float:
        """Return how much day it is: 1 at the peak hour, 0 twelve hours away, a cosine between."""
        angle = 2 * math.pi * (self.hour_at(offset_s) - PEAK_HOUR) / DAY_HOURS
        return (1 + math.cos(angle)) / 2

    def rate_at(self, offset_s: float) -> float:
        """Return the offered statements per real second at a real offset."""
        swing = self.mix.swing
        return self.rate_per_s * (1 - swing + 2 * swing * self.daylight_at(offset_s))

    def expected_until(self, offset_s: float) -> float:
        """Return the expected number of arrivals in [0, offset): the integral of the rate."""
        turn = 2 * math.pi / self.day_length_s
        phase = 2 * math.pi * (START_HOUR - PEAK_HOUR) / DAY_HOURS
        swung = (math.sin(turn * offset_s + phase) - math.sin(phase)) / turn
        return self.rate_per_s * (offset_s + self.mix.swing * swung)

    def _offset_of(self, expected: float, start_s: float) -> float:
        # Newton on a smooth increasing function; the start is the previous arrival, so two or
        # three steps do.
        offset_s = start_s
        for _ in range(50):
            step = (expected - self.expected_until(offset_s)) / self.rate_at(offset_s)
            offset_s += step
            if abs(step) < 1e-7:
                break
        return offset_s

    def _times(self) -> Iterator[float]:
        rng = random.Random(f"times {self.seed}")
        per_slot = max(1, round(self.rate_per_s * SLOT_S))
        offset_s, slot = 0.0, 0
        while True:
            for position in sorted(rng.random() for _ in range(per_slot)):
                offset_s = self._offset_of((slot + position) * per_slot, offset_s)
                yield offset_s
            slot += 1

    def _classes(self) -> Iterator[str]:
        rng = random.Random(f"classes {self.seed}")
        size = max(len(self.mix.day), round(self.rate_per_s * DECK_S))
        carried: dict[str, float] = dict.fromkeys(self.mix.day, 0.0)
        dealt = 0
        while True:
            # The deck begins where the expected number of arrivals equals those dealt so far.
            middle_s = self._offset_of(dealt + size / 2, dealt / self.rate_per_s)
            for name, share in self.mix.shares(self.daylight_at(middle_s)).items():
                carried[name] += share * size
            counts = _round_to(carried, size)
            deck = []
            for name, count in counts.items():
                carried[name] -= count
                deck += [((k + rng.random()) / count, rng.random(), name) for k in range(count)]
            for _, _, name in sorted(deck):
                yield name
            dealt += size

    def __iter__(self) -> Iterator[Arrival]:
        """Yield arrivals in time order, without end."""
        points = {name: _Points(self.seed, name) for name in self.mix.day}
        for offset_s, name in zip(self._times(), self._classes(), strict=False):
            parameters = STATEMENTS[name].parameters(next(points[name]), self.scope)
            yield Arrival(offset_s, name, parameters)

    @property
    def fingerprint(self) -> str:
        """A hash of the statements' text, the mix, the rate and the first 2000 arrivals."""
        digest = hashlib.sha256()
        digest.update(repr((self.mix, self.scope, self.rate_per_s, self.time_scale)).encode())
        for name in sorted(self.mix.day):
            digest.update(f"{name}\0{STATEMENTS[name].sql}\0".encode())
        for arrival in islice(self, FINGERPRINT_ARRIVALS):
            line = f"{arrival.offset_s:.6f}\0{arrival.class_name}\0{arrival.parameters!r}\n"
            digest.update(line.encode())
        return digest.hexdigest()

    @property
    def short_fingerprint(self) -> str:
        """The first 16 digits of :attr:`fingerprint`: enough to tell people's loads apart."""
        return self.fingerprint[:16]


class _Points:
    """A class's parameter points in the unit cube, evenly spread over any run of them."""

    def __init__(self, seed: int, name: str) -> None:
        rng = random.Random(f"points {seed} {name}")
        root = 2.0
        for _ in range(40):  # the positive root of x^(d+1) = x + 1
            root = (1 + root) ** (1 / (PARAMETER_DIMENSIONS + 1))
        self._steps = [root ** -(k + 1) for k in range(PARAMETER_DIMENSIONS)]
        self._point = [rng.random() for _ in range(PARAMETER_DIMENSIONS)]

    def __next__(self) -> tuple[float, ...]:
        point = tuple(self._point)
        self._point = [(x + step) % 1.0 for x, step in zip(self._point, self._steps, strict=True)]
        return point


def _round_to(amounts: dict[str, float], total: int) -> dict[str, int]:
    """Round non-negative amounts to whole numbers that sum to ``total`` (largest remainders)."""
    counts = {name: max(0, math.floor(amount)) for name, amount in amounts.items()}
    missing = total - sum(counts.values())
    by_remainder = sorted(amounts, key=lambda name: counts[name] - amounts[name])
    for name in by_remainder[: max(0, missing)]:
        counts[name] += 1
    for name in reversed(by_remainder):
        if missing >= 0:
            break
        if counts[name] > 0:
            counts[name] -= 1
            missing += 1
    return counts
