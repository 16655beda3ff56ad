"""A finding: what was measured, what it means, and which knobs it speaks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from backend.advice.facts import Facts
from backend.advice.observation import Observation
from backend.domain.quantities import format_quantity
from backend.expert_rules import MANUAL


class Severity(str, Enum):
    """How much a finding matters.

    CRITICAL: data or service are at risk. WARNING: it costs something now. NOTE: good to know.
    """

    CRITICAL = "critical"
    WARNING = "warning"
    NOTE = "note"


class Direction(str, Enum):
    """Which way a finding would have a knob turned; SET: to what the rule of thumb says."""

    RAISE = "raise"
    LOWER = "lower"
    SET = "set"


@dataclass(frozen=True)
class Finding:
    """One thing worth telling.

    Args:
        key: a short name.
        severity: how much it matters.
        title: in one line.
        evidence: what was measured, a line each.
        meaning: what follows, and what it may come from.
        page: of the manual, below its address.
        calls_for: knobs that it speaks for.
        statements: SQL that mends it by hand, not knobs.
    """

    key: str
    severity: Severity
    title: str
    evidence: tuple[str, ...]
    meaning: str
    page: str
    calls_for: Mapping[str, Direction] = field(default_factory=dict)
    statements: tuple[str, ...] = ()

    @property
    def manual(self) -> str:
        """The page of the manual."""
        return f"{MANUAL}{self.page}"


ALL_CACHED = 0.99
MIN_BLOCKS = 1000

Rule = Callable[[Facts], "Finding | None"]
"""Looks at the facts; None where it has nothing to tell."""


def all_cached(seen: Observation) -> float | None:
    """The share of blocks found in shared buffers where that is as good as all; else None."""
    hits, reads = seen.total("blocks_hit"), seen.total("blocks_read")
    if hits + reads < MIN_BLOCKS or hits < ALL_CACHED * (hits + reads):
        return None
    return hits / (hits + reads)


def count(things: float) -> str:
    """A number of things in words."""
    return f"{things:,.0f}"


def size(amount_bytes: float) -> str:
    """A number of bytes in words."""
    return format_quantity(amount_bytes, "B")
