"""The tuner's parts and how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from backend.adjustment.elsewhere import (
    LEFT_BEHIND,
    brought_along,
    what_stands_here,
    what_was_left,
)
from backend.catalog.knobs import KnobCatalog, load_catalog
from backend.config import Settings
from backend.data_collector import DataCollector
from backend.deployment import ALL_VERSIONS, Deployment
from backend.domain.knobs import Knob, KnobSpace, KnobValue
from backend.domain.modes import Mode
from backend.domain.records import ChangeRecord, EventRecord
from backend.domain.server import KnobReading, ServerInfo
from backend.errors import LockNotAvailableError
from backend.evolution.present import GenomeInForce
from backend.learning import Learner
from backend.lease import LEASE_TTL_S, TunerLease
from backend.memory_budget import MemoryBudget
from backend.parameter_adjuster import ParameterAdjuster
from backend.policy_versions import PolicyVersions
from backend.protocols import Clock, TargetDatabase
from backend.recorder import Recorder
from backend.safety_monitor import SafetyMonitor, safety_limits
from backend.servers import postgres_target
from backend.steering.register import SteeringRegister
from backend.steering_parts import home_of, planner_settings
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
    register: SteeringRegister
    collector: DataCollector
    recorder: Recorder
    learner: Learner
    monitor: SafetyMonitor
    genome: GenomeInForce
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
        with ExitStack() as closing:  # each of them, whatever the one before it raises
            closing.callback(self.store.close)
            closing.callback(self.target.close)
            closing.callback(self.lease.release)


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
    readings = target.read_knobs(catalog.names)
    present = {name: r.value for name, r in readings.items()}
    versions = store.policy_versions(limit=ALL_VERSIONS)
    catalog = including(
        as_built(catalog, readings), [present, *(version.config for version in versions)]
    )
    adjuster = ParameterAdjuster(
        target, store, catalog, clock, identity=info.identity, sleep=clock.sleep
    )
    left = adjuster.leave_behind(lease.epoch)
    taken_up: tuple[ChangeRecord, ...] = ()
    if info.can("alter_system"):
        taken_up = adjuster.reconcile(lease.epoch).taken_up
    deployed = next((version.config for version in versions if version.active), {})
    brought = brought_along(store.changes_left_behind(), readings, catalog, deployed)
    _tell_of_servers(store, clock, left, taken_up, brought)
    info, space = _what_may_be_tried(catalog, settings, info, readings)
    policies = PolicyVersions(store, clock)
    register = SteeringRegister(store, clock, home_of(settings, info), policies)
    register.withdraw_proven_elsewhere()
    weights = settings.paths.policies_dir / "weights"
    is_real = isinstance(target, PostgresTarget)
    deployment = Deployment(
        target,
        adjuster,
        store,
        catalog,
        versions=policies,
        register=register,
        in_force=planner_settings(settings, info) if is_real else lambda names: None,
        has_weights=lambda name: (weights / name).is_file(),
        epoch=lambda: lease.epoch,
        allow_restart=info.can("restart"),
    )
    deployment.mode = info.mode_for(settings.effective_mode)
    _tell_best_mode(store, clock, settings.effective_mode, info)
    deployment.adopt()
    budget = MemoryBudget(
        info.host,
        clients=most_clients(settings, target),
        memory_limit_gb=settings.safety.memory_limit_gb,
        present=lambda: deployment.present,
    )
    genome = GenomeInForce(settings, store, clock)
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
        register=register,
        collector=DataCollector(target, sampler),
        recorder=Recorder(store, target, clock),
        learner=Learner(
            settings, space, info.host, budget, store, clock, adapt=genome.genome.knob_settings
        ),
        genome=genome,
        monitor=SafetyMonitor(safety_limits(settings)),
        lease=lease,
    )


def _what_may_be_tried(
    catalog: KnobCatalog,
    settings: Settings,
    info: ServerInfo,
    readings: Mapping[str, KnobReading],
) -> tuple[ServerInfo, KnobSpace]:
    """The knobs that our role may set; all that could be advised where it may set none of them."""
    if info.can("alter_system"):
        settable = [name for name, reading in readings.items() if reading.may_alter]
        space = tunable_space(catalog, settings, info, present=settable)
        if len(space):
            return info, space
        info = info.without(
            "alter_system",
            "our role may set none of the knobs that are tried; run.py grants prints the SQL",
        )
    return info, tunable_space(catalog, settings, info, present=readings)


def _tell_best_mode(store: SqlStore, clock: Clock, wanted: Mode, info: ServerInfo) -> None:
    """Where not every mode is possible, an event says which is, why, and what would help."""
    if info.best_mode is Mode.AUTO:
        return
    lowered = info.mode_for(wanted) is not wanted
    told = (
        f"mode {wanted.value} is not possible, {info.best_mode.value} is"
        if lowered
        else f"the furthest mode that is possible is {info.best_mode.value}"
    )
    store.add_event(
        EventRecord(
            clock.now(),
            "warning" if lowered else "info",
            "best_mode",
            f"{told}: {info.why_not_further}",
        )
    )


def _tell_of_servers(
    store: SqlStore,
    clock: Clock,
    left: Sequence[ChangeRecord],
    taken_up: Sequence[ChangeRecord],
    brought: Sequence[ChangeRecord],
) -> None:
    """After a fail-over, events say where a candidate was left, and what undoes it."""
    told = []
    if left:
        told.append(("error", LEFT_BEHIND, what_was_left(left)))
    if taken_up:
        knobs = ", ".join(sorted({row.knob for row in taken_up}))
        message = f"the former server is back; what was left there on trial is undone: {knobs}"
        told.append(("warning", "taken_up", message))
    if brought:
        told.append(("error", "unproven_entries", what_stands_here(brought)))
    for level, kind, message in told:
        store.add_event(EventRecord(clock.now(), level, kind, message))


def most_clients(settings: Settings, target: TargetDatabase) -> int:
    """How many clients may run statements at once: the demo's, or all that a server lets in."""
    if not settings.is_embedded:
        limit = target.read_knobs(("max_connections",)).get("max_connections")
        if limit is not None:
            return int(limit.value)
    return settings.workload.max_concurrency


