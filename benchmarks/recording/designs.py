"""Which configurations are measured: rules, parts of them, points near them, the agent's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.stats import qmc

from backend.domain.knobs import KnobConfig, KnobSpace, KnobValue

HALF_WIDTH = 0.6
"""How far a numeric knob moves from its centre, at most, in encoded units (its range is 2)."""
ORDER = ("ask", "part of the rules", "near the rules", "near the defaults", "ask")
"""What is measured in turn. The agent asks for the expert rules first, then for its own."""


class Design:
    """An endless, reproducible sequence of configurations around the rules and the defaults.

    Args:
        space: the knobs.
        rules: what the expert rules change in the defaults, all together.
        seed: of the whole sequence.
    """

    def __init__(self, space: KnobSpace, rules: Mapping[str, KnobValue], seed: list[int]) -> None:
        self._space, self._rules = space, rules
        self._rng = np.random.default_rng(seed)
        self._sobol = qmc.Sobol(space.width, scramble=True, rng=np.random.default_rng(seed))

    def __iter__(self) -> Iterator[tuple[str, KnobConfig | None]]:
        """What it is, and the configuration; None: the agent's turn."""
        defaults = self._space.default_config()
        while True:
            for kind in ORDER:
                if kind == "part of the rules":
                    yield kind, defaults.replace(self._part())
                elif kind == "near the rules":
                    yield kind, self._near(defaults.replace(self._rules))
                elif kind == "near the defaults":
                    yield kind, self._near(defaults)
                else:
                    yield kind, None

    def _part(self) -> dict[str, KnobValue]:
        """A random half of what the rules change."""
        return {name: value for name, value in self._rules.items() if self._rng.random() < 0.5}

    def _near(self, centre: KnobConfig) -> KnobConfig:
        """Some knobs moved along a Sobol sequence: few more often than many."""
        point = 2.0 * self._sobol.random(1)[0] - 1.0
        count = len(self._space) ** self._rng.random()
        chosen = self._rng.permutation(len(self._space))[: max(1, round(count))]
        moved = dict(centre)
        start = 0
        for index, knob in enumerate(self._space):
            coordinates = point[start : start + knob.width]
            start += knob.width
            if index not in chosen:
                continue
            if knob.kind in ("integer", "real"):
                coordinates = knob.encode(centre[knob.name]) + HALF_WIDTH * coordinates
            moved[knob.name] = knob.decode(coordinates)
        return KnobConfig(moved)
