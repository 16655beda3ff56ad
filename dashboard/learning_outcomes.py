"""What became of Level 1's updates, read from the versions that followed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from backend.domain.policies import PolicyUpdateRecord, PolicyVersionRecord

WEIGHTS_OF: Mapping[str, str] = {"knob": "knob policy", "plan": "plan policy"}
"""What a policy version calls the weights of each policy."""


class Outcome(str, Enum):
    """What became of an update."""

    IN_FORCE = "in force"
    REPLACED = "replaced since"
    UNDONE = "undone"
    REFUSED = "not deployed"

    @property
    def kept(self) -> bool:
        """Whether it stands, or stood until a better one came."""
        return self in (Outcome.IN_FORCE, Outcome.REPLACED)


def outcomes(
    updates: Sequence[PolicyUpdateRecord], versions: Sequence[PolicyVersionRecord]
) -> list[tuple[PolicyUpdateRecord, Outcome]]:
    """Each update with its outcome, oldest first as they are given."""
    active = next((v for v in reversed(versions) if v.active), None)
    later: dict[str, PolicyUpdateRecord] = {}
    found = []
    for update in reversed(updates):
        found.append((update, _outcome(update, later.get(update.policy), active)))
        if update.deployed:
            later[update.policy] = update
    return found[::-1]


def _outcome(
    update: PolicyUpdateRecord,
    next_deployed: PolicyUpdateRecord | None,
    active: PolicyVersionRecord | None,
) -> Outcome:
    if not update.deployed:
        return Outcome.REFUSED
    name = WEIGHTS_OF.get(update.policy, update.policy)
    if active is None or active.weights.get(name) == update.weights:
        return Outcome.IN_FORCE
    if next_deployed is not None and next_deployed.replaced == update.weights:
        return Outcome.REPLACED
    return Outcome.UNDONE
