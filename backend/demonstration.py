"""The acts of a demonstration: what happens to the demo's server, and when.

A bounded run of two simulated days and more is not left in peace: clients turn to other work for
a while, the data grows, and a harmful configuration is put in force behind the gate's back. All
three are over before the final comparison begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.domain.knobs import KnobValue

SHORTEST_DAYS = 2.0
"""Shorter runs have no time for more than learning and comparing."""

ACT = "act"
"""Kind of the events that tell of them."""
SHIFT, GROWTH, BAD_CHANGE = "shift", "growth", "bad change"

INJECTED = "demonstration"
"""Who proposed the harmful configuration."""
HARMFUL: Mapping[str, KnobValue] = {
    "work_mem": 64,
    "hash_mem_multiplier": 1.0,
    "random_page_cost": 10.0,
    "jit_above_cost": 1000.0,
}
"""Sorts and hashes spill to disk, indexes look dear, short statements are compiled first: bad for
reports, and undone by a reload."""

SHIFTED_MIX = {"mixed": "analytical", "analytical": "mixed", "oltp": "mixed", "simple": "mixed"}
"""What the clients turn to, by the mix that they come from."""

GROWN_SHARE = 0.25
"""By so much orders and events grow."""


@dataclass(frozen=True)
class Act:
    """A stretch of a run.

    Args:
        name: a short slug.
        title: for people.
        begins, ends: shares of the run's length, in [0, 1].
    """

    name: str
    title: str
    begins: float
    ends: float

    def span_s(self, duration_s: float) -> tuple[float, float]:
        """Begin and end in real seconds since the run began."""
        return self.begins * duration_s, self.ends * duration_s


ACTS = (
    Act(SHIFT, "clients turn to other work", 0.30, 0.42),
    Act(GROWTH, f"the data grows by {GROWN_SHARE:.0%}", 0.45, 0.50),
    Act(BAD_CHANGE, "a harmful configuration is put in force on purpose", 0.52, 0.52),
)


def acts_of(duration_days: float | None) -> tuple[Act, ...]:
    """The acts of a demonstration of so many simulated days; none for short and endless runs."""
    return ACTS if duration_days is not None and duration_days >= SHORTEST_DAYS else ()
