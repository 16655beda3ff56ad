"""What each of the three levels came to in a run: the final report's section on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backend.demonstration import INJECTED
from backend.domain.modes import LEVEL_1, TrialKind, Verdict
from backend.domain.records import EventRecord, TrialRecord
from backend.protocols import TelemetryReader

ABLATION = (
    "What the run would have come to without a level cannot be told from one run: "
    "python -m benchmarks.level_ablation compares whole runs with and without it."
)
_ALL = 100_000
_ROLLBACK = "rollback"
"""Kind of the event that tells of each undone deployment."""


def levels_section(
    reader: TelemetryReader,
    trials: Sequence[TrialRecord],
    events: Sequence[EventRecord],
    since: datetime | None,
) -> dict[str, dict[str, object]]:
    """Count what the levels tried and what stood the gate.

    Args:
        reader: the store.
        trials: of the run.
        events: of the run.
        since: when the run began.

    Returns:
        ``level 0``, ``level 1``, ``level 2``. ``effects``: what each of a level's accepted
        promotions did to the latency index by its own trial (-0.25: a quarter lower), in the
        workload and against what stood then; no sum, and what was undone later is among them.
        ``probations`` and ``rechecks`` are those that came to a verdict. ``policy_updates``,
        ``rollbacks`` and ``genomes`` hold the records behind the numbers; of the genomes those
        that were deployed or judged against the one that stood. ``ablation`` names what one run
        cannot tell.
    """
    first = [t for t in trials if t.proposer not in (LEVEL_1, INJECTED)]
    second = [t for t in trials if t.proposer == LEVEL_1]
    updates = [u for u in reader.policy_updates(limit=_ALL) if since is None or u.at >= since]
    genomes = [g for g in reader.genomes(limit=_ALL) if since is None or g.at >= since]
    rollbacks = [event for event in events if event.kind == _ROLLBACK]
    return {
        "level 0": _proposals(first),
        "level 1": {
            **_proposals(second),
            "updates": len(updates),
            "deployed": sum(update.deployed for update in updates),
            "probations": _ended(trials, TrialKind.PROBATION),
            "rechecks": _ended(trials, TrialKind.RECHECK),
            "undone": len(rollbacks),
            "policy_updates": updates,
            "rollbacks": [{"at": event.at, "message": event.message} for event in rollbacks],
        },
        "level 2": {
            "measured": len(genomes),
            "deployed": sum(genome.deployed for genome in genomes),
            "genomes": [genome for genome in genomes if genome.deployed or genome.comparison],
        },
        "ablation": {"note": ABLATION},
    }


def _ended(trials: Sequence[TrialRecord], kind: TrialKind) -> int:
    return sum(t.kind is kind and t.verdict not in (None, Verdict.ABORTED) for t in trials)


def _proposals(trials: Sequence[TrialRecord]) -> dict[str, object]:
    promoted = [t for t in trials if t.kind is TrialKind.PROMOTION and t.verdict is Verdict.ACCEPT]
    return {
        "probes": sum(t.kind is TrialKind.PROBE for t in trials),
        "promotions": sum(t.kind is TrialKind.PROMOTION for t in trials),
        "promoted": len(promoted),
        "effects": [t.effect for t in promoted],
    }
