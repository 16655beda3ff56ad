"""The clients of a simulated database: swinging load, random arrivals, correlated noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.domain.knobs import KnobValue
from backend.targets.simulated_model import FloatArray, ResponseModel

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

    def factors(self, seconds: FloatArray, classes: int) -> FloatArray:
        """Multipliers of each class's arrivals, shape ``(len(seconds), classes)``."""
        wave = self.volume * (1.0 + self.swing * np.sin(2 * np.pi * seconds / self.period_s))
        factors = np.repeat(wave[:, None], classes, axis=1)
        for index, (start, volume, shares) in enumerate(self.shifts):
            last = index + 1 == len(self.shifts)
            end = math.inf if last else self.shifts[index + 1][0]
            inside = (seconds >= start) & (seconds < end)
            factors[inside] *= volume * np.asarray(shares, dtype=np.float64)
        return factors


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
    """

    def __init__(self, model: ResponseModel, load: LoadScript, noise: Noise, seed: int) -> None:
        self._model, self._load, self._noise = model, load, noise
        self._rng = np.random.default_rng(seed)
        # AR(1) states: one a class, and the shared one last.
        self._drift = self._rng.standard_normal(len(model.classes) + 1)

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
