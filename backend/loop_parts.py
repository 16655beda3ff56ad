"""The tuning loop of one run, and what proposes in it, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from backend.catalog.hint_sets import load_hint_sets
from backend.components import Components
from backend.observer import Observer
from backend.policy_learner import PolicyLearner
from backend.protocols import Clock
from backend.run_options import RunOptions
from backend.trial_planner import RunSchedule
from backend.tuning_loop import TuningLoop


def build_policy_learner(
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


def build_loop(
    parts: Components,
    observer: Observer,
    policies: PolicyLearner,
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
        policy=policies.propose,
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
