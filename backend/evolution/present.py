"""The genome to work with now: that of the settings, or one deployed for the present workload."""

from __future__ import annotations

import numpy as np

from backend.config import Settings
from backend.evolution.archive import standing_genome
from backend.evolution.genome import Genome
from backend.evolution.profile import Profile, profile_of
from backend.gate import GateSettings
from backend.learning import agent_settings
from backend.plan_learning import plan_agent_settings
from backend.protocols import TelemetryReader
from backend.state_features import STATE_LAYOUT

NEWEST = 50
"""Transitions whose states tell what the present workload is like."""


def default_genome(settings: Settings) -> Genome:
    """The genome of the settings: what is in use before anything was evolved."""
    level0, gate = settings.level0, GateSettings.of(settings.level1)
    return Genome.of(agent_settings(level0.knob), plan_agent_settings(level0.plan), gate)


def present_profile(store: TelemetryReader, workload: str | None = None) -> Profile:
    """Of the newest recorded states, of one workload or of any; {} where there are none."""
    states = [
        np.array(record.state)
        for record in store.transitions(workload=workload, limit=NEWEST)
        if record.state and record.state_layout == STATE_LAYOUT
    ]
    return profile_of(states)


def present_genome(
    settings: Settings, store: TelemetryReader, workload: str | None = None
) -> Genome:
    """The genome that the tuner works with under a workload.

    Args:
        settings: whose own genome is used where none was deployed for workloads alike.
        store: genomes and recorded states.
        workload: as transitions are labelled; None for the newest ones.
    """
    default = default_genome(settings)
    if not settings.level2.enabled:
        return default
    return standing_genome(store, present_profile(store, workload), default)
