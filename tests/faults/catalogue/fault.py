"""What a fault of the catalogue is, and the list that its modules fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.catalogue.world import World

Attempt = Callable[[World, int], "float | None"]
"""Does it once. Takes the number of the repeat; returns the seconds until the last good
configuration stood again, None where nothing was off or nobody was left to restore it."""

FAULTS: list[Fault]


class Skipped(Exception):  # noqa: N818 - it is no error
    """This fault cannot be done here; says why."""


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Attributes:
        item: of the list of faults in docs/trust.md.
        name: what happens.
        repeats: how often ``make faults`` does it.
        in_ci: how often the tests do it; 0: it takes long, or another test does much the same.
        attempt: does it once; AssertionError where it was not survived.
    """

    item: int
    name: str
    repeats: int
    in_ci: int
    attempt: Attempt

    @property
    def key(self) -> str:
        """Its name in files and on the command line."""
        return f"{self.item}-{self.attempt.__name__.replace('_', '-')}"


FAULTS = []


def fault(item: int, name: str, *, repeats: int, in_ci: int = 1) -> Callable[[Attempt], Attempt]:
    """Put a function into the catalogue."""

    def enter(attempt: Attempt) -> Attempt:
        FAULTS.append(Fault(item, name, repeats, in_ci, attempt))
        return attempt

    return enter
