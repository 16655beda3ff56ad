"""The genome to work with now: that of the settings, or one deployed for the present workload."""

from __future__ import annotations

import numpy as np

from backend.config import Settings
from backend.domain.policies import GenomeRecord
from backend.domain.records import EventRecord
from backend.evolution.archive import deployed, standing_record, worked_with
from backend.evolution.genome import Genome
from backend.evolution.profile import Profile, profile_of
from backend.gate import GateSettings
from backend.learning import Learner, agent_settings
from backend.plan_learning import plan_agent_settings
from backend.protocols import Clock, Store, TelemetryReader
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
) -> tuple[Genome, GenomeRecord | None]:
    """The genome that the tuner works with under a workload.

    Args:
        settings: whose own genome is used where none was deployed for workloads alike.
        store: genomes and recorded states.
        workload: as transitions are labelled; None for the newest ones.

    Returns:
        The genome, and the record that it is of; None for the settings' own.
    """
    default = default_genome(settings)
    if not settings.level2.enabled:
        return default, None
    record = standing_record(deployed(store), present_profile(store, workload))
    return worked_with(record, default), record


class GenomeInForce:
    """The genome that a tuner works with; another one may be taken up between two trials.

    It is chosen anew when another workload is offered, and when one was deployed or brought back:
    a profile that only wanders changes nothing.

    Args:
        settings: see :func:`present_genome`.
        store: genomes and recorded states; told of a change.
        clock: time.

    Attributes:
        genome: it.
        record_id: of the record that it is of; None for the settings' own.
    """

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self.genome, record = present_genome(settings, store)
        self.record_id = record.id if record is not None else None
        self._chosen_for: tuple[str, int | None] | None = None

    def follow(self, learner: Learner) -> None:
        """Take up what stands for the workload that the learner serves now.

        Raises:
            StoreError: the store cannot be read, or not be told.
        """
        if not self._settings.level2.enabled:
            return
        newest = self._store.genomes(deployed=True, limit=1)
        chosen_for = (learner.workload, newest[-1].id if newest else None)
        if chosen_for == self._chosen_for:
            return
        genome, record = present_genome(self._settings, self._store, learner.workload)
        if genome != self.genome:
            learner.adopt(genome.knob_settings)
            self._tell(record, learner.workload)
        self.genome, self.record_id = genome, record.id if record is not None else None
        self._chosen_for = chosen_for

    def gate_settings(self, base: GateSettings) -> GateSettings:
        """See :meth:`Genome.gate_settings`."""
        return self.genome.gate_settings(base)

    def _tell(self, record: GenomeRecord | None, workload: str) -> None:
        which = "that of the settings" if record is None else told(record)
        message = f"genome in force for workload {workload}: {which}"
        self._store.add_event(EventRecord(self._clock.now(), "info", "genome", message))


def told(record: GenomeRecord) -> str:
    """A deployed genome in a few words."""
    return f"{record.id} of study {record.study}, deployed {record.at:%Y-%m-%d %H:%M} UTC"
