"""The tuner's parts and how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from backend.catalog.knobs import KnobCatalog, load_catalog
from backend.config import Settings
from backend.data_collector import DataCollector
from backend.deployment import Deployment
from backend.domain.knobs import KnobSpace
from backend.domain.modes import Mode
from backend.domain.server import ServerInfo
from backend.errors import LockNotAvailableError
from backend.learning import Learner
from backend.lease import TunerLease
from backend.memory_budget import MemoryBudget
from backend.parameter_adjuster import ParameterAdjuster
from backend.protocols import Clock, TargetDatabase
from backend.recorder import Recorder
from backend.safety_monitor import SafetyMonitor, safety_limits
from backend.servers import postgres_target
from backend.telemetry import SqlStore, open_store

TargetFactory = Callable[[Settings], TargetDatabase]
LEASE_TTL_S = 8.0
"""A tuner silent for longer is taken for hung: the watchdog then undoes what it left open."""


@dataclass
class Components:
    """Everything that one tuner consists of."""

    settings: Settings
    store: SqlStore
    target: TargetDatabase
    info: ServerInfo
    catalog: KnobCatalog
    space: KnobSpace
    budget: MemoryBudget
    adjuster: ParameterAdjuster
    deployment: Deployment
    collector: DataCollector
    recorder: Recorder
    learner: Learner
    monitor: SafetyMonitor
    lease: TunerLease

    @property
    def safety_enabled(self) -> bool:
        """Whether the safety monitor judges."""
        return self.settings.safety.enabled

    @property
    def limits(self) -> Mapping[str, Any]:
        """The safety limits, for the page."""
        return self.settings.safety.model_dump(mode="json")

    def close(self) -> None:
        """Release lease, lock and connections."""
        self.lease.release()
        self.target.close()
        self.store.close()


def build_components(
    settings: Settings,
    clock: Clock,
    target_factory: TargetFactory | None = None,
) -> Components:
    """Open the store, connect, take lock and lease, undo what a dead tuner left, wire the rest.

    Raises:
        StoreError, ServerConnectionError, UnsupportedServerError: with the remedy.
        LockNotAvailableError: another tuner acts on this server.
    """
    store = open_store(settings.store_url)
    target = (target_factory or postgres_target)(settings)
    try:
        info = target.describe()
        if not target.hold_tuner_lock():
            raise LockNotAvailableError(
                f"another tuner acts on {info.address}",
                remedy="stop it first; only one may act on a server at a time",
            )
        return _wire(settings, clock, store, target, info)
    except BaseException:
        target.close()
        store.close()
        raise


def _wire(
    settings: Settings,
    clock: Clock,
    store: SqlStore,
    target: TargetDatabase,
    info: ServerInfo,
) -> Components:
    lease = TunerLease(store, LEASE_TTL_S, clock)
    catalog = load_catalog(info.version, info.host)
    adjuster = ParameterAdjuster(target, store, catalog, clock, sleep=clock.sleep)
    if info.can("alter_system"):
        adjuster.reconcile(lease.epoch)
    deployment = Deployment(
        target,
        adjuster,
        store,
        catalog,
        clock,
        epoch=lambda: lease.epoch,
        allow_restart=info.can("restart"),
    )
    deployment.mode = settings.effective_mode
    if not info.can("alter_system") and deployment.mode in (Mode.APPROVE, Mode.AUTO):
        deployment.mode = Mode.ADVISE
    deployment.adopt()
    space = tunable_space(catalog, settings, info, present=deployment.present)
    budget = MemoryBudget(
        info.host,
        clients=settings.workload.max_concurrency,
        memory_limit_gb=settings.safety.memory_limit_gb,
        present=lambda: deployment.present,
    )
    sampler = getattr(target, "host_sampler", lambda: None)()
    return Components(
        settings=settings,
        store=store,
        target=target,
        info=info,
        catalog=catalog,
        space=space,
        budget=budget,
        adjuster=adjuster,
        deployment=deployment,
        collector=DataCollector(target, sampler, clock),
        recorder=Recorder(store, target, clock),
        learner=Learner(settings, space, info.host, budget, store, clock),
        monitor=SafetyMonitor(safety_limits(settings)),
        lease=lease,
    )


def tunable_space(
    catalog: KnobCatalog, settings: Settings, info: ServerInfo, present: Collection[str]
) -> KnobSpace:
    """The knobs that trials may turn: tunable, quick enough to judge, restarts where allowed."""
    restarts = settings.level1.allow_restart and info.can("restart")
    return KnobSpace(
        [
            knob
            for knob in catalog.space(include_restart=restarts)
            if knob.name in present
            and (knob.settle_s <= settings.level1.max_settle_s or knob.context == "restart")
        ]
    )
