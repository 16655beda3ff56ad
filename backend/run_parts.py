"""What one run of the tuner consists of, put together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime

from backend.catalog.hint_sets import load_hint_sets
from backend.components import Components
from backend.control_commands import draft_of
from backend.guidance import Guidance
from backend.injected_change import InjectedChange
from backend.observer import Observer
from backend.operator_commands import OperatorCommands
from backend.permission import Permission
from backend.policy_jobs import PolicyJobs
from backend.policy_learner import PolicyLearner
from backend.protocols import Clock
from backend.run_options import RunOptions
from backend.sandbox.copying import CopyLimits
from backend.sandbox.sandbox import Sandbox, SandboxSettings
from backend.settings.address import parse_url
from backend.steering.places import SteeringPlaces
from backend.steering.turns import ExplorationTurns
from backend.steering_jobs import SteeringJobs, build_steering_jobs
from backend.steering_parts import explorer_url
from backend.targets.postgresql import PostgresTarget
from backend.trial_planner import RunSchedule
from backend.tuning_loop import TuningLoop
from backend.vetting import Vetting


@dataclass(frozen=True)
class TunerRun:
    """The parts of a run; its jobs call them."""

    observer: Observer
    loop: TuningLoop
    injected: InjectedChange
    policies: PolicyJobs
    vetting: Vetting | None
    steering: SteeringJobs
    commands: OperatorCommands

    def close(self) -> None:
        """End what is open besides the components. The last call."""
        with ExitStack() as closing:  # each of them, whatever the one before it raises
            if self.vetting is not None:
                closing.callback(self.vetting.close)
            closing.callback(self.steering.close)


def build_run(
    parts: Components,
    options: RunOptions,
    started_at: datetime,
    turns: ExplorationTurns,
    clock: Clock,
    stop: threading.Event,
) -> TunerRun:
    """Wire a run that began at ``started_at``; ``stop`` ends what takes long.

    Raises:
        StoreError: the store cannot be read or written.
    """
    policies = _policy_learner(parts, options, clock, stop.is_set)
    vetting = _vetting(parts, turns, clock, stop)
    observer = Observer(parts, lambda: loop, turns.disturbed_since_asked)
    loop = _loop(parts, observer, policies, vetting, options, started_at, clock)
    steering = build_steering_jobs(parts, loop, observer, turns, clock, policies.plan_policy)
    return TunerRun(
        observer=observer,
        loop=loop,
        injected=InjectedChange(
            options, loop, parts.store, clock, lambda name: name in parts.space
        ),
        policies=PolicyJobs(policies, turns, parts.store, clock, lambda: loop.phase),
        vetting=vetting,
        steering=steering,
        commands=OperatorCommands(parts, loop, clock, steering.steer),
    )


def _policy_learner(
    parts: Components, options: RunOptions, clock: Clock, stopped: Callable[[], bool]
) -> PolicyLearner:
    """Level 1's learner for the knobs that may be tried; ``stopped`` ends what it learns."""
    return PolicyLearner(
        parts.settings,
        parts.space,
        load_hint_sets(parts.info.version, parts.info.host),
        parts.store,
        clock,
        parts.deployment.versions,
        time_scale=options.time_scale,
        stopped=stopped,
    )


def _vetting(
    parts: Components, turns: ExplorationTurns, clock: Clock, stop: threading.Event
) -> Vetting | None:
    """The way through the sandbox; None where it is off, or the server is a simulated one.

    ``stop`` ends a check that runs.
    """
    settings = parts.settings
    if not (settings.safety.sandbox_enabled and isinstance(parts.target, PostgresTarget)):
        return None
    section, address = settings.sandbox, settings.sandbox.dsn
    sandbox = Sandbox(
        explorer_url(settings),
        SandboxSettings(
            data_dir=settings.paths.data_dir,
            samples=SteeringPlaces(settings.paths.steering_dir).kept_samples,
            knobs=parts.catalog.names,
            limits=CopyLimits(section.max_rows, section.max_bytes, settings.workload.seed),
            max_s=section.max_s,
            max_regression=settings.safety.rollback_threshold,
            standby=parse_url(address.get_secret_value(), "sandbox.dsn") if address else None,
        ),
        stop,
    )
    return Vetting(sandbox, turns, parts.store, clock)


def _loop(
    parts: Components,
    observer: Observer,
    policies: PolicyLearner,
    vetting: Vetting | None,
    options: RunOptions,
    started_at: datetime,
    clock: Clock,
) -> TuningLoop:
    """The loop of a run that began at ``started_at``."""
    return TuningLoop(
        parts.settings,
        parts.space,
        parts.deployment,
        parts.learner,
        parts.store,
        clock,
        collect=parts.collector.collect,
        record_window=observer.record_trial_window,
        judge_safety=observer.judge_candidate,
        schedule=_schedule(parts, options, started_at, clock),
        permission=Permission(
            parts.settings, parts.space, parts.deployment, parts.store, clock, parts.info.server_id
        ),
        draft=lambda: draft_of(parts, clock),
        guidance=Guidance(
            policies.propose,
            vetting,
            parts.genome.gate_settings,
            lambda: parts.genome.follow(parts.learner),
        ),
        forget_index=parts.recorder.forget_recent,
    )


def _schedule(
    parts: Components, options: RunOptions, started_at: datetime, clock: Clock
) -> RunSchedule:
    """The run's moments; intervals pass as fast as its clock."""
    level1, schedule = parts.settings.level1, RunSchedule()
    if options.duration_s is not None:
        past_s = (clock.now() - started_at).total_seconds()
        begun_s = clock.monotonic_s() - past_s
        schedule = RunSchedule.bounded(begun_s, options.duration_s, level1)
    return replace(schedule, recheck_every_s=level1.recheck_interval / options.time_scale)