def as_built(catalog: KnobCatalog, readings: Mapping[str, KnobReading]) -> KnobCatalog:
    """The catalogue without what this build of the server leaves out (lz4, zstd, io_uring)."""
    entries = []
    for entry in catalog:
        reading = readings.get(entry.name)
        if reading is not None and reading.choices:
            kept = tuple(c for c in entry.knob.choices if c in reading.choices)
            if len(kept) < 2:
                continue
            entry = replace(entry, knob=replace(entry.knob, choices=kept))
        entries.append(entry)
    return replace(catalog, entries=tuple(entries))


def including(catalog: KnobCatalog, stood: Iterable[Mapping[str, KnobValue]]) -> KnobCatalog:
    """The catalogue with bounds that hold every value that has stood on this server.

    Whoever runs the server may have gone beyond our bounds. What stands must not stop us from
    looking at it, and what stood must be allowed to stand again: going back is never refused.
    """
    entries = {entry.name: entry for entry in catalog}
    for config in stood:
        for name, value in config.items():
            entry = entries.get(name)
            if entry is not None:
                entries[name] = replace(entry, knob=_widened(entry.knob, value))
    return replace(catalog, entries=tuple(entries.values()))


def _widened(knob: Knob, value: KnobValue) -> Knob:
    if knob.kind == "categorical":
        if not isinstance(value, str) or value in knob.choices:
            return knob
        return replace(knob, choices=(*knob.choices, value))
    if knob.kind == "boolean" or isinstance(value, (bool, str)) or value in knob.special:
        return knob
    low, high = knob.bounds
    if low <= value <= high:
        return knob
    if value < 0 and knob.scale == "log":
        return replace(knob, special=(*knob.special, value))
    return replace(knob, low=min(low, value), high=max(high, value))


def tunable_space(
    catalog: KnobCatalog, settings: Settings, info: ServerInfo, present: Collection[str]
) -> KnobSpace:
    """The knobs that trials may turn: tunable, quick enough to judge, restarts where allowed."""
    restarts = settings.level1.allow_restart and info.can("restart")
    space = catalog.space(include_restart=restarts, max_settle_s=settings.level1.max_settle_s)
    return KnobSpace([knob for knob in space if knob.name in present])
