"""Several workloads on simulated servers that share one knob space, each with its own optimum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from backend.domain.clock import ManualClock
from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.metrics import MetricsSnapshot, MetricsWindow
from backend.domain.safety import SafetyVerdict
from backend.safety_monitor import SafetyLimits, SafetyMonitor
from backend.targets.simulated import LoadScript, Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_model import DEFAULT_SPACE, SimulatedClass

GAIN = 0.4
"""Share of the latency index that each workload's best configuration saves."""
NOISE = Noise(sigma=0.05, shared_sigma=0.05, correlation=0.7, per_call=0.5)
"""A window of ten seconds then has an index with a standard deviation of about 6 %, as on the
embedded server with the demo's workload."""
SWING = 0.3
"""The load of each workload moves so much around its mean, with a period of ten minutes."""
SPACE = KnobSpace([knob for knob in DEFAULT_SPACE if knob.context != "restart"])

WORKLOADS: Mapping[str, Sequence[SimulatedClass]] = {
    "transactional": (
        SimulatedClass("SELECT * FROM products WHERE product_id = $1", 60.0, 0.6),
        SimulatedClass("SELECT * FROM customers WHERE email = $1", 30.0, 0.8),
        SimulatedClass("SELECT * FROM orders WHERE customer_id = $1", 20.0, 2.0),
        SimulatedClass("INSERT INTO events (customer_id, kind) VALUES ($1, $2)", 35.0, 1.0, True),
        SimulatedClass("UPDATE stock SET amount = amount - $1 WHERE id = $2", 15.0, 1.5, True),
    ),
    "analytical": (
        SimulatedClass("SELECT brand_id, count(*) FROM products GROUP BY brand_id", 6.0, 15.0),
        SimulatedClass("SELECT region, sum(amount) FROM order_items JOIN ... GROUP BY region",
                       3.0, 50.0),
        SimulatedClass("SELECT day, sum(amount) FROM orders GROUP BY day", 3.0, 30.0),
        SimulatedClass("SELECT category, rank() OVER (...) FROM views", 2.0, 60.0),
    ),
    "mixed": (
        SimulatedClass("SELECT * FROM products WHERE product_id = $1", 30.0, 0.7),
        SimulatedClass("SELECT * FROM orders WHERE customer_id = $1", 10.0, 2.5),
        SimulatedClass("SELECT * FROM reviews WHERE rating < $1 ORDER BY at LIMIT $2", 4.0, 20.0),
        SimulatedClass("SELECT brand_id, count(*) FROM products GROUP BY brand_id", 1.0, 50.0),
        SimulatedClass("INSERT INTO events (customer_id, kind) VALUES ($1, $2)", 15.0, 1.1, True),
    ),
}  # fmt: skip
"""By name. The first two are those of a schedule of two: one by day, one by night."""


def foreign_index(seeds: Sequence[int], workloads: Sequence[str]) -> float:
    """Geometric mean index of one workload's best configuration in another workload."""
    logs = [
        math.log(site.index_of(other, site.best_config(name)))
        for site in (SimulatedSite(seed, workloads) for seed in seeds)
        for name in workloads
        for other in workloads
        if other != name
    ]
    return math.exp(fmean(logs))


class SimulatedSite:
    """A ``measuring.Site`` in simulated time.

    Args:
        seed: of the workloads' optima and weights, of noise and arrivals.
        workloads: names from ``WORKLOADS``.
    """

    def __init__(self, seed: int, workloads: Sequence[str]) -> None:
        self.space = SPACE
        self.clock = ManualClock()
        self.switch = self
        self._monitor = SafetyMonitor(SafetyLimits())
        self._standing = self.space.default_config()
        self._targets = {
            name: SimulatedDatabase(
                # One seed a workload: other knobs matter, and other values are best.
                ResponseModel(SPACE, WORKLOADS[name], gain=GAIN, seed=100 * seed + number),
                self.clock,
                load=LoadScript(swing=SWING),
                noise=NOISE,
                seed=100 * seed + number,
            )
            for number, name in enumerate(workloads)
        }
        self._target = self._targets[workloads[0]]

    def offer(self, workload: str) -> None:
        """See ``measuring.Site``; what stands on the server stays."""
        self._target = self._targets[workload]
        self.deploy(self._standing)

    def collect(self) -> MetricsSnapshot:
        """See ``measuring.Site``."""
        return self._target.snapshot()

    def deploy(self, config: KnobConfig) -> None:
        """See ``measuring.Site``."""
        self._standing = config
        self._set(config)

    def fit(self, config: KnobConfig) -> KnobConfig:
        """Everything may be tried here."""
        return config

    def judge_safety(
        self, window: MetricsWindow, baseline: MetricsWindow | None, log_ratio: float | None
    ) -> SafetyVerdict:
        """See ``measuring.Site``."""
        return self._monitor.judge(
            window, baseline=baseline, log_ratio=log_ratio, candidate_active=True
        )

    def keep_alive(self) -> None:
        """Nothing to do."""

    def index_of(self, workload: str, config: Mapping[str, KnobValue]) -> float:
        """See ``measuring.Site``."""
        return self._targets[workload].index_of(config)

    def best_index(self, workload: str) -> float:
        """See ``measuring.Site``."""
        return self.index_of(workload, self.best_config(workload))

    def best_config(self, workload: str) -> KnobConfig:
        """The best configuration there is for a workload."""
        return self._targets[workload].best_config

    # -- trials.ArmSwitch -------------------------------------------------------------------

    def enter(self, values: Mapping[str, KnobValue | None], trial_id: int | None) -> str:
        """Put the candidate on the server."""
        self._set({name: value for name, value in values.items() if value is not None})
        return "candidate"

    def leave(self, batch_id: str, reason: str) -> None:
        """Take it off again."""
        self._set(self._standing)

    def _set(self, values: Mapping[str, KnobValue]) -> None:
        self._target.write_entries(values)
        self._target.reload()
