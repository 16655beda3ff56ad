"""A tuner under a load that shifts between workloads without a statement in common.

Transactional by day, analytical by night, and back; on the simulated database, in simulated time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue
from backend.domain.modes import Mode, TrialKind, Verdict
from backend.orchestrator import SystemOrchestrator
from backend.targets.simulated import Noise, ResponseModel, SimulatedDatabase
from backend.targets.simulated_load import LoadScript
from backend.targets.simulated_model import DEFAULT_SPACE, FloatArray, SimulatedClass
from backend.telemetry import open_store
from tests.simulated_run import Run, settings_in

SPACE = KnobSpace(
    [
        DEFAULT_SPACE[name]
        for name in ("random_page_cost", "jit", "cpu_tuple_cost", "effective_io_concurrency")
    ]
)
DAY = (
    SimulatedClass("SELECT * FROM products WHERE product_id = $1", 40.0, 0.8),
    SimulatedClass("SELECT * FROM orders WHERE customer_id = $1", 20.0, 3.0),
    SimulatedClass("INSERT INTO events (customer_id, kind) VALUES ($1, $2)", 20.0, 1.5, True),
)
NIGHT = (
    SimulatedClass("SELECT brand_id, count(*) FROM products GROUP BY brand_id", 6.0, 15.0),
    SimulatedClass("SELECT region, sum(amount) FROM order_items GROUP BY region", 4.0, 40.0),
    SimulatedClass("SELECT day, sum(amount) FROM orders GROUP BY day", 5.0, 30.0),
)
BEST: Mapping[str, Mapping[str, KnobValue]] = {
    "day": {"random_page_cost": 1.2, "jit": False},
    "night": {"random_page_cost": 8.0, "jit": True},
    "both": {},
}
SHORT = {"window_s": 5, "settle_s": 1, "baseline_s": 30, "rest_s": 60}


class TwoTastes(ResponseModel):
    """By day random pages should be cheap and JIT off, by night dear and on."""

    def __init__(self) -> None:
        super().__init__(SPACE, (*DAY, *NIGHT), gain=0.0)

    def _log_factors(self, config: KnobConfig) -> FloatArray:
        pages, jit = math.log(float(config["random_page_cost"])), float(config["jit"])
        by_day = 0.25 * (pages - math.log(1.2)) ** 2 + 0.15 * jit
        by_night = 0.25 * (pages - math.log(8.0)) ** 2 + 0.15 * (1.0 - jit)
        return np.array([by_day] * len(DAY) + [by_night] * len(NIGHT))

    def index_by_day(self, config: Mapping[str, KnobValue]) -> float:
        """The exact index of a configuration by day; 1 is the default one."""
        return self._index(config, slice(0, len(DAY)))

    def index_by_night(self, config: Mapping[str, KnobValue]) -> float:
        """The exact index of a configuration by night; 1 is the default one."""
        return self._index(config, slice(len(DAY), None))

    def _index(self, config: Mapping[str, KnobValue], offered: slice) -> float:
        def total_ms(values: Mapping[str, KnobValue]) -> float:
            arrivals, service = self.arrivals[offered], self.service_ms(values)[offered]
            return float((arrivals * service).sum()) * float(
                self.contention(self.utilisation(service, arrivals))
            )

        default = SPACE.default_config()
        return total_ms(default.replace(config)) / total_ms(default)


class Clients(LoadScript):
    """A load that the test shifts by hand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.offer("day")

    def offer(self, workload: str) -> None:
        """Shift to ``day``, ``night``, or ``both``."""
        object.__setattr__(self, "offered", workload)

    def factors(self, seconds: FloatArray, classes: int) -> FloatArray:
        by_day = np.arange(classes) < len(DAY)
        here = {"day": by_day, "night": ~by_day, "both": np.ones(classes)}[self.offered]
        return np.tile(here.astype(np.float64), (len(seconds), 1))


class KnowsTheAnswer:
    """In the place of the agent: proposes the best configuration for what is offered."""

    proposer = "the test"

    def __init__(self, clients: Clients) -> None:
        self.clients, self.workload = clients, "shop"
        self.objectives: list[tuple[str, float]] = []

    def load(self, present: KnobConfig) -> None: ...

    def ask(self, state: object, present: KnobConfig) -> KnobConfig:
        return present.replace(BEST[self.clients.offered])

    advise = ask

    def fit(self, config: KnobConfig) -> KnobConfig:
        return config

    def tell(self, config: KnobConfig, objective: float, *_: object, **__: object) -> None:
        self.objectives.append((self.workload, objective))


class Shifting(Run):
    """A run whose load the test shifts; ``scripted``: without the real agent."""

    def __init__(
        self,
        folder: Path,
        target: SimulatedDatabase | None = None,
        clients: Clients | None = None,
        *,
        scripted: bool = True,
        mode: Mode = Mode.AUTO,
        days: float | None = None,
        **level1: object,
    ) -> None:
        self.clients = clients or Clients()
        self.model = TwoTastes()
        noise = Noise(sigma=0.01, shared_sigma=0.01, per_call=0.3)
        self.target = target or SimulatedDatabase(self.model, load=self.clients, noise=noise)
        self.clock = self.target.clock
        self.settings = settings_in(folder, **{**SHORT, **level1})
        self.orchestrator = SystemOrchestrator(
            self.settings, target_factory=lambda _: self.target, clock=self.clock
        )
        self.orchestrator.initialize_components()
        self.orchestrator._components.deployment.mode = mode
        self.agent = KnowsTheAnswer(self.clients)
        if scripted:
            self.orchestrator._components.learner = self.agent  # type: ignore[assignment]
        self.orchestrator.begin(duration_days=days)
        self.loop = self.orchestrator.loop
        self.store = open_store(self.settings.store_url)

    @property
    def index_now(self) -> float | None:
        """The published index of the newest window outside trials."""
        return [w.index for w in self.store.windows(limit=50) if w.trial_id is None][-1]

    def started_again(self, folder: Path) -> Shifting:
        """The next tuner, after this one was killed or ended."""
        self.target.reopen()
        return Shifting(folder, self.target, self.clients)

    def promoted(self, count: int = 1) -> bool:
        """Whether so many promotions were accepted."""
        return self.verdicts(TrialKind.PROMOTION).count(Verdict.ACCEPT) >= count

    def tried(self, kind: TrialKind) -> bool:
        """Whether a trial of that kind runs and has measured something."""
        trial = self.loop.trial
        return trial is not None and trial.plan.kind is kind and trial.progress > 0

    def told(self, kind: str) -> list[str]:
        """The messages of the events of a kind."""
        return [event.message for event in self.store.events() if event.kind == kind]

    def number(self) -> int | None:
        """The workload in force."""
        present = self.loop.workloads.present
        return present.number if present is not None else None
