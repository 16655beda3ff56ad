"""The clients of a simulated database: swinging load, random arrivals, correlated noise."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from backend.domain.knobs import KnobValue
from backend.targets.simulated_model import FloatArray, ResponseModel

T = TypeVar("T")
STEP_S = 1.0
"""Load and noise are constant over a step of this length."""


@dataclass(frozen=True)
class Noise:
    """Noise of the measured times.

    Args:
        sigma: standard deviation of a class's log latency over a step.
        shared_sigma: of what all classes have in common (a noisy neighbour).
        correlation: of neighbouring steps, in [0, 1).
        per_call: coefficient of variation of single statements.
    """

    sigma: float = 0.05
    shared_sigma: float = 0.05
    correlation: float = 0.7
    per_call: float = 1.0


@dataclass(frozen=True)
class LoadScript:
    """How the clients' load moves with time.

    Args:
        volume: base volume; 1 is the model's own arrivals.
        swing: relative height of the day and night swing, in [0, 1).
        period_s: length of a day.
        shifts: ``(from second, volume, share of each class)``; from that second on volume and
            arrivals are multiplied so, until the next one.
    """

    volume: float = 1.0
    swing: float = 0.0
    period_s: float = 600.0
    shifts: Sequence[tuple[float, float, Sequence[float]]] = ()

    _starts: FloatArray = field(init=False, repr=False, compare=False)
    _multipliers: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Lay the shifts out as arrays: a long script has thousands."""
        starts = [start for start, _, _ in self.shifts]
        if starts != sorted(starts):
            raise ValueError("shifts must be in the order of their seconds")
        multipliers = [volume * np.asarray(s, dtype=np.float64) for _, volume, s in self.shifts]
        object.__setattr__(self, "_starts", np.asarray(starts, dtype=np.float64))
        object.__setattr__(self, "_multipliers", np.asarray(multipliers, dtype=np.float64))

    def factors(self, seconds: FloatArray, classes: int) -> FloatArray:
        """Multipliers of each class's arrivals, shape ``(len(seconds), classes)``."""
        wave = self.volume * (1.0 + self.swing * np.sin(2 * np.pi * seconds / self.period_s))
        factors = np.repeat(wave[:, None], classes, axis=1)
        if len(self._starts):
            current = np.searchsorted(self._starts, seconds, side="right") - 1
            shifted = current >= 0
            factors[shifted] *= self._multipliers[current[shifted]]
        return factors


@dataclass(frozen=True)
class Checkpoints:
    """Checkpoints whose writes slow every statement for a while.

    Args:
        every_s: from the beginning of one to that of the next.
        lasts_s: how long one writes.
        slowdown: factor of all times meanwhile.
        first_s: when the first begins.
    """

    every_s: float = 300.0
    lasts_s: float = 15.0
    slowdown: float = 1.15
    first_s: float = 100.0

    def factors(self, seconds: FloatArray) -> FloatArray:
        """Multipliers of the times at these moments."""
        since_s = (seconds - self.first_s) % self.every_s
        writing = (seconds >= self.first_s) & (since_s < self.lasts_s)
        return np.where(writing, self.slowdown, 1.0)

    def begun(self, from_s: float, to_s: float) -> int:
        """How many began in ``(from_s, to_s]``."""
        return self._begun_until(to_s) - self._begun_until(from_s)

    def _begun_until(self, second: float) -> int:
        return max(0, math.floor((second - self.first_s) / self.every_s) + 1)


