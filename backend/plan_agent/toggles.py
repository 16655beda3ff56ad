"""Hint sets as sets of toggles: which are legal, and how they are named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import HintSet
from backend.errors import CatalogError, KnobError
from backend.plan_agent.states import Step, ToggleSet

_MOST_DEARER = 3.0
"""A plan 20 times dearer is as suspicious as one a million times dearer: what a setting forbids
costs 1e10 where it cannot be avoided."""


class ToggleSpace:
    """The legal sets of toggles of a catalogue.

    Args:
        catalog: the toggles; they are numbered in its order.
        most: how many of them may be on together.
    """

    def __init__(self, catalog: HintSetCatalog, most: int) -> None:
        self.catalog, self.most = catalog, most
        self._names = tuple(catalog.toggles)
        self._legal: dict[ToggleSet, NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def hint_set(self, on: ToggleSet) -> HintSet:
        """The hint set of some toggles.

        Raises:
            CatalogError: they contradict each other; KnobError: their names are too long together.
        """
        return self.catalog.combine([self._names[toggle] for toggle in sorted(on)])

    def legal(self, on: ToggleSet) -> NDArray[np.bool_]:
        """Which of the actions are legal when these toggles are on, shape ``(toggles + 1,)``.

        A toggle is legal once, with those that it does not contradict, as long as fewer than
        ``most`` are on. To stop, the last action, is always legal. The answer is kept: read only.
        """
        if on not in self._legal:
            free = frozenset(range(len(self))) - on if len(on) < self.most else frozenset()
            mask = np.zeros(len(self) + 1, np.bool_)
            mask[[*(toggle for toggle in free if self._exists(on | {toggle})), len(self)]] = True
            mask.setflags(write=False)
            self._legal[on] = mask
        return self._legal[on]

    def toggles(self, hint_set: HintSet) -> ToggleSet:
        """The toggles that a hint set is made of.

        Raises:
            CatalogError: it is not made of toggles, or of too many.
        """
        on = frozenset(
            number
            for number, toggle in enumerate(self.catalog.toggles.values())
            if toggle.settings.items() <= hint_set.settings.items()
        )
        if not self._exists(on) or self.hint_set(on).settings != hint_set.settings:
            raise CatalogError(f"hint set {hint_set.name} is not made of this catalogue's toggles")
        if len(on) > self.most:
            raise CatalogError(
                f"hint set {hint_set.name} has {len(on)} toggles, at most {self.most} are searched",
                remedy="raise max_toggles",
            )
        return on

    def _exists(self, on: ToggleSet) -> bool:
        try:
            self.hint_set(on)
        except (CatalogError, KnobError):
            return False
        return True


def parts(on: ToggleSet) -> Iterator[ToggleSet]:
    """Every set of some of these toggles, not of none or all: any order of taking them."""
    for size in range(1, len(on)):
        yield from map(frozenset, itertools.combinations(sorted(on), size))


def dearer(on: ToggleSet, steps: Mapping[ToggleSet, Step | None]) -> float:
    """ln of a plan's cost over the least of those that some or none of its toggles lead to.

    A toggle may change what things cost: then costs compare only with those under that toggle.

    Args:
        on: the plan's toggles.
        steps: the plans that are known, this one and the default plan among them.

    Returns:
        Within [0, 3]; 0 where the planner finds no plan cheaper than this one.
    """
    ways = (frozenset[int](), *parts(on), on)
    costs = [step.log_cost for step in map(steps.get, ways) if step is not None]
    return min(costs[-1] - min(costs), _MOST_DEARER)
