"""The simulated server of a demonstration: two workloads, each with a best answer of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from backend.catalog.knobs import load_catalog
from backend.demonstration import HARMFUL, SHIFT, Act
from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.run_options import FAST_MODE_FACTOR, SECONDS_PER_DAY
from backend.targets.simulated import LoadScript, Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_model import FloatArray
from benchmarks.shift.simulated import WORKLOADS

USUAL, OTHER = "mixed", "analytical"
"""What clients ask for, and what they turn to for a while."""
KNOBS = (
    "random_page_cost",
    "cpu_tuple_cost",
    "cpu_index_tuple_cost",
    "parallel_tuple_cost",
    "effective_cache_size",
    "effective_io_concurrency",
    "jit",
    "jit_above_cost",
    "max_parallel_workers_per_gather",
    "min_parallel_table_scan_size",
)
"""All act at once, and none takes memory: every best configuration may be deployed."""
GAIN = 0.4
"""Share of the latency index that the best configuration of a workload saves."""
NOISE = Noise(sigma=0.05, shared_sigma=0.05, correlation=0.7, per_call=0.5)
"""A window of ten seconds then has an index with a standard deviation of about 6 %, as on the
embedded server with the demo's workload."""
SWING = 0.3
"""The load moves so much around its mean, with a period of a day."""
DAY_S = SECONDS_PER_DAY / FAST_MODE_FACTOR
GROWS_ABOVE_MS = 5.0
"""Statements slower than this read much, and take longer by the share that the data grows."""
LEAST_HARM = 1.10
"""The injected change makes the usual workload slower by a tenth at least."""
MOST_DRAWS = 1000


class TwoWorkloads(ResponseModel):
    """A response in which each workload's classes follow a model of their own.

    Args:
        usual, other: the two, of one space; each knows the best configuration of its classes.
        growth: factor of the service times of what reads much.
    """

    def __init__(self, usual: ResponseModel, other: ResponseModel, growth: float = 1.0) -> None:
        super().__init__(usual.space, (*usual.classes, *other.classes), gain=0.0, cores=usual.cores)
        self._models = {USUAL: usual, OTHER: other}
        self.best_ms = np.where(self.best_ms > GROWS_ABOVE_MS, growth * self.best_ms, self.best_ms)
        usual_ones = np.arange(len(self.classes)) < len(usual.classes)
        self._offered = {USUAL: usual_ones, OTHER: ~usual_ones}

    def _log_factors(self, config: KnobConfig) -> FloatArray:
        return np.concatenate([model.log_factors(config) for model in self._models.values()])

    def grown(self, growth: float) -> TwoWorkloads:
        """The same with more data."""
        return TwoWorkloads(self._models[USUAL], self._models[OTHER], growth)

    def offered(self, workload: str) -> FloatArray:
        """1 for each class of a workload, 0 for the others."""
        return self._offered[workload].astype(np.float64)

    def index_in(self, workload: str, config: Mapping[str, KnobValue]) -> float:
        """The exact latency index of a configuration in a workload; 1 is the default one."""
        default = self.space.default_config()
        arrivals = self.arrivals * self.offered(workload)

        def total_ms(values: Mapping[str, KnobValue]) -> float:
            service = self.service_ms(values)
            busy = self.contention(self.utilisation(service, arrivals))
            return float((arrivals * service).sum() * busy)

        return total_ms(default.replace(config)) / total_ms(default)

    def best_of(self, workload: str) -> KnobConfig:
        """The best configuration there is for a workload."""
        return self._models[workload].best_config

    def missing(self, workload: str, config: Mapping[str, KnobValue]) -> float:
        """Share of a workload's gain that a configuration lacks: 0 is the best, 1 the default."""
        best = self.index_in(workload, self.best_of(workload))
        return (self.index_in(workload, config) - best) / (1.0 - best)


def knob_space() -> KnobSpace:
    """The catalogue's knobs of this server."""
    host = SimulatedDatabase(ResponseModel()).describe().host
    return load_catalog(170000, host).space(include_restart=False).subset(KNOBS)


def response(seed: int) -> TwoWorkloads:
    """Both workloads' optima and weights by lot, until the injected change truly harms."""
    space = knob_space()
    harmful = {name: value for name, value in HARMFUL.items() if name in space}
    for draw in range(MOST_DRAWS):
        usual, other = (
            ResponseModel(space, WORKLOADS[name], gain=GAIN, seed=10_000 * seed + 2 * draw + number)
            for number, name in enumerate((USUAL, OTHER))
        )
        model = TwoWorkloads(usual, other)
        harms = (
            model.index_in(USUAL, {**before, **harmful}) / model.index_in(USUAL, before)
            for before in (space.default_config(), usual.best_config)
        )
        if min(harms) >= LEAST_HARM:
            return model
    raise ValueError(f"seed {seed}: in {MOST_DRAWS} draws the injected change never harmed")


class DemonstrationServer(SimulatedDatabase):
    """A simulated server whose clients turn to other work and back, and whose data grows once.

    Args:
        seed: of the response, the noise and the arrivals.
        acts: by name; without one nothing happens.
        duration_s: of the run, in real seconds.
        swing, noise: of the load, and of what is measured.
    """

    def __init__(
        self,
        seed: int,
        acts: Mapping[str, Act],
        duration_s: float,
        *,
        swing: float = SWING,
        noise: Noise = NOISE,
    ) -> None:
        model = response(seed)
        self._shift_s = acts[SHIFT].span_s(duration_s) if SHIFT in acts else (math.inf, math.inf)
        moments = zip((0.0, *self._shift_s), (USUAL, OTHER, USUAL), strict=True)
        shifts = [(at_s, 1.0, tuple(model.offered(name))) for at_s, name in moments]
        super().__init__(
            model,
            ManualClock(),
            load=LoadScript(swing=swing, period_s=DAY_S, shifts=shifts),
            noise=noise,
            seed=seed,
            restart_allowed=False,
        )
        self._begun_s = self.clock.monotonic_s()

    @property
    def truth(self) -> TwoWorkloads:
        """The response as it is now."""
        assert isinstance(self.model, TwoWorkloads)
        return self.model

    @property
    def offered(self) -> str:
        """The workload that clients ask for now."""
        begins_s, ends_s = self._shift_s
        passed_s = self.clock.monotonic_s() - self._begun_s
        return OTHER if begins_s <= passed_s < ends_s else USUAL

    def grow(self, share: float) -> None:
        """The data grows by this share, and what reads much takes so much longer."""
        self.drift(self.truth.grown(1.0 + share), data_growth=1.0 + share)