@dataclass(frozen=True)
class Swings:
    """A client load that does not hold still, as a recipe for load scripts.

    The volume jumps between levels spread evenly on the log scale, each held for an exponential
    time; the mix leans to one of several leanings and changes less often; a batch job runs at its
    own period.

    Args:
        lowest: least volume; 1 is the model's own arrivals.
        highest: greatest volume.
        dwell_s: mean time at a level, at least ``least_dwell_s``.
        least_dwell_s: shortest time at a level.
        leanings: multipliers of each class's arrivals, one tuple a leaning.
        mix_dwell_s: mean time of a leaning.
        batch_class: index of the class that only the batch job runs, with its arrivals on average
            over the periods; None for no job.
        batch_every_s: from the beginning of one batch run to that of the next.
        batch_lasts_s: length of a run.
    """

    lowest: float = 0.5
    highest: float = 2.0
    dwell_s: float = 60.0
    least_dwell_s: float = 10.0
    leanings: Sequence[Sequence[float]] = ()
    mix_dwell_s: float = 400.0
    batch_class: int | None = None
    batch_every_s: float = 420.0
    batch_lasts_s: float = 60.0

    def script(self, classes: int, seconds: float, seed: int) -> LoadScript:
        """A script of so many seconds; same seed, same swings."""
        rng = np.random.default_rng(seed)
        levels = self._levels(rng, seconds)
        leanings = self._leanings(rng, seconds, classes)
        batch = self._batch(rng, seconds)
        moments = sorted({start for start, _ in (*levels, *leanings, *batch)})
        shifts = []
        for moment in moments:
            shares = np.array(_at(leanings, moment), dtype=np.float64)
            if self.batch_class is not None:
                shares[self.batch_class] = _at(batch, moment)
            shifts.append((moment, _at(levels, moment), tuple(shares)))
        return LoadScript(shifts=shifts)

    def _levels(self, rng: np.random.Generator, seconds: float) -> list[tuple[float, float]]:
        def level() -> float:
            return float(np.exp(rng.uniform(math.log(self.lowest), math.log(self.highest))))

        found, at_s = [(0.0, level())], 0.0
        while at_s < seconds:
            spread_s = self.dwell_s - self.least_dwell_s
            at_s += self.least_dwell_s + float(rng.exponential(spread_s))
            found.append((at_s, level()))
        return found

    def _leanings(
        self, rng: np.random.Generator, seconds: float, classes: int
    ) -> list[tuple[float, Sequence[float]]]:
        options = list(self.leanings) or [(1.0,) * classes]
        found, at_s = [(0.0, options[0])], 0.0
        while len(options) > 1 and at_s < seconds:
            at_s += float(rng.exponential(self.mix_dwell_s))
            found.append((at_s, options[int(rng.integers(len(options)))]))
        return found

    def _batch(self, rng: np.random.Generator, seconds: float) -> list[tuple[float, float]]:
        found = [(0.0, 0.0)]
        at_s = float(rng.uniform(0.0, self.batch_every_s))
        running = self.batch_every_s / self.batch_lasts_s
        while self.batch_class is not None and at_s < seconds:
            found += [(at_s, running), (at_s + self.batch_lasts_s, 0.0)]
            at_s += self.batch_every_s
        return found


def _at(course: Sequence[tuple[float, T]], moment: float) -> T:
    """What holds at a moment."""
    starts = [start for start, _ in course]
    return course[bisect.bisect_right(starts, moment) - 1][1]


NO_NOISE = Noise(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Work:
    """What was done over a span: per class calls and time, and the cores' mean use."""

    calls: FloatArray
    time_ms: FloatArray
    utilisation: float


class Traffic:
    """Clients that send statements to the model's database.

    Args:
        model: the response.
        load: how the load moves.
        noise: of arrivals and times; ``NO_NOISE`` gives the exact means.
        seed: same seed and same calls, same work.
        checkpoints: that slow everything now and then; None for none.
    """

    def __init__(
        self,
        model: ResponseModel,
        load: LoadScript,
        noise: Noise,
        seed: int,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._model, self._load, self._noise = model, load, noise
        self._checkpoints = checkpoints
        self._rng = np.random.default_rng(seed)
        # AR(1) states: one a class, and the shared one last.
        self._drift = self._rng.standard_normal(len(model.classes) + 1)

    def answer_by(self, model: ResponseModel) -> None:
        """From now on another model answers, of the same query classes."""
        self._model = model

    def work(self, config: Mapping[str, KnobValue], from_s: float, to_s: float) -> Work:
        """What happens between two moments (seconds since the start) under a configuration."""
        classes = len(self._model.classes)
        steps = max(1, math.ceil((to_s - from_s) / STEP_S - 1e-9))
        step_s = (to_s - from_s) / steps
        seconds = from_s + step_s * (np.arange(steps, dtype=np.float64) + 0.5)
        arrivals = self._model.arrivals * self._load.factors(seconds, classes)
        service = self._model.service_ms(config)
        utilisation = self._model.utilisation(service, arrivals)
        mean_ms = service * self._model.contention(utilisation)[:, None] * self._drifts(steps)
        if self._checkpoints is not None:
            mean_ms = mean_ms * self._checkpoints.factors(seconds)[:, None]
        calls = arrivals * step_s
        if self._noise.per_call > 0.0:
            calls = self._rng.poisson(calls).astype(np.float64)
            shape = np.maximum(calls, 1e-9) / self._noise.per_call**2
            mean_ms = mean_ms * self._rng.gamma(shape) / shape
        return Work(calls.sum(axis=0), (calls * mean_ms).sum(axis=0), float(utilisation.mean()))

    def _drifts(self, steps: int) -> FloatArray:
        """Autocorrelated lognormal factors of mean 1, shape ``(steps, classes)``."""
        noise = self._noise
        if noise.sigma == 0.0 and noise.shared_sigma == 0.0:
            return np.ones((steps, len(self._drift) - 1))
        fresh = math.sqrt(1.0 - noise.correlation**2) * self._rng.standard_normal(
            (steps, len(self._drift))
        )
        path = np.empty_like(fresh)
        for step in range(steps):
            path[step] = self._drift = noise.correlation * self._drift + fresh[step]
        logs = noise.sigma * path[:, :-1] + noise.shared_sigma * path[:, -1:]
        variance = noise.sigma**2 + noise.shared_sigma**2
        return np.asarray(np.exp(logs - variance / 2.0), dtype=np.float64)
