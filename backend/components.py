"""The tuner's parts and how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import URL

from backend.catalog.knobs import KnobCatalog, load_catalog
from backend.config import Settings
from backend.data_collector import DataCollector
from backend.db_connector import TUNER_APPLICATION, DatabaseConnector
from backend.deployment import Deployment
from backend.domain.knobs import KnobSpace
from backend.domain.load import LoadProfile
from backend.domain.metrics import MetricsWindow
from backend.domain.modes import Mode
from backend.domain.safety import SafetyVerdict
from backend.domain.server import ServerInfo
from backend.errors import EmbeddedServerError, LockNotAvailableError
from backend.learning import Learner
from backend.lease import TunerLease
from backend.memory_budget import MemoryBudget
from backend.parameter_adjuster import ParameterAdjuster
from backend.protocols import Clock, TargetDatabase
from backend.recorder import Recorder
from backend.safety_monitor import SafetyLimits, SafetyMonitor
from backend.servers import embedded_server
from backend.targets.postgresql import PostgresTarget
from backend.telemetry import SqlStore, open_store

TargetFactory = Callable[[Settings], TargetDatabase]


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
    limits: Mapping[str, Any]

    @property
    def safety_enabled(self) -> bool:
        """Whether the safety monitor judges."""
        return self.settings.safety.enabled

    def judge(
        self,
        window: MetricsWindow,
        log_ratio: float | None,
        failures_in_row: int,
        profile: LoadProfile,
    ) -> SafetyVerdict:
        """Ask the safety monitor about a window."""
        raise NotImplementedError

    def close(self) -> None:
        """Release lease, lock and connections. Idempotent."""
        self.lease.release()
        self.target.close()
        self.store.close()
