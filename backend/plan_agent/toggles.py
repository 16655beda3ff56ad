"""Hint sets as sets of toggles: which are legal, and how they are named."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from backend.catalog.hint_sets import HintSetCatalog
from backend.domain.plans import HintSet
from backend.errors import CatalogError, KnobError
from backend.plan_agent.states import ToggleSet


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
