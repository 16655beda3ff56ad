"""What the sandbox says of a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from backend.gate import Interval


class SandboxOutcome(str, Enum):
    """How a check ended.

    FAILED: the server does not start with the candidate, statements fail under it, or it is proven
    slower by more than it may be. PASSED: it was compared, and no such thing was found.
    UNKNOWN: nothing could be compared; the live trial has to find out by itself.
    """

    FAILED = "failed"
    PASSED = "passed"
    UNKNOWN = "cannot tell"


@dataclass(frozen=True)
class SandboxResult:
    """One check of one candidate.

    Args:
        outcome: how it ended, and ``reasons``: why, for people; no literal of a statement.
        interval: relative change of the statements' time, each class weighed by its share of the
            original's time; None where too little was measured.
        class_intervals: the same by query class, under its fingerprint.
        coverage: the share that the compared classes hold of the chosen ones' time, in [0, 1].
        blocks: that were measured, of ``statements`` statements.
        seconds: that the check took, with the making of the copy where there was none yet.
    """

    outcome: SandboxOutcome
    reasons: tuple[str, ...]
    interval: Interval | None = None
    class_intervals: Mapping[str, Interval] = field(default_factory=dict)
    coverage: float = 0.0
    blocks: int = 0
    statements: int = 0
    seconds: float = 0.0

    @property
    def may_be_tried(self) -> bool:
        """Whether the candidate may be tried live: all but what failed here."""
        return self.outcome is not SandboxOutcome.FAILED
