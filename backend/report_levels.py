"""What each of the three levels came to in a run: the final report's section on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from backend.demonstration import INJECTED
from backend.domain.modes import LEVEL_1, TrialKind, Verdict
from backend.domain.records import TrialRecord
from backend.protocols import TelemetryReader

_ALL = 100_000


def levels_section(
    reader: TelemetryReader, trials: Sequence[TrialRecord], since: datetime | None
) -> dict[str, dict[str, object]]:
    """Count what the levels tried and what stood the gate.

    Args:
        reader: the store.
        trials: of the run.
        since: when the run began.

    Returns:
        ``level 0``, ``level 1``, ``level 2``. ``saved`` is the share of the latency index that a
        level's accepted promotions saved one after the other, by their own trials; what was undone
        later is counted in ``undone`` and not taken off.
    """
    first = [t for t in trials if t.proposer not in (LEVEL_1, INJECTED)]
    second = [t for t in trials if t.proposer == LEVEL_1]
    updates = [u for u in reader.policy_updates(limit=_ALL) if since is None or u.at >= since]
    genomes = [g for g in reader.genomes(limit=_ALL) if since is None or g.at >= since]
    undoing = (TrialKind.PROBATION, TrialKind.RECHECK)
    undone = [t for t in trials if t.kind in undoing and t.verdict is Verdict.REJECT]
    return {
        "level 0": _proposals(first),
        "level 1": {
            **_proposals(second),
            "updates": len(updates),
            "deployed": sum(update.deployed for update in updates),
            "undone": len(undone),
        },
        "level 2": {
            "genomes": len(genomes),
            "deployed": sum(genome.deployed for genome in genomes),
        },
    }


def _proposals(trials: Sequence[TrialRecord]) -> dict[str, object]:
    promoted = [t for t in trials if t.kind is TrialKind.PROMOTION and t.verdict is Verdict.ACCEPT]
    effects = [t.effect for t in promoted if t.effect is not None]
    return {
        "probes": sum(t.kind is TrialKind.PROBE for t in trials),
        "promotions": sum(t.kind is TrialKind.PROMOTION for t in trials),
        "promoted": len(promoted),
        "saved": 1 - math.prod(1 + effect for effect in effects) if effects else 0.0,
    }
