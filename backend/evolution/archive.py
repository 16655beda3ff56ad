"""The archive: which genome stands for which kind of workload, and what was known before.

The store's genome records are the archive: deployed ones are appended, none is changed, and of
those for one kind of workload the newest stands. So going back is one more record.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from backend.domain.policies import GenomeRecord
from backend.errors import ConfigError
from backend.evolution.genome import GENES, Genome
from backend.evolution.profile import ALIKE, SAME, Profile, distance
from backend.protocols import Store, TelemetryReader

MOST = 10_000
"""Records that are looked at."""


def standing_record(records: Sequence[GenomeRecord], profile: Profile) -> GenomeRecord | None:
    """The deployed genome of the nearest kind of workload, the newest of that kind.

    None where none was deployed for a workload alike. Without a profile any workload is alike.
    """
    usable = [
        (distance(record.profile, profile) if profile and record.profile else 0.0, record)
        for record in records
        if record.deployed and genome_of(record) is not None
    ]
    nearest = min((gap for gap, _ in usable), default=math.inf)
    if nearest > ALIKE:
        return None
    near = [record for gap, record in usable if gap <= nearest + SAME]
    return max(near, key=lambda record: record.at)


def standing_genome(store: TelemetryReader, profile: Profile, default: Genome) -> Genome:
    """The genome to work with under a workload: the deployed one, or the settings' own.

    Genes that evolution does not vary are always those of the settings.
    """
    return worked_with(standing_record(deployed(store), profile), default)


def deployed(store: TelemetryReader) -> Sequence[GenomeRecord]:
    """All genomes that were ever deployed, oldest first."""
    return store.genomes(deployed=True, limit=MOST)


def worked_with(record: GenomeRecord | None, default: Genome) -> Genome:
    """What a deployed genome, or none, makes of the settings' own."""
    if record is None:
        return default
    varied = {gene.name: record.genes[gene.name] for gene in GENES if gene.varied}
    return Genome({**default.values, **varied})


def starting_genomes(records: Sequence[GenomeRecord], profile: Profile, count: int) -> list[Genome]:
    """Genomes of earlier evolutions to begin with: deployed first, then by nearness and regret."""
    ranked = sorted(
        (record for record in records if record.fitness),
        key=lambda record: (
            not record.deployed,
            round(min(distance(record.profile, profile), 100.0)),
            record.fitness.get("regret", float("inf")),
        ),
    )
    genomes = [genome for record in ranked if (genome := genome_of(record)) is not None]
    return list(dict.fromkeys(genomes))[:count]


def genome_of(record: GenomeRecord) -> Genome | None:
    """The record's genome; None where it is of another version."""
    try:
        return Genome(record.genes)
    except ConfigError:
        return None


def go_back(store: Store, profile: Profile, default: Genome, now: datetime) -> GenomeRecord | None:
    """Deploy again what stood before the present genome of a kind of workload.

    Returns:
        What stands now; None where there is nothing to go back from.
    """
    records = deployed(store)
    present = standing_record(records, profile)
    if present is None:
        return None
    earlier = [r for r in records if r.at < present.at and r.genes != present.genes]
    former = standing_record(earlier, profile)
    genes = former.genes if former is not None else default.values
    restored = replace(
        former or present,
        id=None,
        at=now,
        genes=dict(genes),
        profile=present.profile,
        deployed=True,
        reason=f"back from the genome of {present.at:%Y-%m-%d %H:%M} UTC",
        comparison={},
    )
    return replace(restored, id=store.add_genome(restored))
