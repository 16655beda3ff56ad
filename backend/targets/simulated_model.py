"""The response of a simulated database: latency as a known function of knobs and load.

Everything is exact and free of noise here; :mod:`backend.targets.simulated` adds noise, time and
the life of a server. The optimum is known by construction: every query class's log latency is a
positive definite form around it, plus penalties for wrong choices and for cliffs, so no
configuration is better in any class (except in an *opposed* class, see below).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from backend.domain.knobs import Knob, KnobConfig, KnobSpace, KnobValue

FloatArray = NDArray[np.float64]
MAX_UTILISATION = 0.97
WORST_LOG_FACTOR = 3.0
"""However bad a configuration, a statement takes at most e**3 = 20 times its best time."""


@dataclass(frozen=True)
class SimulatedClass:
    """A class of statements.

    Args:
        text: normalised text.
        calls_per_s: arrivals at load 1.
        best_ms: mean service time under the best configuration on an idle machine.
        writes: whether it writes (WAL, dead rows).
    """

    text: str
    calls_per_s: float
    best_ms: float
    writes: bool = False


DEFAULT_CLASSES: tuple[SimulatedClass, ...] = (
    SimulatedClass("SELECT * FROM products WHERE product_id = $1", 40.0, 0.8),
    SimulatedClass("SELECT * FROM orders o JOIN customers c USING (customer_id) WHERE o.id = $1",
                   16.0, 3.0),
    SimulatedClass("SELECT brand_id, count(*) FROM products GROUP BY brand_id", 4.0, 45.0),
    SimulatedClass("SELECT region, sum(amount) FROM order_items JOIN orders USING (order_id) "
                   "JOIN customers USING (customer_id) GROUP BY region", 2.0, 180.0),
    SimulatedClass("INSERT INTO events (customer_id, kind) VALUES ($1, $2)", 20.0, 1.2, True),
    SimulatedClass("SELECT * FROM reviews WHERE rating < $1 ORDER BY created_at LIMIT $2",
                   4.0, 25.0),
)  # fmt: skip

DEFAULT_SPACE = KnobSpace(
    [
        Knob("work_mem", "integer", 64, 1048576, "log", "kB", 4096),
        Knob("hash_mem_multiplier", "real", 1, 8, "log", None, 2.0),
        Knob("effective_cache_size", "integer", 8192, 3145728, "log", "8kB", 524288),
        Knob("random_page_cost", "real", 0.5, 10, "log", None, 4.0),
        Knob("cpu_tuple_cost", "real", 0.001, 0.1, "log", None, 0.01),
        Knob("jit", "boolean", default=True),
        Knob("max_parallel_workers_per_gather", "integer", 0, 4, default=2),
        Knob("effective_io_concurrency", "integer", 0, 512, "log", None, 1),
        Knob("checkpoint_timeout", "integer", 60, 3600, "log", "s", 300),
        Knob("wal_compression", "categorical", choices=("off", "pglz", "lz4"), default="off"),
        Knob("shared_buffers", "integer", 2048, 1228800, "log", "8kB", 16384, context="restart"),
    ]
)
DEFAULT_BEST: Mapping[str, KnobValue] = {
    "work_mem": 98304,
    "hash_mem_multiplier": 2.5,
    "effective_cache_size": 1835008,
    "random_page_cost": 1.2,
    "cpu_tuple_cost": 0.014,
    "jit": False,
    "max_parallel_workers_per_gather": 0,
    "effective_io_concurrency": 12,
    "checkpoint_timeout": 1200,
    "wal_compression": "lz4",
    "shared_buffers": 524288,
}


class ResponseModel:
    """Mean latency of each query class under a configuration and a load.

    Args:
        space: the knobs that matter.
        classes: the query classes.
        best: the best configuration; None takes a seeded point of the space.
        gain: share of the latency index that the best configuration saves against the default
            one at load 1, in [0, 0.8]. 0: the default configuration is the best.
        cores: of the machine; contention grows as the classes' work nears them.
        opposed_class: give the last class a taste of its own: the closer the most important
            knob comes to its best value, the slower this one class gets.
        seed: of weights and, without ``best``, of the optimum.
    """

    def __init__(
        self,
        space: KnobSpace = DEFAULT_SPACE,
        classes: Sequence[SimulatedClass] = DEFAULT_CLASSES,
        *,
        best: Mapping[str, KnobValue] | None = None,
        gain: float = 0.35,
        cores: float = 2.0,
        opposed_class: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0.0 <= gain <= 0.8:
            raise ValueError(f"gain = {gain} must lie in [0, 0.8]")
        rng = np.random.default_rng(seed)
        self.space, self.classes, self.cores = space, tuple(classes), cores
        self.arrivals = np.array([c.calls_per_s for c in self.classes])
        self.best_ms = np.array([c.best_ms for c in self.classes])
        if gain == 0.0:
            best = space.default_config()
        elif best is None:
            best = DEFAULT_BEST if space is DEFAULT_SPACE else _random_best(space, rng)
        self.best_config = space.default_config().replace(space.validate(best))
        self._best = self._encode(self.best_config)
        knobs, count = len(space), len(self.classes)
        # A few knobs matter much, most of them little, and not the same to every class.
        self._order = (
            np.argsort(rng.random(knobs)) if space is not DEFAULT_SPACE else (np.arange(knobs))
        )
        importance = np.empty(knobs)
        importance[self._order] = (1.0 + np.arange(knobs)) ** -1.2
        self._weights = importance * rng.gamma(2.0, 0.5, size=(count, knobs))
        self._categorical = np.array([knob.kind == "categorical" for knob in space])
        self._cliffs = np.isin(np.arange(knobs), self._order[:2])
        self._opposed = False
        self._known: dict[KnobConfig, FloatArray] = {}
        self._scale = 1.0
        if gain > 0.0:
            target = -math.log(1.0 - gain)
            self._scale = brentq(lambda scale: self._log_gain(scale) - target, 0.0, 1e3)
        if opposed_class:
            self._weights[-1] = 0.0
            self._opposed = True
        self._known.clear()

    def _log_gain(self, scale: float) -> float:
        self._scale = scale
        self._known.clear()
        default = self.space.default_config()
        return -math.log(self._total(self.best_config, 1.0) / self._total(default, 1.0))

    def _encode(self, config: Mapping[str, KnobValue]) -> FloatArray:
        """One number a knob: the encoded coordinate, or the choice's number."""
        defaults = self.space.default_config()
        values = []
        for knob in self.space:
            value = config.get(knob.name, defaults[knob.name])
            if knob.kind == "categorical":
                values.append(float(knob.choices.index(str(value))))
            else:
                values.append(float(knob.encode(value)[0]))
        return np.array(values)

    def log_factors(self, config: Mapping[str, KnobValue]) -> FloatArray:
        """ln(service time / best service time) of each class; 0 at the best configuration."""
        key = KnobConfig(config)
        if key not in self._known:
            if len(self._known) >= 1000:
                self._known.clear()
            self._known[key] = self._log_factors(key)
            self._known[key].setflags(write=False)
        return self._known[key]

    def _log_factors(self, config: KnobConfig) -> FloatArray:
        gap = self._encode(config) - self._best
        gap = np.where(self._categorical, np.sign(np.abs(gap)), gap)
        # Cliffs: far from the best value of the two heaviest knobs everything gets much worse.
        cliff = np.where(self._cliffs, 1.5 / (1.0 + np.exp(-(np.abs(gap) - 1.2) / 0.05)), 0.0)
        cliff = np.where(gap == 0.0, 0.0, cliff)
        raw = (self._weights * (gap**2 + cliff)).sum(axis=1)
        for i, j in zip(self._order[:-1:2], self._order[1::2], strict=False):
            # |0.6| < 1 keeps each pair's form positive definite: 0 is still the minimum.
            raw += 0.6 * np.sqrt(self._weights[:, i] * self._weights[:, j]) * gap[i] * gap[j]
        factors = WORST_LOG_FACTOR * -np.expm1(-self._scale * raw / WORST_LOG_FACTOR)
        if self._opposed:
            factors[-1] = 0.6 * math.exp(-0.6 * float(gap[self._order[0]] ** 2))
        return np.asarray(factors, dtype=np.float64)

    def service_ms(self, config: Mapping[str, KnobValue]) -> FloatArray:
        """Mean time of each class on an otherwise idle machine, in ms."""
        return np.asarray(self.best_ms * np.exp(self.log_factors(config)), dtype=np.float64)

    def utilisation(self, service_ms: FloatArray, arrivals_per_s: FloatArray) -> FloatArray:
        """Share of the cores that arrivals of shape ``(..., classes)`` keep busy, in [0, 0.97]."""
        busy = (arrivals_per_s * service_ms).sum(axis=-1) / 1000.0 / self.cores
        return np.asarray(np.minimum(busy, MAX_UTILISATION), dtype=np.float64)

    def contention(self, utilisation: FloatArray) -> FloatArray:
        """Factor by which waiting for a core stretches every statement.

        Sakasegawa's approximation of an M/M/c queue: ``1 + u**(sqrt(2(c+1)) - 1) / (c(1 - u))``.
        """
        power = math.sqrt(2.0 * (self.cores + 1.0)) - 1.0
        return np.asarray(
            1.0 + utilisation**power / (self.cores * (1.0 - utilisation)), dtype=np.float64
        )

    def latency_ms(self, config: Mapping[str, KnobValue], load: float = 1.0) -> FloatArray:
        """Mean latency of each class under ``load`` times the normal arrivals, in ms."""
        service = self.service_ms(config)
        return service * self.contention(self.utilisation(service, load * self.arrivals))

    def _total(self, config: Mapping[str, KnobValue], load: float) -> float:
        return float((self.arrivals * self.latency_ms(config, load)).sum())

    def index_of(self, config: Mapping[str, KnobValue], load: float = 1.0) -> float:
        """The exact latency index of a configuration: 1 is the default one at the same load."""
        return self._total(config, load) / self._total(self.space.default_config(), load)


def _random_best(space: KnobSpace, rng: np.random.Generator) -> KnobConfig:
    """A legal point away from the edges of the space."""
    return space.decode(rng.uniform(-0.8, 0.8, space.width))
